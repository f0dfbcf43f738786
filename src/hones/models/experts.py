"""z of fused experts, as transformers 5 keeps them: the weights of all experts of a layer in one tensor."""

from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

UPS = ("gate_up_proj", "up_proj")


@dataclass(frozen=True)
class Experts:
    """Whose neuron is which: `count` experts of `size` neurons each, then `shared` neurons of a shared expert.

    seeing: the count and size of experts that run on a picture's tokens, where others do not (ERNIE 4.5 VL); they come
    before the shared one.
    """

    count: int
    size: int
    shared: int = 0
    seeing: tuple[int, int] = (0, 1)

    @property
    def neurons(self) -> int:
        """How many there are in all."""
        return self.count * self.size + self.seeing[0] * self.seeing[1] + self.shared

    def of(self, neuron: int) -> int:
        """The expert of a neuron; the shared one is the last number."""
        count, size = self.seeing
        behind = neuron - self.count * self.size
        return neuron // self.size if behind < 0 else self.count + min(behind // size, count)

    def neurons_of(self, expert: int) -> range:
        """The neurons of an expert."""
        if expert < self.count:
            return range(expert * self.size, (expert + 1) * self.size)
        count, size = self.seeing
        start = self.count * self.size + (expert - self.count) * size
        return range(start, start + (size if expert < self.count + count else self.shared))


def z_of_chosen(
    experts: Any, hidden: Float[Tensor, "positions width"], chosen: Tensor, weights: Tensor
) -> Float[Tensor, "positions neurons"]:
    """w_e z_e of all experts from what the router chose, [positions, k] each: transformers' fused experts."""
    name = name_of_up(experts)
    assert name is not None
    up, bias = getattr(experts, name), getattr(experts, f"{name}_bias", None)
    activation = experts.act_fn if name == "up_proj" else getattr(experts, "_apply_gate", partial(_gated, experts))
    places, values = [], []
    for expert in range(len(up)):
        rows, place = torch.where(chosen == expert)
        inner = hidden[rows] @ (up[expert] if getattr(experts, "is_transposed", False) else up[expert].T)
        inner = activation(inner if bias is None else inner + bias[expert])
        places.append(rows * len(up) + expert)
        values.append((inner * weights[rows, place, None]).to(hidden.dtype))
    z = hidden.new_zeros(len(hidden) * len(up), values[0].shape[-1])
    return z.index_put((torch.cat(places),), torch.cat(values)).unflatten(0, (-1, len(up))).flatten(1)


def _gated(experts: Any, inner: Tensor) -> Tensor:
    gate, up = inner.chunk(2, -1)
    return experts.act_fn(gate) * up


def name_of_up(experts: Any) -> str | None:
    """What fused experts call the weights that their input meets; None in those of another form."""
    return next((name for name in UPS if isinstance(getattr(experts, name, None), Tensor)), None)


def z_of_all(experts: Any, hidden: Float[Tensor, "experts_and_positions width"]) -> Float[Tensor, "positions neurons"]:
    """z of experts whose input the router has weighed, every expert at every position: Llama 4."""
    count = len(experts.gate_up_proj)
    gate, up = torch.bmm(hidden.unflatten(0, (count, -1)), experts.gate_up_proj).chunk(2, -1)
    return (up * experts.act_fn(gate)).transpose(0, 1).flatten(1)


def takes_all(experts: nn.Module) -> bool:
    """Whether every expert is run on its own weighted input."""
    return len(signature(experts.forward).parameters) == 1
