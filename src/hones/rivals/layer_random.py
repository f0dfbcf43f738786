"""Chance with the layers of HONES: its importance, shuffled among the neurons of each layer.

At every budget the chosen set has as many neurons in each layer as HONES's set; which ones is uniform, so a draw may
hold some of HONES's own (the control of `hones mask` draws from the others).
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.rivals.base import Context, Method
from hones.rivals.hones import Hones


class LayerRandom(Method):
    """Uniform, with the per-layer counts of the HONES set."""

    name: ClassVar[str] = "layer-random"
    summary: ClassVar[str] = "uniform within each layer, as many per layer as hones selects"
    source: ClassVar[str] = "control"
    needs_heads: ClassVar[bool] = True
    drawn: ClassVar[bool] = True

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """One draw, by the context's seed."""
        importance = Hones().importance(context) if context.hones is None else context.hones
        return np.random.default_rng(context.seed).permuted(importance, axis=1)
