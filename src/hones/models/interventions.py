"""Edits of a running model, as context managers on a plain transformers model.

    replace_heads   o[l,h](s) <- mean over j != h of o[l,j](s)      (paper, step 1)
    mask_neurons    z[l,i](s) <- 0                                  (step 3)
    keep_neurons    z[l,i](s) <- r[l,i] of all neurons but a set    (step 3 the other way round; r: 0, or constants)
    scale_neurons   z[l,i](s) <- (1 + s[l,i]) z[l,i](s)             (step 4)

o[l,h](s) is head h's slice [d_h] of the input of o_proj at position s, z[l,i](s) the input of down_proj. Every position
is edited, while reading the prompt and at every decoding step. What enters the projection is replaced, so weights are
never touched; all sites resolve before the first hook is placed, and leaving the context, also through an error,
removes every hook (`hones.models.capture`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from hones.errors import HonesError
from hones.models.adapters import Adapter, adapting
from hones.models.anatomy import Anatomy
from hones.models.capture import HEADS, Place, Z, capture
from hones.models.finding import find_anatomy
from hones.models.sites import Site

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Constants:
    """What z of a replaced neuron becomes, in place of 0. Equal only to itself, as the values are not compared."""

    values: Float[np.ndarray, "layers neurons"]


@dataclass(frozen=True)
class Kept:
    """The only neurons that stay as they are, of L layers of I neurons."""

    neurons: frozenset[Site]
    layers: int
    width: int

    @classmethod
    def of(cls, neurons: Iterable[Site], anatomy: Anatomy) -> "Kept":
        """Some neurons of a model."""
        layers, _, width = anatomy.shape
        return cls(frozenset(neurons), layers, width)

    @cached_property
    def others(self) -> Bool[np.ndarray, "layers neurons"]:
        """Which neurons do not stay."""
        others = np.ones((self.layers, self.width), dtype=bool)
        for site in self.neurons:
            others[site] = False
        return others


@dataclass(frozen=True)
class Intervention:
    """Edits of a model as data: heads replaced, neurons masked, neurons scaled by 1 + s. Empty: the model itself.

    kept: all other neurons are masked too. constants: what masked neurons become; None: 0. adapter: a learned part, on
    what heads and neurons are after these edits.
    """

    heads: frozenset[Site] = frozenset()
    masked: frozenset[Site] = frozenset()
    scales: Mapping[Site, float] = field(default_factory=dict)
    kept: Kept | None = None
    constants: Constants | None = None
    adapter: Adapter | None = None

    @property
    def layers(self) -> list[int]:
        """The layers with an edit, in order."""
        edited = {layer for layer, _ in (*self.heads, *self.masked, *self.scales)}
        if self.kept is not None:
            edited |= {*np.flatnonzero(self.kept.others.any(1)).tolist()}
        if self.adapter is not None:
            edited |= {*self.adapter.values}
        return sorted(edited)

    @property
    def only_masks(self) -> bool:
        """Whether all that neurons become is 0, or their multiple, of those that are named."""
        return self.kept is None and self.constants is None

    def replaced(self) -> dict[int, Int[np.ndarray, " neurons"]]:
        """The neurons of each layer whose z becomes a constant, in order."""
        if self.kept is None:
            return {layer: np.array(neurons) for layer, neurons in _by_layer(self.masked).items()}
        chosen = self.kept.others.copy()
        for site in self.masked:
            chosen[site] = True
        return {layer: row.nonzero()[0] for layer, row in enumerate(chosen) if row.any()}

    def check(self, anatomy: Anatomy) -> None:
        """Raises HonesError unless the model has all these heads and neurons, and is of the shape that is asked for."""
        for site in self.heads:
            anatomy.check_head(*site)
        for site in (*self.masked, *self.scales):
            anatomy.check_neuron(*site)
        if self.adapter is not None:
            self.adapter.check(anatomy)
        layers, _, width = anatomy.shape
        if self.kept is not None:
            for site in self.kept.neurons:
                anatomy.check_neuron(*site)
        shapes = [] if self.kept is None else [(self.kept.layers, self.kept.width)]
        shapes += [] if self.constants is None else [self.constants.values.shape]
        for shape in shapes:
            if shape != (layers, width):
                raise HonesError(f"an edit of {shape[0]} layers of {shape[1]} neurons", expected=f"{layers} of {width}")

    @contextmanager
    def on(self, model: PreTrainedModel) -> Iterator[None]:
        """The edited model.

        Raises:
            HonesError: the model has no such head or neuron.
        """
        anatomy = find_anatomy(model)
        self.check(anatomy)
        count = anatomy.head_counts
        of_heads = {layer: _mean_replacement(heads, count[layer]) for layer, heads in _by_layer(self.heads).items()}
        replaced = self.replaced()
        gone = {(layer, int(i)) for layer, neurons in replaced.items() for i in neurons} if self.scales else set()
        scaled = _by_layer(site for site in self.scales if site not in gone)
        factors = {layer: torch.tensor([self.scales[layer, i] for i in scaled[layer]]) for layer in scaled}
        with (
            _replaced(anatomy, HEADS, of_heads),
            _replaced(anatomy, Z, {layer: self._constant(layer, replaced[layer]) for layer in replaced}),
            scaling(anatomy, {layer: torch.tensor(scaled[layer]) for layer in scaled}, factors),
            adapting(anatomy, self.adapter.part, self.adapter.vectors) if self.adapter else nullcontext(),
        ):
            yield

    def _constant(self, layer: int, neurons: Int[np.ndarray, " neurons"]) -> Change:
        """z of these neurons becomes 0, or the constants."""
        indices = torch.from_numpy(neurons)
        if self.constants is None:
            return _zero(indices)
        return _constant(indices, torch.from_numpy(self.constants.values[layer, neurons]))


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


def keep_neurons(
    model: PreTrainedModel, neurons: Iterable[Site], constants: Float[np.ndarray, "layers neurons"] | None = None
) -> AbstractContextManager[None]:
    """Keep the activation z of each (layer, neuron), and replace that of every other FFN neuron.

    Args:
        constants: what the others become, float32; None: 0.

    Raises:
        HonesError: the model has no such neuron, or is of another shape.
    """
    kept = Kept.of(neurons, find_anatomy(model))
    return Intervention(kept=kept, constants=None if constants is None else Constants(constants)).on(model)


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


def _by_layer(sites: Iterable[Site]) -> dict[int, list[int]]:
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, index in sorted(sites):
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


def _constant(indices: Tensor, values: Tensor) -> Change:
    def edit(z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions neurons"]:
        edited = z.clone()
        edited[..., indices.to(z.device)] = values.to(z)
        return edited

    return edit


def _scale(indices: Tensor, scales: Tensor) -> Change:
    def edit(z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions neurons"]:
        factors = torch.ones(z.shape[-1], dtype=scales.dtype, device=z.device)
        factors = factors.index_add(0, indices.to(z.device), scales.to(z.device))
        return (z.to(torch.promote_types(z.dtype, factors.dtype)) * factors).to(z.dtype)

    return edit
