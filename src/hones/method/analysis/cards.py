"""Neuron cards: heads -> neuron -> tokens, and the pictures that drive it.

    share[h] = S(h) max(0, mean_x drop of c under I(h)) / the same, summed over the heads      of its importance
    c(x)     = z(x) <W_down[:, i], u_y(x)>                                                     toward x's own answer

(`hones.method.neurons`; both on the items on which the neuron was found). Tokens: `hones.method.analysis.tokens`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from hones.method.analysis.results import HeadRef
from hones.method.direction import target_directions
from hones.method.found import HeadScore
from hones.method.neurons import guiding_heads
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.models.writing import Readouts, contributions
from hones.progress import track
from hones.tasks.base import Example, Task

BATCH = 8


def head_shares(
    heads: Sequence[HeadScore], parts: Float[np.ndarray, "guides layers neurons"], neuron: Site
) -> tuple[HeadRef, ...]:
    """Each guiding head's share of the neuron's importance, largest first; heads without any are left out.

    Args:
        parts: `hones.method.neurons.head_importance` of these heads.
    """
    of_neuron = parts[:, neuron[0], neuron[1]]
    shares = [
        HeadRef(h.layer, h.head, float(part / of_neuron.sum()))
        for h, part in zip(guiding_heads(heads), of_neuron, strict=True)
        if part > 0
    ]
    return tuple(sorted(shares, key=lambda share: -share.value))


def contributions_of(
    vlm: VLM, task: Task, examples: Sequence[Example], neurons: Sequence[Site], batch_size: int | None = None
) -> Float[np.ndarray, "items neurons"]:
    """c of these neurons toward every example's own answer, at the last prompt position."""
    directions = target_directions(vlm, task, examples)
    readouts = Readouts(vlm)
    layers = torch.tensor([layer for layer, _ in neurons])
    indices = torch.tensor([index for _, index in neurons])
    size = batch_size or BATCH
    rows = []
    for start in track(range(0, len(examples), size), f"{task.name}: what drives the neurons"):
        part = examples[start : start + size]
        encoded = vlm.encode([e.open_picture() for e in part], [e.prompts[0] for e in part])
        c = contributions(vlm, encoded, readouts.of(directions[start : start + size]))
        rows.append(c[:, layers, indices].cpu().numpy())
    return np.concatenate(rows)


def drivers(contributed: Float[np.ndarray, " items"], count: int) -> list[int]:
    """The items with the largest contributions above zero, best first."""
    return [int(i) for i in np.argsort(-contributed, kind="stable")[:count] if contributed[i] > 0]
