"""Where the edits begin of sweeps that replace several heads at once; everything above their first layer is run again.

Heads replaced above the first layer of an edit cost next to nothing beside the layers.
"""

from collections import Counter

import numpy as np

from hones.method.head_subsets import draw_subsets
from hones.method.head_ways import Subsets
from hones.runs.plan.shapes import Shapes
from hones.runs.plan.sweeping import Edits


def subset_edits(shapes: Shapes, subsets: Subsets, seed: int) -> Edits:
    """The subsets as they are drawn; an empty one is the unedited model and costs nothing."""
    rows = draw_subsets(subsets, shapes.all_heads, seed)
    of_layer = np.stack([part.sum(1) for part in np.split(rows, np.cumsum(shapes.head_counts)[:-1], axis=1)], axis=1)
    begun = [(int(row.nonzero()[0][0]), int(row[row > 0][0])) for row in of_layer if row.any()]
    heads = sum(replaced for _, replaced in begun) / max(1, len(begun))
    return Edits(Counter(layer for layer, _ in begun), heads=heads)


def step_edits(shapes: Shapes, each_head: Edits, given: int) -> Edits:
    """Each other head beside `given` ones, which are not known before: drawn anywhere, the first of them is on average
    in layer L / (given + 1). What the given ones cost alone is counted as the unedited model.
    """
    if given == 0:
        return each_head
    first = shapes.layers // (given + 1)
    at = {layer: count for layer, count in each_head.at.items() if layer < first}
    at[first] = sum(shapes.head_counts[first:]) - given
    return Edits(at, heads=1)
