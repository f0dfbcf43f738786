"""Small learned parts beside frozen weights, other than scales of neurons: what steering is compared with.

    low rank      down_proj(z) + B A z                 A [r, I], B [d, r]                  LoRA, arXiv:2106.09685
    head offset   o[l,h](s) + b[l,h]                   b [d_h]                             as in LoFiT, arXiv:2406.01563
    head scale    (1 + m[l,h]) o[l,h](s) + b[l,h]      m, b [d_h], element by element      as in JoLA, arXiv:2502.01179

z[l,i](s) is the input of down_proj, o[l,h](s) head h's slice of the input of o_proj; every position is edited. B, b and
m start at 0, where the model is the unedited one bit for bit; A starts uniformly within 1 / sqrt(I). The factor that
LoRA multiplies B A by is 1 (alpha = r). LoFiT and JoLA also learn which heads to edit; here they are given, so JoLA's
gates are open on these and closed elsewhere.

The parameters of a layer are one flat float32 vector: A then B; or m of all heads, if any, then b of all heads.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hones.errors import HonesError
from hones.models.anatomy import Anatomy
from hones.models.capture import DOWN_PROJ, HEADS, Place, Z, capture
from hones.models.sites import Site

Vector = Float[Tensor, " parameters"]
Rows = Callable[[int], Bool[Tensor, " rows"]]
"""Which rows of what is at a layer's place are edited."""


@dataclass(frozen=True)
class Part(ABC):
    """Where parameters sit and what they do."""

    place: ClassVar[Place]
    """What is edited: what down_proj gives, or what enters o_proj."""

    @property
    @abstractmethod
    def sizes(self) -> dict[int, int]:
        """How many parameters every edited layer has."""

    @abstractmethod
    def check(self, anatomy: Anatomy) -> None:
        """Raises HonesError unless the model has these sites, in these shapes."""

    @abstractmethod
    def start(self, seed: int) -> dict[int, Vector]:
        """The parameters before training, with which the model is the unedited one."""

    @abstractmethod
    def edited(
        self, layer: int, x: Float[Tensor, "*positions width"], z: Float[Tensor, "*positions _"] | None, vector: Vector
    ) -> Float[Tensor, "*positions width"]:
        """What x at the place becomes; z: what entered down_proj, where that is the place."""

    @abstractmethod
    def tensors(self, layer: int, vector: Vector) -> dict[str, Tensor]:
        """The parameters of a layer by name, in their shapes: views of the vector."""


@dataclass(frozen=True)
class LowRank(Part):
    """B A beside the down_proj of some layers, [d, I] of rank r."""

    place: ClassVar[Place] = DOWN_PROJ

    layers: tuple[int, ...]
    rank: int
    neurons: int
    width: int

    @property
    def sizes(self) -> dict[int, int]:
        return dict.fromkeys(self.layers, self.rank * (self.neurons + self.width))

    def check(self, anatomy: Anatomy) -> None:
        for layer in self.layers:
            anatomy.check_neuron(layer, 0)
        if (self.neurons, self.width) != (anatomy.neurons, anatomy.width):
            raise HonesError(
                f"a low rank of {self.neurons} neurons and width {self.width}",
                expected=f"{anatomy.neurons} and {anatomy.width}, as the model has",
            )

    def start(self, seed: int) -> dict[int, Vector]:
        generator = torch.Generator().manual_seed(seed)
        bound = self.neurons**-0.5
        vectors = {}
        for layer, size in self.sizes.items():
            a = torch.empty(self.rank * self.neurons).uniform_(-bound, bound, generator=generator)
            vectors[layer] = torch.cat([a, torch.zeros(size - len(a))])
        return vectors

    def edited(
        self, layer: int, x: Float[Tensor, "*positions width"], z: Float[Tensor, "*positions _"] | None, vector: Vector
    ) -> Float[Tensor, "*positions width"]:
        assert z is not None
        named = self.tensors(layer, vector)
        wide = torch.promote_types(x.dtype, vector.dtype)
        added = z.to(vector.device, wide) @ named["lora_A"].to(wide).T @ named["lora_B"].to(wide).T
        return (x.to(wide) + added.to(x.device)).to(x.dtype)

    def tensors(self, layer: int, vector: Vector) -> dict[str, Tensor]:
        a, b = vector.split([self.rank * self.neurons, self.rank * self.width])
        return {"lora_A": a.view(self.rank, self.neurons), "lora_B": b.view(self.width, self.rank)}


