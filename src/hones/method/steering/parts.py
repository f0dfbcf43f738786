"""Ways to steer that learn something else than scales: what a user would try first, on the sites that HONES names.

    name          what is learned                                            where
    lora-1        B A beside down_proj, of rank 1                            every layer with a neuron of the set
    lora-8        the same of rank 8: a ceiling, with many more parameters   the same layers
    head-offset   o + b, as in LoFiT                                         the critical heads
    head-scale    (1 + m) o + b, as in JoLA, its gates open there            the critical heads

They are trained as the scales are: objective, items, order, steps, early stopping (`hones.method.steering.train`); the
learning rate of low ranks is a tenth. Formulas and sources: `hones.models.adapters`. `--methods all` leaves them out.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import astuple
from typing import Any, ClassVar

from hones.errors import HonesError
from hones.method.steering.controls import CONTROLS, Learned, Steering, SteeringContext
from hones.method.steering.trainings import Trained, TrainingJob
from hones.models.adapters import LowRank, OfHeads, Part


class LearnedPart(Learned):
    """An adapter."""

    shared: ClassVar[bool] = False

    @abstractmethod
    def part(self, context: SteeringContext) -> Part:
        """What is trained."""

    def depends(self, context: SteeringContext) -> dict[str, Any]:
        """The trainer's settings, and the sites."""
        return {**super().depends(context), "part": [*astuple(self.part(context))]}

    def job(self, context: SteeringContext, take: Callable[[Trained], object]) -> TrainingJob:
        """The training on the dev items."""
        part = self.part(context)
        return TrainingJob(context.task, context.examples, (), context.settings, context.checkpoint, take, part=part)


class LowRankFfn(LearnedPart):
    """A low rank beside down_proj of the layers of the set."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.name = f"lora-{rank}"
        self.summary = f"LoRA of rank {rank} on down_proj of the layers that hold the HONES set"

    def part(self, context: SteeringContext) -> LowRank:
        """Its layers are those of the set."""
        anatomy = context.vlm.anatomy
        layers = tuple(sorted({layer for layer, _ in context.neurons}))
        return LowRank(layers, self.rank, anatomy.neurons, anatomy.width)


class CriticalHeads(LearnedPart):
    """Offsets of the critical heads' outputs, and where `scaled` a factor for each element."""

    needs_heads: ClassVar[bool] = True

    def __init__(self, name: str, summary: str, *, scaled: bool) -> None:
        self.name = name
        self.summary = summary
        self.scaled = scaled

    def check(self, context: SteeringContext) -> None:
        """There are critical heads, and the model has them."""
        super().check(context)
        if not context.heads:
            raise HonesError(
                f"{self.name} without critical heads",
                expected=f"those of {context.task.name}",
                do=f"run `hones heads --task {context.task.name}` with the same --out first",
            )
        anatomy = context.vlm.anatomy
        for site in context.heads:
            anatomy.check_head(*site)
        widths = {anatomy.head_dim_of(layer) for layer, _ in context.heads}
        if len(widths) > 1:
            raise HonesError(
                f"{self.name} of critical heads of widths {' and '.join(map(str, sorted(widths)))}",
                expected="one width, as most models have",
                do="steer neurons",
            )

    def part(self, context: SteeringContext) -> OfHeads:
        """Its heads are the critical ones."""
        heads = tuple(sorted(context.heads))
        return OfHeads(heads, context.vlm.anatomy.head_dim_of(heads[0][0]), self.scaled)


PARTS: dict[str, Steering] = {
    way.name: way
    for way in (
        LowRankFfn(1),
        LowRankFfn(8),
        CriticalHeads("head-offset", "an offset of each critical head's output, as in LoFiT", scaled=False),
        CriticalHeads("head-scale", "factors and an offset of each critical head's output, as in JoLA", scaled=True),
    )
}
WAYS: dict[str, Steering] = CONTROLS | PARTS
"""Every way by name, but those on the sets of compared methods (`hones.runs.ways`)."""
