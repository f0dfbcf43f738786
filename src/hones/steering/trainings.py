"""Trainings as shards: several sets of neurons, settings and seeds on the same dev items, one worker each."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hones.interventions import Site
from hones.models.vlm import VLM
from hones.progress import progress_bar
from hones.steering.settings import Scales, SteeringSettings
from hones.steering.train import learn_scales
from hones.sweep.shards import Advance, Work, Workers, portable
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class Training:
    """What `learn_scales` is given beside model, task and items."""

    neurons: Sequence[Site]
    settings: SteeringSettings
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Trained:
    """What came out, and how long it took."""

    scales: Scales
    seconds: float


@dataclass(frozen=True)
class TrainingWork(Work[Training, Trained]):
    """A shard is a training. Its checkpoint is written by the worker, where that has the run folder."""

    task: Task
    examples: Sequence[Example]

    def begin(self, vlm: VLM) -> Callable[[Training, Advance], Trained]:
        """Nothing is shared by trainings."""

        def compute(shard: Training, _: Advance) -> Trained:
            started, checkpoint = time.monotonic(), shard.checkpoint
            if checkpoint is not None and not checkpoint.parent.parent.is_dir():
                checkpoint = None
            scales = learn_scales(vlm, self.task, self.examples, shard.neurons, shard.settings, checkpoint=checkpoint)
            return Trained(scales, time.monotonic() - started)

        return compute

    def name(self, shard: Training) -> str:
        """Its task, its size and its seed."""
        return f"the training of {len(shard.neurons)} neurons on {self.task.name}, seed {shard.settings.seed}"


def train_all(
    vlm: VLM, task: Task, examples: Sequence[Example], trainings: Sequence[Training], workers: Workers
) -> Iterator[tuple[int, Trained]]:
    """(number of the training, what it learned), in the order in which they end."""
    if not trainings:
        return
    away = [replace(one, checkpoint=None if one.checkpoint is None else one.checkpoint.absolute()) for one in trainings]
    compute = workers.begin(vlm, TrainingWork(task, portable(examples)))
    with progress_bar(f"{task.name}: trainings", total=len(away), unit=" trainings") as bar:
        for number, trained in compute(away, bar):
            yield number, trained
            bar.update()


def train(vlm: VLM, task: Task, examples: Sequence[Example], training: Training, workers: Workers) -> Scales:
    """One of them."""
    ((_, trained),) = train_all(vlm, task, examples, [training], workers)
    return trained.scales
