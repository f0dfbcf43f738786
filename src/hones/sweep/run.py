"""One interface to both engines: groups of pictures, progress, journal.

A sweep answers every example of one or several tasks under every intervention and returns statistics [edits, items, k],
float32, from which every score, drop and interval follows. Examples of the same picture are answered together, in
groups of a few pictures ordered by length; a group is what the journal records, so a rerun goes on after the last one.
Groups are also the shards that workers take (`hones.sweep.shards`); a race cuts its looks into parts of a few pictures.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

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
from hones.sweep.memory import GIB, MemoryPlan
from hones.sweep.names import MAX_NEW_TOKENS, EngineName
from hones.sweep.racing import Race
from hones.sweep.resume import refuse_other_batches
from hones.sweep.running_sum import RunningSum
from hones.sweep.shards import Advance, Compute, ShardedWork, ThisProcess, Workers, in_order, named, portable
from hones.tasks.base import Answer, Example, Task

if TYPE_CHECKING:
    from hones.sweep.answer_log import AnswerLog

Member = tuple[Task, Example]
Job = tuple[Task, Sequence[Example]]
Statistics = Float[np.ndarray, "edits items k"]
Members = Sequence[tuple[int, int]]
"""(job, example) each."""
SweepShard = tuple[Members, Sequence[int]]
Finished = tuple[Members, Sequence[int], Sequence[Answered]]
PART_OF_LOOK = 4
"""Pictures of a race's look that a worker takes at once."""


class OpenSum(Protocol):
    """What opens a running sum."""

    def __call__(self, shape: Sequence[int], plan: Mapping[str, Any], part: str = "") -> RunningSum:
        """part: of a stage with several."""
        ...


def _in_memory(shape: Sequence[int], plan: Mapping[str, Any], part: str = "") -> RunningSum:
    return RunningSum(shape, plan)


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep runs; only `max_new_tokens` is part of the definition of a result.

    batch_size: prompts (naive) or pictures (replay) at once; None: automatic.
    memory: GiB that it may take beside the weights, of what is free; None: all of it.
    journal: opens the journal of the sweep, given the plan by which it is cut into groups.
    running_sum: opens the sum of a stage that adds shards (`hones.method.neurons`), given its shape and plan; of a
        stage with several sums also which `part` it is.
    answers: keeps what the model says under named arms (`hones.sweep.measure`).
    workers: who computes the groups; this process alone, or a `hones.sweep.ray.Pool`.
    """

    engine: EngineName = "replay"
    batch_size: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    memory: float | None = None
    journal: Callable[[Mapping[str, Any]], Journal] | None = None
    running_sum: OpenSum = _in_memory
    answers: "AnswerLog | None" = None
    workers: Workers = field(default_factory=ThisProcess)

    @property
    def most_bytes(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else int(self.memory * GIB)

    def part(self, name: str) -> "SweepSettings":
        """The settings of a part of a stage's work: a running sum of its own, no journal."""
        opened = self.running_sum

        def of_part(shape: Sequence[int], plan: Mapping[str, Any], part: str = "") -> RunningSum:
            return opened(shape, plan, f"{name}.{part}" if part else name)

        return replace(self, journal=None, answers=None, running_sum=of_part)


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
    # positions of the first example of every task, all its prompts: a measure of what a picture takes
    positions = 0
    for first in [examples[0] for _, examples in jobs if examples]:
        positions += vlm.encode([first.open_picture()], [first.prompts[0]]).inputs["input_ids"].shape[1]
        positions += sum(len(vlm.tokenizer(prompt)["input_ids"]) for prompt in first.prompts[1:])
    plan = settings.workers.plan(vlm, positions, settings.batch_size, settings.most_bytes)
    if not settings.batch_size:
        plan = plan.for_rows(len(edits) * len(jobs))
    cells = len(edits) * sum(len(examples) for _, examples in jobs)
    with settings.journal(asdict(plan)) if settings.journal else nullcontext() as journal:
        if journal is not None:
            refuse_other_batches(journal.path, "sweep", journal.plan["pictures"], settings.batch_size)
            plan = MemoryPlan(**journal.plan)
        asked = [(task, portable(examples)) for task, examples in jobs]
        kept = kept or KeptAnswers(())
        work = SweepWork(asked, edits, settings.engine, settings.batch_size, settings.max_new_tokens, plan, kept.edits)
        compute = settings.workers.begin(vlm, work)
        finished = 0
        with progress_bar(progress, total=cells, unit=" cells") as bar:
            parts = _looks(compute, work, journal, bar, race) if race else _groups(compute, work, journal, bar)
            for group, running, answered in parts:
                for (j, i), of_member in zip(group, answered, strict=True):
                    results[j][running, i] = of_member.statistics
                    kept.of[j, i] = of_member.answers
                if race:
                    race.take(results[0], [i for _, i in group])
                finished += len(edits) * len(group)
                bar.update(finished - bar.n)
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


