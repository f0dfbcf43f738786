"""Low-rank updates of the language model's matrices: W' = W + up @ down, W frozen."""

import re
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MATRICES = r"(q|k|v|o|gate|up|down)_proj"


class Updated(nn.Module):
    """A linear map without bias whose matrix [out, in] is kept, and up [out, r] @ down [r, in] added to it."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        assert linear.bias is None
        self.weight = linear.weight
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return F.linear(x, self.weight) + F.linear(F.linear(x, self.down), self.up)


def add_updates(language: nn.Module, rank: int) -> None:
    """Put an update beside every matrix of every layer; it adds nothing yet."""
    for name, linear in [*language.named_modules()]:
        if not (isinstance(linear, nn.Linear) and re.search(rf"layers\..*\.{MATRICES}$", name)):
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(language.get_submodule(parent), leaf, Updated(linear, rank))


def updates(language: nn.Module) -> Iterator[tuple[str, Updated]]:
    """(path below the language model, its update) of every matrix."""
    for name, module in language.named_modules():
        if isinstance(module, Updated):
            yield name, module
