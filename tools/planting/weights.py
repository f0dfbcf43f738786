"""What training changes: every matrix of the language model by rank r, and the planted neurons' own weights freely.

    W = W0 + B A,   rows (gate_proj, up_proj), columns (down_proj) of planted neurons and decoys replaced by their own

Vision part, embeddings, norms and lm_head stay as they are, so the difference to the built-in model is small. The
original matrix stays in the model as the parametrization's frozen original.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from hones.models.planted import SITES

MATRICES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
FFN = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
SPREAD = 0.25  # of A at the start; with Adam's steps it sets how fast B A grows


@dataclass(frozen=True)
class Own:
    """Neurons of one layer with weights of their own.

    reads, writes: whether each learns its rows of gate_proj and up_proj, and its column of down_proj; low, high:
    between what the column's norm is held.
    """

    sites: list[int]
    reads: list[bool]
    writes: list[bool]
    low: list[float]
    high: list[float]

    def add(
        self, site: int, *, reads: bool = True, writes: bool = True, low: float = 0.0, high: float = math.inf
    ) -> None:
        for values, value in zip(vars(self).values(), (site, reads, writes, low, high), strict=True):
            values.append(value)


class Difference(nn.Module):
    """One matrix [out, in]: `up` [out, r] @ `down` [r, in] is added, `own` [k, .] replaces rows or columns `sites`."""

    def __init__(self, weight: Tensor, rank: int, own: Own, path: str, generator: torch.Generator) -> None:
        super().__init__()
        out, inner = weight.shape
        self.dim = int(path == "mlp.down_proj")
        sites = torch.tensor(own.sites, dtype=torch.long)
        self.down = nn.Parameter(SPREAD * torch.randn(rank, inner, generator=generator))
        self.up = nn.Parameter(torch.zeros(out, rank))
        self.register_buffer("sites", sites)
        slices = weight.detach().index_select(self.dim, sites)
        self.own = nn.Parameter((slices.T if self.dim else slices).clone())
        learns = torch.tensor(own.writes if self.dim else own.reads, dtype=torch.float32)
        self.own.register_hook(lambda gradient: gradient * learns[:, None])
        self.norms = (torch.tensor(own.low), torch.tensor(own.high)) if self.dim else None

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            changed = weight + self.up @ self.down
            own = self.own.T if self.dim else self.own
            return changed.index_copy(self.dim, self.get_buffer("sites"), own)

    @torch.no_grad()
    def hold_norms(self) -> None:
        """Bring the columns' norms back to where they are held."""
        if self.norms is not None:
            norms = self.own.norm(dim=1)
            self.own *= (norms.clamp(*self.norms) / norms.clamp(min=1e-12))[:, None]

    @torch.no_grad()
    def round(self) -> None:
        """To float16 numbers."""
        for parameter in (self.up, self.down, self.own):
            parameter.copy_(parameter.half())


def matrices(language: Any) -> Iterator[tuple[int, str, nn.Linear]]:
    """(layer, path, linear) of all matrices that training changes."""
    for number, layer in enumerate(language.layers):
        for path in (*MATRICES, *FFN):
            yield number, path, layer.get_submodule(path)


def add_differences(language: Any, rank: int, own: dict[int, Own], seed: int) -> nn.ModuleDict:
    """Let the language model's matrices change as above. Returns the parametrizations by "layer/path"."""
    generator = torch.Generator().manual_seed(seed)
    found = nn.ModuleDict()
    for number, path, linear in matrices(language):
        of_layer = own[number] if path in FFN else Own([], [], [], [], [])
        difference = Difference(linear.weight, rank, of_layer, path, generator)
        parametrize.register_parametrization(linear, "weight", difference)
        linear.parametrizations.weight.original.requires_grad_(False)  # pyright: ignore
        found[f"{number}/{path}".replace(".", ":")] = difference
    return found


def export_difference(differences: nn.ModuleDict, file: Path) -> None:
    """Write the rounded difference as `hones.models.planted` reads it."""
    tensors: dict[str, Tensor] = {}
    for key, difference in differences.items():
        assert isinstance(difference, Difference)
        layer, _, path = key.replace(":", ".").partition("/")
        tensors[f"{layer}.{path}.up"] = difference.up.detach().half()
        tensors[f"{layer}.{path}.down"] = difference.down.detach().half()
        if path in FFN:
            tensors[f"{layer}.{path}.own"] = difference.own.detach().half()
            tensors[f"{SITES}.{layer}"] = difference.get_buffer("sites").short()
    part = file.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, part)
    part.replace(file)
