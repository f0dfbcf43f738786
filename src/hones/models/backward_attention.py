"""Attention under rules of the backward pass (`hones.models.backward`), in the place where transformers hands it out.

An attention module asks transformers for the function of its implementation (eager, sdpa and others) and calls it with
queries, keys, values and a mask. While rules are in force, a module of the model gets one that has the same value.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from hones.errors import HonesError
from hones.models.anatomy import Anatomy
from hones.models.backward_rules import Rules, Softmax, differ, route, scaled


@contextmanager
def attention_by(
    anatomy: Anatomy, rules: Rules, attended: set[int], refused: Callable[[str], HonesError]
) -> Iterator[None]:
    """Let this model's attention modules get ruled attention functions; those of others get their own.

    Args:
        attended: is told the layers that asked for one.
        refused: the error, of why a softmax cannot be replaced.
    """
    number_of = {layer.attention: number for number, layer in enumerate(anatomy.layers)}
    get = AttentionInterface.get_interface

    def get_interface(interface: AttentionInterface, *asked: Any, **named: Any) -> Callable[..., Any]:
        attend = get(interface, *asked, **named)

        def ruled(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, **more: Any) -> Any:
            mask = more.pop("attention_mask", mask)
            if module not in number_of:
                return attend(module, query, key, value, mask, **more)
            attended.add(number_of[module])
            q, k, v = (scaled(x, factor) for x, factor in zip((query, key, value), rules.factors, strict=True))
            if rules.pattern:
                q, k = q.detach(), k.detach()
            output, *others = attend(module, q, k, v, mask, **more)
            if rules.softmax != 1 and output.requires_grad:
                here = _attention(module, q, k, v, mask, rules.softmax, more)
                if here.shape != output.shape or differ(here.detach(), output.detach(), output.dtype):
                    raise refused(f"attention of layer {number_of[module]} is not softmax(q k) v under its mask")
                output = route(output, here)
            return output, *others

        return ruled

    AttentionInterface.get_interface = get_interface  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        AttentionInterface.get_interface = get


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    temperature: float,
    more: dict[str, Any],
) -> Tensor:
    """softmax(q k / sqrt(d_h) + mask) v, [batch, positions, heads, d_h], the softmax's Jacobian taken at x / T."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    scaling = more.get("scaling")
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if (cap := more.get("softcap")) is not None:
        scores = cap * (scores / cap).tanh()
    asked = more.get("is_causal")
    if mask is None and (getattr(module, "is_causal", True) if asked is None else asked):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    nothing = None
    if mask is not None and mask.dtype == torch.bool:
        nothing = ~mask.any(-1, keepdim=True)  # a padded row sees no key, and its output is 0
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    pattern: Tensor = Softmax.apply(wide, temperature).to(query.dtype)  # pyright: ignore
    if nothing is not None:
        pattern = pattern.masked_fill(nothing, 0)
    return (pattern @ value).transpose(1, 2)
