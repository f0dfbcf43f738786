"""Edits of a running model, as context managers on a plain transformers model.

    replace_heads   o[l,h](s) <- mean over j != h of o[l,j](s)      (paper, step 1)
    mask_neurons    z[l,i](s) <- 0                                  (step 3)
    scale_neurons   z[l,i](s) <- (1 + s[l,i]) z[l,i](s)             (step 4)

o[l,h](s) is head h's slice [d_h] of the input of o_proj at position s, z[l,i](s) the input of down_proj. Every position
is edited, while reading the prompt and at every decoding step. What enters the projection is replaced, so weights are
never touched; all sites resolve before the first hook is placed, and leaving the context, also through an error,
removes every hook (`hones.models.capture`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from hones.models.anatomy import Anatomy, find_anatomy
from hones.models.capture import HEADS, Place, Z, capture
from hones.models.sites import Site

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Intervention:
    """Edits of a model as data: heads replaced, neurons masked, neurons scaled by 1 + s. Empty: the model itself."""

    heads: frozenset[Site] = frozenset()
    masked: frozenset[Site] = frozenset()
    scales: Mapping[Site, float] = field(default_factory=dict)

    @property
    def layers(self) -> list[int]:
        """The layers with an edit, in order."""
        return sorted({layer for layer, _ in (*self.heads, *self.masked, *self.scales)})

    def check(self, anatomy: Anatomy) -> None:
        """Raises HonesError unless the model has all these heads and neurons."""
        for site in self.heads:
            anatomy.check_head(*site)
        for site in (*self.masked, *self.scales):
            anatomy.check_neuron(*site)

    @contextmanager
    def on(self, model: PreTrainedModel) -> Iterator[None]:
        """The edited model.

        Raises:
            HonesError: the model has no such head or neuron.
        """
        anatomy = find_anatomy(model)
        heads = _by_layer(self.heads, anatomy.check_head)
        masked = _by_layer(self.masked, anatomy.check_neuron)
        scaled = _by_layer(self.scales, anatomy.check_neuron)
        factors = {layer: torch.tensor([self.scales[layer, i] for i in scaled[layer]]) for layer in scaled}
        with (
            _replaced(anatomy, HEADS, {layer: _mean_replacement(heads[layer], anatomy.heads) for layer in heads}),
            _replaced(anatomy, Z, {layer: _zero(torch.tensor(masked[layer])) for layer in masked}),
            scaling(anatomy, {layer: torch.tensor(scaled[layer]) for layer in scaled}, factors),
        ):
            yield


BASELINE = Intervention()


def replace_heads(model: PreTrainedModel, heads: Iterable[Site]) -> AbstractContextManager[None]:
    """Replace each (layer, head) by the mean of the layer's other heads.

    Several heads of one layer are replaced at once, each by the mean of all others as they were before the edit.

    Raises:
        HonesError: the model has no such head.
    """
    return Intervention(heads=frozenset(heads)).on(model)


def mask_neurons(model: PreTrainedModel, neurons: Iterable[Site]) -> AbstractContextManager[None]:
    """Set the activation z of each (layer, neuron) to zero.

    Raises:
        HonesError: the model has no such neuron.
    """
    return Intervention(masked=frozenset(neurons)).on(model)


def scale_neurons(model: PreTrainedModel, scales: Mapping[Site, float]) -> AbstractContextManager[None]:
    """Multiply the activation z of each (layer, neuron) by 1 + s, `scales` being its s.

    Raises:
        HonesError: the model has no such neuron.
    """
    return Intervention(scales=scales).on(model)


@contextmanager
def scaling(anatomy: Anatomy, indices: Mapping[int, Tensor], scales: Mapping[int, Tensor]) -> Iterator[None]:
    """`scale_neurons` with one index and one scale vector [k] per layer; gradients flow to the scales."""
    with _replaced(anatomy, Z, {layer: _scale(indices[layer], scales[layer]) for layer in indices}):
        yield


def _replaced(anatomy: Anatomy, place: Place, edits: Mapping[int, Change]) -> AbstractContextManager[None]:
    return capture(anatomy, place, lambda layer, x: edits[layer](x), edits)


def _by_layer(sites: Iterable[Site], check: Callable[[int, int], None]) -> dict[int, list[int]]:
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, index in sorted(sites):
        check(layer, index)
        by_layer[layer].append(index)
    return dict(by_layer)


def _mean_replacement(replaced: list[int], heads: int) -> Change:
    def edit(x: Float[Tensor, "*positions inner"]) -> Float[Tensor, "*positions inner"]:
        by_head = x.unflatten(-1, (heads, -1))
        edited = by_head.clone()
        for h in replaced:
            others = [j for j in range(heads) if j != h]
            edited[..., h, :] = by_head[..., others, :].mean(-2)
        return edited.flatten(-2)

    return edit


def _zero(indices: Tensor) -> Change:
    return lambda z: z.index_fill(-1, indices.to(z.device), 0)


def _scale(indices: Tensor, scales: Tensor) -> Change:
    def edit(z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions neurons"]:
        factors = torch.ones(z.shape[-1], dtype=scales.dtype, device=z.device)
        factors = factors.index_add(0, indices.to(z.device), scales.to(z.device))
        return (z.to(torch.promote_types(z.dtype, factors.dtype)) * factors).to(z.dtype)

    return edit
