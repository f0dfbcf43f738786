"""Trainings as shards, a worker each: sets of neurons, settings and seeds on the dev items of one or several tasks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from hones.errors import TaskStops
from hones.method.steering.settings import Scales, SteeringSettings
from hones.method.steering.train import learn_scales
from hones.models.anatomy import Site
from hones.models.vlm import VLM
from hones.progress import progress_bar
from hones.sweep.shards import Advance, ShardedWork, Workers, portable
from hones.tasks.base import Example, Task

Found = TypeVar("Found")


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


@dataclass
class Lesson:
    """A training that a task lacks. take: is told what it learned. stopped: why its task cannot go on, if so."""

    task: Task
    examples: Sequence[Example]
    training: Training
    take: Callable[[Trained], object]
    stopped: str | None = None

    def check(self) -> None:
        """Raises TaskStops if it has stopped the task."""
        if self.stopped is not None:
            raise TaskStops(self.stopped)


@dataclass(frozen=True)
class Begun(Generic[Found]):
    """A task's steering. lessons: the trainings that it lacks, for `learn`. rest: what comes after them."""

    lessons: Sequence[Lesson]
    rest: Callable[[], Found]

    def end(self) -> Found:
        """What the steering finds, when its lessons are learned.

        Raises:
            TaskStops: one of them could not be.
        """
        for lesson in self.lessons:
            lesson.check()
        return self.rest()


@dataclass(frozen=True)
class TrainingWork(ShardedWork[tuple[int, Training], Trained | str]):
    """A shard is a training and the number of its job. Its checkpoint is written by the worker, where that has the run
    folder. The result is a line where the training stops its task, so that those of other tasks go on.
    """

    jobs: Sequence[tuple[Task, Sequence[Example]]]

    def begin(self, vlm: VLM) -> Callable[[tuple[int, Training], Advance], Trained | str]:
        """Nothing is shared by trainings."""

        def compute(shard: tuple[int, Training], _: Advance) -> Trained | str:
            started, (task, examples), training = time.monotonic(), self.jobs[shard[0]], shard[1]
            checkpoint = training.checkpoint
            if checkpoint is not None and not checkpoint.parent.parent.is_dir():
                checkpoint = None
            try:
                scales = learn_scales(vlm, task, examples, training.neurons, training.settings, checkpoint=checkpoint)
            except TaskStops as error:
                return str(error)
            return Trained(scales, time.monotonic() - started)

        return compute

    def name(self, shard: tuple[int, Training]) -> str:
        """Its task, its size and its seed."""
        job, training = shard
        count, seed = len(training.neurons), training.settings.seed
        return f"the training of {count} neurons on {self.jobs[job][0].name}, seed {seed}"


def learn(vlm: VLM, lessons: Sequence[Lesson], workers: Workers) -> None:
    """Learn them, side by side where there are workers; each is told as soon as it has ended."""
    if not lessons:
        return
    keys = [(id(lesson.task), id(lesson.examples)) for lesson in lessons]
    jobs = {key: (lesson.task, portable(lesson.examples)) for key, lesson in zip(keys, lessons, strict=True)}
    number_of = {key: number for number, key in enumerate(jobs)}
    shards = [(number_of[key], _absolute(lesson.training)) for key, lesson in zip(keys, lessons, strict=True)]
    compute = workers.begin(vlm, TrainingWork([*jobs.values()]))
    names = ", ".join(dict.fromkeys(lesson.task.name for lesson in lessons))
    with progress_bar(f"{names}: trainings", total=len(shards), unit=" trainings") as bar:
        for number, found in compute(shards, bar):
            if isinstance(found, str):
                lessons[number].stopped = found
            else:
                lessons[number].take(found)
            bar.update()


def _absolute(training: Training) -> Training:
    checkpoint = training.checkpoint
    return training if checkpoint is None else replace(training, checkpoint=checkpoint.absolute())


def train(vlm: VLM, task: Task, examples: Sequence[Example], training: Training, workers: Workers) -> Scales:
    """What one training learns."""
    found: list[Trained] = []
    lesson = Lesson(task, examples, training, found.append)
    learn(vlm, [lesson], workers)
    lesson.check()
    return found[0].scales
