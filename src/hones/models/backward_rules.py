"""What rules of the backward pass are made of: tensors whose gradient goes another way than their value came.

`hones.models.backward` says what the rules are.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

ROUNDING = 64
"""By how many roundings of its dtype a stand-in's value may differ from the model's, relative."""

Factors = tuple[float, float, float]


@dataclass(frozen=True)
class Rules:
    """Which rules are in force, each off by default.

    softmax: T. factors: of queries, keys and values. product: of both factors of a gated FFN.
    """

    norm: bool = False
    pattern: bool = False
    softmax: float = 1.0
    factors: Factors = (1.0, 1.0, 1.0)
    activation: bool = False
    product: float = 1.0

    def alone(self) -> dict[str, "Rules"]:
        """Each rule that is in force, without the others, by its name."""
        nothing = Rules()
        asked = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: Rules(**{name: value}) for name, value in asked.items() if value != getattr(nothing, name)}

    @property
    def of_attention(self) -> bool:
        """Whether any of them is about attention."""
        return self.pattern or self.softmax != 1 or self.factors != (1, 1, 1)


class Route(torch.autograd.Function):
    """A value whose gradient goes to another tensor of its shape, multiplied."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, to: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, ctx.factor * gradients[0], None


def route(value: Tensor, to: Tensor, factor: float = 1.0) -> Tensor:
    """The value; its gradient is that of `to` times a factor."""
    return Route.apply(value.detach(), to.to(value.dtype), factor)  # pyright: ignore[reportReturnType]


def scaled(x: Tensor, factor: float) -> Tensor:
    """x, with its gradient multiplied."""
    return x if factor == 1 else route(x, x, factor)


class Softmax(torch.autograd.Function):
    """softmax(x) over the last dimension, with the Jacobian that softmax has at x / T."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward((x / temperature).softmax(-1))
        return x.softmax(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (p,) = ctx.saved_tensors
        return p * (gradients[0] - (p * gradients[0]).sum(-1, keepdim=True)), None


def differ(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two values of one tensor differ by more than rounding."""
    # norms of transformers compute in float32 whatever the model's dtype
    rounding = ROUNDING * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    return not bool((found - expected).norm() <= rounding * expected.norm())