@dataclass(frozen=True)
class OfHeads(Part):
    """Vectors of some heads, each of width d_h: an offset, and where `scaled` a factor for each element."""

    place: ClassVar[Place] = HEADS

    heads: tuple[Site, ...]
    head_dim: int
    scaled: bool

    @cached_property
    def of_layer(self) -> dict[int, list[int]]:
        """The heads of every edited layer, in order."""
        found: dict[int, list[int]] = {}
        for layer, head in sorted(set(self.heads)):
            found.setdefault(layer, []).append(head)
        return found

    @property
    def sizes(self) -> dict[int, int]:
        return {layer: (1 + self.scaled) * len(heads) * self.head_dim for layer, heads in self.of_layer.items()}

    def check(self, anatomy: Anatomy) -> None:
        for site in self.heads:
            anatomy.check_head(*site)
        for width in {anatomy.head_dim_of(layer) for layer in self.of_layer}:
            if self.head_dim != width:
                raise HonesError(f"offsets of heads of width {self.head_dim}", expected=f"{width}, as the model has")

    def start(self, seed: int) -> dict[int, Vector]:
        return {layer: torch.zeros(size) for layer, size in self.sizes.items()}

    def edited(
        self, layer: int, x: Float[Tensor, "*positions width"], z: Float[Tensor, "*positions _"] | None, vector: Vector
    ) -> Float[Tensor, "*positions width"]:
        named = self.tensors(layer, vector)
        by_head = x.unflatten(-1, (-1, self.head_dim))
        heads = torch.tensor(self.of_layer[layer], device=x.device)
        chosen = by_head[..., heads, :].to(torch.promote_types(x.dtype, vector.dtype))
        if self.scaled:
            chosen = chosen * (1 + named["scale"])
        return by_head.index_copy(-2, heads, (chosen + named["offset"]).to(x.dtype)).flatten(-2)

    def tensors(self, layer: int, vector: Vector) -> dict[str, Tensor]:
        of_heads = vector.view(-1, len(self.of_layer[layer]), self.head_dim)
        return {"scale": of_heads[0], "offset": of_heads[1]} if self.scaled else {"offset": of_heads[0]}


@dataclass(frozen=True, eq=False)
class Adapter:
    """A part with its parameters by layer. Equal only to itself, as the values are not compared."""

    part: Part
    values: Mapping[int, Float[np.ndarray, " parameters"]]

    @cached_property
    def vectors(self) -> dict[int, Vector]:
        """The parameters as tensors, on the CPU."""
        return {layer: torch.from_numpy(values) for layer, values in self.values.items()}

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return sum(self.part.sizes.values())

    def check(self, anatomy: Anatomy) -> None:
        """Raises HonesError unless it is one of this model's."""
        self.part.check(anatomy)

    def edits_heads(self, layer: int) -> bool:
        """Whether heads of this layer are edited."""
        return self.part.place is HEADS and layer in self.values

    def heads_edited(self, layer: int, x: Float[Tensor, "*positions heads"]) -> Float[Tensor, "*positions heads"]:
        """What the heads' outputs of a layer become."""
        return self.part.edited(layer, x, None, self.vectors[layer].to(x.device))


@contextmanager
def adapting(anatomy: Anatomy, part: Part, vectors: Mapping[int, Vector], rows: Rows | None = None) -> Iterator[None]:
    """A model with the part at the layers that have a vector; gradients flow to the vectors.

    Args:
        rows: which rows are edited; None: all.
    """
    entered: dict[int, Tensor] = {}

    def keep(layer: int, z: Tensor) -> None:
        entered[layer] = z

    def edit(layer: int, x: Tensor) -> Tensor:
        z = entered.pop(layer, None)
        vector = vectors[layer].to(x.device)
        if rows is None:
            return part.edited(layer, x, z, vector)
        mine = rows(layer).to(x.device)
        changed = x.clone()
        changed[mine] = part.edited(layer, x[mine], None if z is None else z[mine], vector)
        return changed

    reading = vectors if part.place is DOWN_PROJ else ()
    with capture(anatomy, Z, keep, reading), capture(anatomy, part.place, edit, vectors):
        yield
