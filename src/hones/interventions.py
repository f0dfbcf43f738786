"""Edits of a running model, as context managers on a plain transformers model.

    replace_heads   o[l,h](s) <- mean over j != h of o[l,j](s)      (paper, step 1)
    mask_neurons    z[l,i](s) <- 0                                  (step 3)
    scale_neurons   z[l,i](s) <- (1 + s[l,i]) z[l,i](s)             (step 4)

o[l,h](s) is head h's slice [d_h] of the input of o_proj at position s, z[l,i](s) the input of down_proj. Every position
is edited, while reading the prompt and at every decoding step. The edit happens in a forward pre-hook of the
projection, so weights are never touched; all sites resolve before the first hook is placed, and leaving the context,
also through an error, removes every hook.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from hones.models.anatomy import Anatomy, find_anatomy

Site = tuple[int, int]
Edit = Callable[[Tensor], Tensor]


@contextmanager
def replace_heads(model: PreTrainedModel, heads: Iterable[Site]) -> Iterator[None]:
    """Replace each (layer, head) by the mean of the layer's other heads.

    Several heads of one layer are replaced at once, each by the mean of all others as they were before the edit.

    Raises:
        HonesError: the model has no such head.
    """
    anatomy = find_anatomy(model)
    by_layer = _by_layer(heads, anatomy.check_head)
    edits = {layer: _mean_replacement(indices, anatomy.heads) for layer, indices in by_layer.items()}
    with _editing([(anatomy.layers[layer].o_proj, edit) for layer, edit in edits.items()]):
        yield


@contextmanager
def mask_neurons(model: PreTrainedModel, neurons: Iterable[Site]) -> Iterator[None]:
    """Set the activation z of each (layer, neuron) to zero.

    Raises:
        HonesError: the model has no such neuron.
    """
    anatomy = find_anatomy(model)
    edits = [
        (anatomy.layers[layer].down_proj, _zero(torch.tensor(indices)))
        for layer, indices in _by_layer(neurons, anatomy.check_neuron).items()
    ]
    with _editing(edits):
        yield


@contextmanager
def scale_neurons(model: PreTrainedModel, scales: Mapping[Site, float]) -> Iterator[None]:
    """Multiply the activation z of each (layer, neuron) by 1 + s, `scales` being its s.

    Raises:
        HonesError: the model has no such neuron.
    """
    anatomy = find_anatomy(model)
    by_layer = _by_layer(scales, anatomy.check_neuron)
    values = {layer: torch.tensor([scales[layer, i] for i in indices]) for layer, indices in by_layer.items()}
    with scaling(anatomy, {k: torch.tensor(v) for k, v in by_layer.items()}, values):
        yield


@contextmanager
def scaling(anatomy: Anatomy, indices: Mapping[int, Tensor], scales: Mapping[int, Tensor]) -> Iterator[None]:
    """`scale_neurons` with one index and one scale vector [k] per layer; gradients flow to the scales."""
    edits = [(anatomy.layers[layer].down_proj, _scale(indices[layer], scales[layer])) for layer in indices]
    with _editing(edits):
        yield


def _by_layer(sites: Iterable[Site], check: Callable[[int, int], None]) -> dict[int, list[int]]:
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, index in sorted(set(sites)):
        check(layer, index)
        by_layer[layer].append(index)
    return dict(by_layer)


def _mean_replacement(replaced: list[int], heads: int) -> Edit:
    def edit(x: Float[Tensor, "*positions inner"]) -> Float[Tensor, "*positions inner"]:
        by_head = x.unflatten(-1, (heads, -1))
        edited = by_head.clone()
        for h in replaced:
            others = [j for j in range(heads) if j != h]
            edited[..., h, :] = by_head[..., others, :].mean(-2)
        return edited.flatten(-2)

    return edit


def _zero(indices: Tensor) -> Edit:
    def edit(z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions neurons"]:
        return z.index_fill(-1, indices.to(z.device), 0)

    return edit


def _scale(indices: Tensor, scales: Tensor) -> Edit:
    def edit(z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions neurons"]:
        factors = torch.ones(z.shape[-1], dtype=scales.dtype, device=z.device)
        factors = factors.index_add(0, indices.to(z.device), scales.to(z.device))
        return (z.to(torch.promote_types(z.dtype, factors.dtype)) * factors).to(z.dtype)

    return edit


def _pre_hook(edit: Edit) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return edit(args[0]), *args[1:]

    return hook


@contextmanager
def _editing(edits: Iterable[tuple[nn.Module, Edit]]) -> Iterator[None]:
    handles = []
    try:
        for module, edit in edits:
            handles.append(module.register_forward_pre_hook(_pre_hook(edit)))
        yield
    finally:
        for handle in handles:
            handle.remove()
