"""Ways to steer: HONES, and its controls with the same budget.

    z[l,i](s) <- (1 + s[l,i]) z[l,i](s)

    name         neurons                                                  scales
    base         none                                                     the model itself
    hones        the selected set                                         learned
    no-kl        the set                                                  learned with beta = 0
    rand-neuron  random ones, as many in every layer as the set has       learned
    fixed-amp    the set                                                  s = 1: z is doubled
    grid-search  the set                                                  s = f - 1, one f of GRID for all of them
    ia3          all                                                      learned: (IA)3 on down_proj

`set:NAME`, what the comparison method NAME selects, is `hones.runs.ways`; what learns something else than scales of
neurons, `hones.method.steering.parts`.

Learned scales all come from `learn_scales` with the same settings, so only the set differs. Random neurons are drawn by
the seed of the training, from those outside the set (`layer_matched_random`); only a layer with too few others gives
some of the set too. The factor f is the one of best dev metric; among equals the one nearest to 1, then the smaller.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hones.errors import TaskStops
from hones.method.masking import layer_matched_random
from hones.method.steering.settings import HONES, Scales, SteeringSettings, training_record
from hones.method.steering.trainings import Trained, TrainingJob, learn
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.sweep.run import SweepSettings
from hones.sweep.run import sweep as run_sweep
from hones.tasks.base import Example, Task

GRID = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
DOUBLED = 2.0


@dataclass(frozen=True)
class SteeringContext:
    """What a way to steer may use.

    examples: the dev items. neurons: the HONES set. settings: of the trainer, with the seed. methods: the folder of
    the compared methods, RUN/T/methods; None where there is none. checkpoint: where a training keeps its state. heads:
    the critical ones, for ways that need them.
    """

    vlm: VLM
    task: Task
    examples: Sequence[Example]
    neurons: Sequence[Site]
    settings: SteeringSettings
    sweep: SweepSettings = field(default_factory=SweepSettings)
    methods: Path | None = None
    checkpoint: Path | None = None
    heads: Sequence[Site] = ()


@dataclass(frozen=True)
class MadeScales:
    """Scales, and what is worth recording of how they came about."""

    scales: Scales
    details: dict[str, Any] = field(default_factory=dict)


class Steering(ABC):
    """One way to come to scales. learned: they are trained, so they differ by seed. needs_heads: the critical ones.
    shared: others can have them as a file, for they are scales of neurons.
    """

    name: str
    summary: str
    learned: ClassVar[bool] = False
    needs_heads: ClassVar[bool] = False
    shared: ClassVar[bool] = True

    def check(self, context: SteeringContext) -> None:
        """Raises HonesError where something is missing; called before anything is computed."""
        if not context.neurons or not context.examples:
            missing = f"{len(context.neurons)} neurons and {len(context.examples)} dev items to steer"
            raise TaskStops(missing, expected="at least one each")

    def depends(self, context: SteeringContext) -> dict[str, Any]:
        """What the scales depend on beside model, dev items and HONES set."""
        return {}

    @abstractmethod
    def make(self, context: SteeringContext) -> MadeScales:
        """The scales."""


class Base(Steering):
    """The model itself: no scales."""

    name = "base"
    summary = "the model itself"

    def make(self, context: SteeringContext) -> MadeScales:
        """Nothing."""
        return MadeScales(Scales({}))


class Learned(Steering):
    """Scales learned on a set of neurons: by default the HONES set, with the given settings."""

    learned: ClassVar[bool] = True
    name = HONES
    summary = "learned on the HONES set"

    def neurons(self, context: SteeringContext) -> list[Site]:
        """The neurons that are scaled."""
        return [*context.neurons]

    def settings(self, context: SteeringContext) -> SteeringSettings:
        """The trainer's settings."""
        return context.settings

    def depends(self, context: SteeringContext) -> dict[str, Any]:
        """The trainer's settings."""
        return {"settings": self.settings(context).model_dump(exclude_none=True)}

    def job(self, context: SteeringContext, take: Callable[[Trained], object]) -> TrainingJob:
        """The training on the dev items."""
        neurons = self.neurons(context)
        settings = self.settings(context)
        return TrainingJob(context.task, context.examples, neurons, settings, context.checkpoint, take)

    def make(self, context: SteeringContext) -> MadeScales:
        """Learn them on the dev items."""
        learned: list[Trained] = []
        job = self.job(context, learned.append)
        learn(context.vlm, [job], context.sweep.workers)
        job.check()
        scales = learned[0].scales
        return MadeScales(scales, training_record(scales))


