"""What a training changes: one vector of parameters per layer, and what the model is with them.

    ScaledNeurons     z[l,i](s) <- (1 + s[l,i]) z[l,i](s)              the paper's
    TrainedPart       an adapter, see `hones.models.adapters`          what it is compared with

Objective, optimizer, checkpoint and early stopping know the vectors alone. Those that scale what they edit, s and the
factors of heads, stay within +-max_scale.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.method.steering.settings import Scales
from hones.models.adapters import Adapter, LowRank, Part, adapting
from hones.models.interventions import scaling
from hones.models.sites import Site
from hones.models.vlm import VLM

Vectors = Mapping[int, Tensor]
RATE_OF_LOW_RANK = 0.1
"""B moves what A has seen by both their sizes: at the rate of scales its first steps overshoot (bench/steering.py)."""


class Trainable(ABC):
    """pace: the learning rate, as a share of that of scales."""

    pace: float = 1.0

    @property
    @abstractmethod
    def identity(self) -> Any:
        """What tells it from others, the same in every process."""

    @property
    @abstractmethod
    def layers(self) -> list[int]:
        """Those with a vector."""

    @abstractmethod
    def start(self) -> dict[int, Tensor]:
        """The vectors before training, on the model's device: the model itself."""

    @abstractmethod
    def on(self, vectors: Vectors) -> AbstractContextManager[None]:
        """The model with the vectors of some layers; gradients flow to them."""

    @abstractmethod
    def bounded(self, layer: int, vector: Tensor) -> Tensor:
        """Those parameters of a layer that are scales, a view."""

    @abstractmethod
    def learned(self, vectors: Vectors) -> Scales:
        """What was learned, as data."""

    def written(self, layer: int) -> Int[Tensor, " k"] | None:
        """The neurons that are scaled, where that is all that changes in a layer; else None."""
        return None


class ScaledNeurons(Trainable):
    """One scale for each of some neurons. indices: by layer, [k_l] each."""

    def __init__(self, vlm: VLM, neurons: Sequence[Site]) -> None:
        by_layer: dict[int, list[int]] = defaultdict(list)
        for layer, neuron in sorted(set(neurons)):
            vlm.anatomy.check_neuron(layer, neuron)
            by_layer[layer].append(neuron)
        self.vlm = vlm
        self.neurons = sorted(set(neurons))
        self.indices = {layer: torch.tensor(chosen, device=vlm.device) for layer, chosen in by_layer.items()}

    @property
    def identity(self) -> list[Site]:
        return self.neurons

    @property
    def layers(self) -> list[int]:
        return [*self.indices]

    def start(self) -> dict[int, Float[Tensor, " k"]]:
        return {layer: torch.zeros(len(own), device=self.vlm.device) for layer, own in self.indices.items()}

    def on(self, vectors: Vectors) -> AbstractContextManager[None]:
        return scaling(self.vlm.anatomy, {layer: self.indices[layer] for layer in vectors}, vectors)

    def bounded(self, layer: int, vector: Tensor) -> Tensor:
        return vector

    def learned(self, vectors: Vectors) -> Scales:
        return Scales(
            {
                (layer, int(i)): float(s)
                for layer, own in self.indices.items()
                for i, s in zip(own.tolist(), vectors[layer].detach().tolist(), strict=True)
            }
        )

    def written(self, layer: int) -> Int[Tensor, " k"]:
        return self.indices[layer]


class TrainedPart(Trainable):
    """An adapter's part. seed: of its start.

    Raises:
        HonesError: the model has no such sites.
    """

    def __init__(self, vlm: VLM, part: Part, seed: int) -> None:
        part.check(vlm.anatomy)
        self.vlm = vlm
        self.part = part
        self.seed = seed
        self.pace = RATE_OF_LOW_RANK if isinstance(part, LowRank) else 1.0

    @property
    def identity(self) -> Part:
        return self.part

    @property
    def layers(self) -> list[int]:
        return [*self.part.sizes]

    def start(self) -> dict[int, Tensor]:
        return {layer: vector.to(self.vlm.device) for layer, vector in self.part.start(self.seed).items()}

    def on(self, vectors: Vectors) -> AbstractContextManager[None]:
        return adapting(self.vlm.anatomy, self.part, vectors)

    def bounded(self, layer: int, vector: Tensor) -> Tensor:
        named = self.part.tensors(layer, vector)
        return named["scale"] if "scale" in named else vector[:0]

    def learned(self, vectors: Vectors) -> Scales:
        # of their own, as the trainer's go on
        values = {layer: vectors[layer].detach().cpu().numpy().copy() for layer in self.layers}
        return Scales({}, adapter=Adapter(self.part, values))