def _groups(compute: Compute, work: SweepWork, journal: Journal | None, bar: tqdm) -> Iterator[Finished]:
    """All groups, those of the journal first, the others in any order."""
    running = [*range(len(work.edits))]
    missing = []
    for number, group in enumerate(group_by_picture(work.jobs, work.plan.pictures)):
        answered = _journalled(journal, number, work, group, running)
        if answered is None:
            missing.append((number, group))
        else:
            yield group, running, answered
    for at, answered in compute([(group, running) for _, group in missing], bar):
        number, group = missing[at]
        if journal:
            journal.append(number, answered)
        yield group, running, answered


def _looks(compute: Compute, work: SweepWork, journal: Journal | None, bar: tqdm, race: Race) -> Iterator[Finished]:
    """Look after look; what the race makes of one decides what runs in the next."""
    pictures = min(work.plan.pictures, PART_OF_LOOK)
    for number, group in enumerate(group_by_picture(work.jobs, race.rules.look, race.seed)):
        running = race.alive
        if not running:
            break
        answered = _journalled(journal, number, work, group, running)
        if answered is None:
            # the members of a picture stand together
            pictures_of = [[*part] for _, part in groupby(group, lambda m: work.jobs[m[0]][1][m[1]].about)]
            shards = [(part, running) for part in _joined(pictures_of, pictures)]
            answered = [x for part in in_order(compute(shards, bar)) for x in part]
            if journal:
                journal.append(number, answered)
        yield group, running, answered


def _journalled(
    journal: Journal | None, number: int, work: SweepWork, group: Members, running: Sequence[int]
) -> list[Answered] | None:
    """What the journal holds of a group."""
    answered = journal.read(number) if journal else None
    if journal is None or answered is None:
        return None
    shapes = [(len(running), len(work.jobs[j][0].statistic_names)) for j, _ in group]
    if [x.statistics.shape for x in answered] != shapes:
        raise HonesError(f"{journal.path} holds another group {number}", do="--fresh to start again")
    # a journal begun where answers were not kept has none: the group is computed again
    return answered if all(len(x.answers) == len(work.kept) for x in answered) else None


def group_by_picture(jobs: Sequence[Job], pictures: int, shuffled: int | None = None) -> list[Members]:
    """The examples in groups of so many pictures, or of so many items without one.

    Pictures with prompts of similar length stand together, or with the seed `shuffled` in random order.
    """
    of_picture: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for j, (_, examples) in enumerate(jobs):
        for i, example in enumerate(examples):
            of_picture[example.about].append((j, i))

    groups = []
    for text in (False, True):
        ordered = [x for about, x in of_picture.items() if isinstance(about, str) is text]
        ordered.sort(key=lambda members: max(len(prompt) for j, i in members for prompt in jobs[j][1][i].prompts))
        if shuffled is not None:
            random.Random(shuffled).shuffle(ordered)
        groups += _joined(ordered, pictures)
    return groups


def _joined(of_picture: Sequence[Members], pictures: int) -> list[Members]:
    """The members of so many pictures together."""
    starts = range(0, len(of_picture), pictures)
    return [[m for members in of_picture[start : start + pictures] for m in members] for start in starts]
