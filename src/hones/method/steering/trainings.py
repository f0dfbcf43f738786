"""Training jobs as shards, a worker each: sets of neurons, settings and seeds on the dev items of some tasks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hones.errors import TaskStops
from hones.method.steering.settings import Scales, SteeringSettings
from hones.method.steering.train import learn_part, learn_scales
from hones.models.adapters import Part
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.progress import progress_bar
from hones.sweep.shards import Advance, ShardedWork, Workers, portable
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class Trained:
    """What a training learned, and how long it took."""

    scales: Scales
    seconds: float


@dataclass
class TrainingJob:
    """What `learn_scales` is given beside the model, or `learn_part` where there is a part.

    take: is told what was learned, as soon as it is. stopped: why its task cannot go on, if so.
    """

    task: Task
    examples: Sequence[Example]
    neurons: Sequence[Site]
    settings: SteeringSettings
    checkpoint: Path | None = None
    take: Callable[[Trained], object] | None = None
    stopped: str | None = None
    part: Part | None = None

    def check(self) -> None:
        """Raises TaskStops if it has stopped its task."""
        if self.stopped is not None:
            raise TaskStops(self.stopped)


@dataclass(frozen=True)
class TrainingWork(ShardedWork[int, Trained | str]):
    """A shard is the number of a job. Its checkpoint is written by the worker, where that has the run folder. The
    result is a line where the training stops its task, so that those of other tasks go on.
    """

    jobs: Sequence[TrainingJob]

    @property
    def tasks(self) -> list[Task]:
        return [job.task for job in self.jobs]

    def begin(self, vlm: VLM) -> Callable[[int, Advance], Trained | str]:
        """Nothing is shared by trainings."""

        def compute(shard: int, _: Advance) -> Trained | str:
            started = time.monotonic()
            job = self.jobs[shard]
            checkpoint = job.checkpoint
            if checkpoint is not None and not checkpoint.parent.parent.is_dir():
                checkpoint = None
            try:
                given = (vlm, job.task, job.examples)
                if job.part is not None:
                    scales = learn_part(*given, job.part, job.settings, checkpoint=checkpoint)
                else:
                    scales = learn_scales(*given, job.neurons, job.settings, checkpoint=checkpoint)
            except TaskStops as error:
                return str(error)
            return Trained(scales, time.monotonic() - started)

        return compute

    def name(self, shard: int) -> str:
        """Its task, its size and its seed."""
        job = self.jobs[shard]
        what = f"{len(job.neurons)} neurons" if job.part is None else f"a {type(job.part).__name__}"
        return f"the training of {what} on {job.task.name}, seed {job.settings.seed}"


def learn(vlm: VLM, jobs: Sequence[TrainingJob], workers: Workers) -> None:
    """Train them, side by side where there are workers; each job is told as soon as it has ended."""
    if not jobs:
        return
    # jobs of one task share their list of examples, so that it is pickled once for all of them
    examples = {id(job.examples): portable(job.examples) for job in jobs}
    sent = []
    for job in jobs:
        checkpoint = None if job.checkpoint is None else job.checkpoint.absolute()
        sent.append(replace(job, examples=examples[id(job.examples)], checkpoint=checkpoint, take=None))
    compute = workers.begin(vlm, TrainingWork(sent))
    names = ", ".join(dict.fromkeys(job.task.name for job in jobs))
    with progress_bar(f"{names}: trainings", total=len(jobs), unit=" trainings") as bar:
        for number, outcome in compute(range(len(jobs)), bar):
            job = jobs[number]
            if isinstance(outcome, str):
                job.stopped = outcome
            elif job.take is not None:
                job.take(outcome)
            bar.update()
