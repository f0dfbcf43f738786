"""One interface to both engines: groups of pictures, progress, journal.

A sweep answers every example of one or several tasks under every intervention and returns statistics [edits, items, k],
float32, from which every score, drop and interval follows. Examples of the same picture are answered together, in
groups of a few pictures ordered by length; a group is what the journal records, so a rerun goes on after the last one.
Groups are also the shards that workers take (`hones.sweep.shards`); a race cuts its looks into parts of a few pictures.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from hones.errors import HonesError
from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.progress import progress_bar
from hones.sweep.answers import Answered
from hones.sweep.engines import make_engine
from hones.sweep.journal import Journal
from hones.sweep.memory import MemoryPlan
from hones.sweep.racing import Race
from hones.sweep.resume import refuse_other_batches
from hones.sweep.running_sum import RunningSum
from hones.sweep.shards import Advance, ShardedWork, ThisProcess, Workers, in_order, named, portable
from hones.tasks.base import Answer, Example, Task

if TYPE_CHECKING:
    from hones.sweep.answer_log import AnswerLog

EngineName = Literal["replay", "naive"]
ENGINES: tuple[EngineName, ...] = ("replay", "naive")
MAX_NEW_TOKENS = 24

Member = tuple[Task, Example]
Job = tuple[Task, Sequence[Example]]
Statistics = Float[np.ndarray, "edits items k"]
SweepShard = tuple[Sequence[tuple[int, int]], Sequence[int]]
PART_OF_LOOK = 4
"""Pictures of a race's look that a worker takes at once."""


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep runs; only `max_new_tokens` is part of the definition of a result.

    batch_size: prompts (naive) or pictures (replay) at once; None: automatic.
    journal: opens the journal of the sweep, given the plan by which it is cut into groups.
    running_sum: opens the sum of a stage that adds shards (`hones.method.neurons`), given its shape and plan.
    answers: keeps what the model says under named arms (`hones.sweep.measure`).
    workers: who computes the groups; this process alone, or a `hones.sweep.ray.Pool`.
    """

    engine: EngineName = "replay"
    batch_size: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    journal: Callable[[Mapping[str, Any]], Journal] | None = None
    running_sum: Callable[[Sequence[int], Mapping[str, Any]], RunningSum] = RunningSum
    answers: "AnswerLog | None" = None
    workers: Workers = field(default_factory=ThisProcess)


@dataclass
class KeptAnswers:
    """What the model answers under some of a sweep's interventions, for people to read.

    edits: their numbers; in a race only those that never leave it. of: by (job, example), one answer per edit.
    """

    edits: Sequence[int]
    of: dict[tuple[int, int], Sequence[Answer]] = field(default_factory=dict)


def sweep(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    edits: Sequence[Intervention],
    settings: SweepSettings | None = None,
    progress: str = "sweep",
) -> Statistics:
    """Answer every example under every intervention.

    Args:
        edits: `Intervention()` is the unedited model.

    Returns:
        The task's statistics of each cell.

    Raises:
        HonesError: logits that are not finite, a model that lacks an edited site, too little memory.
    """
    return sweep_tasks(vlm, [(task, examples)], edits, settings, progress)[0]


def sweep_tasks(
    vlm: VLM,
    jobs: Sequence[Job],
    edits: Sequence[Intervention],
    settings: SweepSettings | None = None,
    progress: str = "sweep",
    race: Race | None = None,
    kept: KeptAnswers | None = None,
) -> list[Float[np.ndarray, "edits _ _"]]:
    """`sweep` for several tasks at once: what all prompts about a picture have in common is computed once.

    With a race (one task), interventions leave the sweep as it decides; cells that were not run are zero.

    Args:
        kept: is filled with the answers under the interventions that it names.
    """
    settings = settings or SweepSettings()
    results = [np.zeros((len(edits), len(e), len(t.statistic_names)), dtype=np.float32) for t, e in jobs]
    for edit in edits:
        edit.check(vlm.anatomy)
    if not any(examples for _, examples in jobs):
        return results
    plan = settings.workers.plan(vlm, _positions_per_picture(vlm, jobs), settings.batch_size)
    with settings.journal(plan.as_dict()) if settings.journal else nullcontext() as journal:
        if journal is not None:
            refuse_other_batches(journal.path, "sweep", journal.plan["pictures"], settings.batch_size)
        plan = plan if journal is None else MemoryPlan(**journal.plan)
        asked = [(task, portable(examples)) for task, examples in jobs]
        kept = kept or KeptAnswers(())
        work = SweepWork(asked, edits, settings.engine, settings.batch_size, settings.max_new_tokens, plan, kept.edits)
        cells = len(edits) * sum(len(examples) for _, examples in jobs)
        with progress_bar(progress, total=cells, unit=" cells") as bar:
            run = _SweepRun(vlm, work, settings.workers, journal, results, kept, bar)
            if race:
                run.race(race)
            else:
                run.groups()
    return results


@dataclass(frozen=True)
class SweepWork(ShardedWork[SweepShard, list[Answered]]):
    """A shard is some members, (job, example) each, and the numbers of the edits that still run.

    Its result has the statistics of all edits that ran and the answers of those that are kept.
    """

    jobs: Sequence[Job]
    edits: Sequence[Intervention]
    engine: EngineName
    batch_size: int | None
    max_new_tokens: int
    plan: MemoryPlan
    kept: Sequence[int] = ()

    @property
    def tasks(self) -> list[Task]:
        return [task for task, _ in self.jobs]

    def begin(self, vlm: VLM) -> Callable[[SweepShard, Advance], list[Answered]]:
        """An engine, proven on the first example of every job."""
        first = [examples[0] for _, examples in self.jobs if examples]
        engine = make_engine(vlm, self.engine, self.max_new_tokens, self.batch_size, self.plan, first, self.edits)

        def compute(shard: SweepShard, advance: Advance) -> list[Answered]:
            members, running = shard
            asked = [(self.jobs[j][0], self.jobs[j][1][i]) for j, i in members]
            of_members = engine.answer(asked, [self.edits[e] for e in running], advance)
            rows = [running.index(e) for e in self.kept]
            return [Answered([x.answers[row] for row in rows], x.statistics) for x in of_members]

        return compute

    def name(self, shard: SweepShard) -> str:
        """Its pictures."""
        return named([self.jobs[j][1][i] for j, i in shard[0]])


@dataclass
class _SweepRun:
    """A sweep under way: results are filled from the journal where it has a group, the others as they are computed."""

    vlm: VLM
    work: SweepWork
    workers: Workers
    journal: Journal | None
    results: Sequence[np.ndarray]
    kept: KeptAnswers
    bar: tqdm
    finished: int = 0

    def __post_init__(self) -> None:
        self.compute = self.workers.begin(self.vlm, self.work)

    def groups(self) -> None:
        """All groups, in any order."""
        jobs = self.work.jobs
        running = [*range(len(self.work.edits))]
        missing = []
        for number, group in enumerate(group_by_picture(jobs, self.work.plan.pictures)):
            answered = self._journalled(number, group, running)
            if answered is None:
                missing.append((number, group))
            else:
                self._take(group, running, answered)
        for at, answered in self.compute([(group, running) for _, group in missing], self.bar):
            number, group = missing[at]
            if self.journal:
                self.journal.append(number, answered)
            self._take(group, running, answered)

    def race(self, race: Race) -> None:
        """Look after look, until all is decided."""
        jobs = self.work.jobs
        pictures = min(self.work.plan.pictures, PART_OF_LOOK)
        for number, group in enumerate(group_by_picture(jobs, race.rules.look, race.seed)):
            running = race.alive
            if not running:
                break
            answered = self._journalled(number, group, running)
            if answered is None:
                shards = [(part, running) for part in _parts(jobs, group, pictures)]
                answered = [x for part in in_order(self.compute(shards, self.bar)) for x in part]
                if self.journal:
                    self.journal.append(number, answered)
            self._take(group, running, answered)
            race.take(self.results[0], [i for _, i in group])

    def _journalled(
        self, number: int, group: Sequence[tuple[int, int]], running: Sequence[int]
    ) -> list[Answered] | None:
        answered = self.journal.read(number) if self.journal else None
        if answered is None:
            return None
        shapes = [(len(running), self.results[j].shape[2]) for j, _ in group]
        if [x.statistics.shape for x in answered] != shapes:
            raise HonesError(
                f"{self.journal and self.journal.path} holds another group {number}", do="--fresh to start again"
            )
        # a journal begun where answers were not kept has none: the group is computed again
        return answered if all(len(x.answers) == len(self.kept.edits) for x in answered) else None

    def _take(self, group: Sequence[tuple[int, int]], running: Sequence[int], answered: Sequence[Answered]) -> None:
        for (j, i), of_member in zip(group, answered, strict=True):
            self.results[j][running, i] = of_member.statistics
            self.kept.of[j, i] = of_member.answers
        self.finished += len(self.work.edits) * len(group)
        self.bar.update(self.finished - self.bar.n)


def group_by_picture(jobs: Sequence[Job], pictures: int, shuffled: int | None = None) -> list[list[tuple[int, int]]]:
    """(job, example) pairs in groups of so many pictures, or of so many items without one.

    Pictures with prompts of similar length stand together, or with the seed `shuffled` in random order.
    """
    of_picture: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for j, (_, examples) in enumerate(jobs):
        for i, example in enumerate(examples):
            of_picture[example.about].append((j, i))

    def length(members: list[tuple[int, int]]) -> int:
        return max(len(prompt) for j, i in members for prompt in jobs[j][1][i].prompts)

    groups = []
    for text in (False, True):
        ordered = sorted((x for about, x in of_picture.items() if isinstance(about, str) is text), key=length)
        if shuffled is not None:
            random.Random(shuffled).shuffle(ordered)
        groups += [
            [member for members in ordered[start : start + pictures] for member in members]
            for start in range(0, len(ordered), pictures)
        ]
    return groups


def _parts(jobs: Sequence[Job], group: Sequence[tuple[int, int]], pictures: int) -> list[list[tuple[int, int]]]:
    """A group, whose members of a picture stand together, in parts of so many pictures."""
    of_picture = [[*members] for _, members in groupby(group, key=lambda m: jobs[m[0]][1][m[1]].about)]
    starts = range(0, len(of_picture), pictures)
    return [[m for members in of_picture[start : start + pictures] for m in members] for start in starts]


def _positions_per_picture(vlm: VLM, jobs: Sequence[Job]) -> int:
    """Positions of the first example of every task, all its prompts: a measure of what a picture takes."""
    total = 0
    for _, examples in jobs:
        for example in examples[:1]:
            first = vlm.encode([example.open_picture()], [example.prompts[0]]).inputs["input_ids"].shape[1]
            others = sum(len(vlm.tokenizer(prompt)["input_ids"]) for prompt in example.prompts[1:])
            total += first + others
    return total