class NoKl(Learned):
    """HONES without the divergence from the original model."""

    name = "no-kl"
    summary = "learned on the HONES set without the KL term"

    def settings(self, context: SteeringContext) -> SteeringSettings:
        """beta is 0."""
        return context.settings.model_copy(update={"beta": 0.0})


class RandomNeurons(Learned):
    """As many random neurons in every layer as the set has there, drawn by the settings' seed."""

    name = "rand-neuron"
    summary = "learned on random neurons, as many per layer"

    def neurons(self, context: SteeringContext) -> list[Site]:
        """One draw."""
        anatomy = context.vlm.anatomy
        return layer_matched_random(context.neurons, anatomy.neurons, context.settings.seed, alike=anatomy.alike)


class AllNeurons(Learned):
    """(IA)3 on down_proj."""

    name = "ia3"
    summary = "learned on all neurons: (IA)3 on down_proj"

    def neurons(self, context: SteeringContext) -> list[Site]:
        """Every neuron of every layer."""
        layers = context.vlm.anatomy.layers
        return [(number, neuron) for number, layer in enumerate(layers) for neuron in range(layer.neurons)]


class FixedAmplification(Steering):
    """Every neuron of the set doubled."""

    name = "fixed-amp"
    summary = f"the HONES set times {DOUBLED:g}"

    def make(self, context: SteeringContext) -> MadeScales:
        """s = 1."""
        return MadeScales(one_factor(context.neurons, DOUBLED))


class GridSearch(Steering):
    """The whole set times one factor, the best on the dev items."""

    name = "grid-search"
    summary = f"the HONES set times one factor of {', '.join(f'{f:g}' for f in GRID)}, chosen on dev"

    def depends(self, context: SteeringContext) -> dict[str, Any]:
        """The factors, and how answers are generated."""
        return {"grid": [*GRID], "max_new_tokens": context.sweep.max_new_tokens, "engine": context.sweep.engine}

    def make(self, context: SteeringContext) -> MadeScales:
        """One sweep with all factors; factor 1 is the model itself."""
        scales = [one_factor(context.neurons, factor) for factor in GRID]
        edits = [BASELINE if f == 1 else Intervention(scales=s.values) for f, s in zip(GRID, scales, strict=True)]
        statistics = run_sweep(
            context.vlm, context.task, context.examples, edits, context.sweep, f"{context.task.name}: grid"
        )
        metrics = [float(x) for x in context.task.score(statistics.sum(1, dtype=np.float64))]
        # the best metric; among equals the factor nearest to 1, then the smaller
        best = min(range(len(GRID)), key=lambda i: (-metrics[i], abs(GRID[i] - 1), GRID[i]))
        return MadeScales(scales[best], {"dev_metric": {f"{f:g}": x for f, x in zip(GRID, metrics, strict=True)}})


def one_factor(neurons: Sequence[Site], factor: float) -> Scales:
    """Every neuron times `factor`: s = factor - 1."""
    return Scales(dict.fromkeys(sorted(set(neurons)), factor - 1))


CONTROLS: dict[str, Steering] = {
    way.name: way
    for way in (Learned(), NoKl(), RandomNeurons(), FixedAmplification(), GridSearch(), AllNeurons(), Base())
}
BASE = Base.name
