"""Muon in float32: momentum, made orthogonal by Newton and Schulz's iteration (Jordan 2024).

torch's own iterates in bfloat16, which a CPU without bfloat16 arithmetic computes ten times slower.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices; steps are as large as AdamW's of the same rate (a root mean square of 0.2 of it)."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95, weight_decay: float = 0.02) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(state["momentum"], group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(parameter.shape) ** 0.5
                parameter.add_(orthogonal(ahead), alpha=-group["lr"] * size)


def orthogonal(x: Tensor) -> Tensor:
    """A matrix with the singular vectors of x and all singular values near 1; zero stays zero."""
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
