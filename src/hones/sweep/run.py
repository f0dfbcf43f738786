"""One interface to both engines: groups of pictures, progress, journal.

A sweep answers every example of one or several tasks under every intervention and returns statistics [edits, items, k],
float32, from which every score, drop and interval follows. Examples of the same picture are answered together, in
groups of a few pictures ordered by length; a group is what the journal records, so a rerun goes on after the last one.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.interventions import Intervention
from hones.models.vlm import VLM
from hones.progress import progress_bar
from hones.sweep.engines import make_engine
from hones.sweep.journal import Journal
from hones.sweep.memory import Plan, make_plan
from hones.sweep.racing import Race
from hones.tasks.base import Example, Task

EngineName = Literal["replay", "naive"]
ENGINES: tuple[EngineName, ...] = ("replay", "naive")
MAX_NEW_TOKENS = 24

Member = tuple[Task, Example]
Job = tuple[Task, Sequence[Example]]
Statistics = Float[np.ndarray, "edits items k"]


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep runs; only `max_new_tokens` is part of the definition of a result.

    batch_size: prompts (naive) or pictures (replay) at once; None: automatic.
    journal: opens the journal of the sweep, given the plan by which it is cut into groups.
    """

    engine: EngineName = "replay"
    batch_size: int | None = None
    max_new_tokens: int = MAX_NEW_TOKENS
    journal: Callable[[Mapping[str, Any]], Journal] | None = None


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
) -> list[Float[np.ndarray, "edits _ _"]]:
    """`sweep` for several tasks at once: what all prompts about a picture have in common is computed once.

    With a race (one task), interventions leave the sweep as it decides; cells that were not run are zero.
    """
    settings = settings or SweepSettings()
    results = [np.zeros((len(edits), len(e), len(t.statistic_names)), dtype=np.float32) for t, e in jobs]
    for edit in edits:
        edit.check(vlm.anatomy)
    if not any(examples for _, examples in jobs):
        return results
    plan = make_plan(vlm, _positions_per_picture(vlm, jobs), settings.batch_size)
    if settings.journal is None:
        _run_groups(vlm, jobs, edits, settings, progress, race, plan, None, results)
        return results
    with settings.journal(plan.as_dict()) as journal:
        if settings.batch_size not in (None, journal.plan["pictures"]):
            raise HonesError(
                f"{journal.path} belongs to a sweep of {journal.plan['pictures']} pictures at once, now "
                f"{settings.batch_size}",
                do="leave --batch-size out to go on (groups that do not fit are halved), or --fresh to start again",
            )
        _run_groups(vlm, jobs, edits, settings, progress, race, Plan(**journal.plan), journal, results)
    return results


def _run_groups(
    vlm: VLM,
    jobs: Sequence[Job],
    edits: Sequence[Intervention],
    settings: SweepSettings,
    progress: str,
    race: Race | None,
    plan: Plan,
    journal: Journal | None,
    results: Sequence[np.ndarray],
) -> None:
    """Fill the results group by group, from the journal where it has the group."""
    first = [examples[0] for _, examples in jobs if examples]
    engine = make_engine(vlm, settings.engine, settings.max_new_tokens, settings.batch_size, plan, first, edits)
    cells = len(edits) * sum(len(examples) for _, examples in jobs)
    with progress_bar(progress, total=cells, unit=" cells") as bar:
        finished = 0
        size, order = (race.rules.look, race.seed) if race else (plan.pictures, None)
        for number, group in enumerate(group_by_picture(jobs, size, order)):
            running = race.alive if race else [*range(len(edits))]
            if not running:
                break
            found = journal.read(number) if journal else None
            if found is None:
                found = []
                for part in _fitting(jobs, group, plan.pictures):
                    members = [(jobs[j][0], jobs[j][1][i]) for j, i in part]
                    found += engine.statistics(members, [edits[e] for e in running], bar.update)
                if journal:
                    journal.append(number, found)
            elif [x.shape for x in found] != [(len(running), results[j].shape[2]) for j, _ in group]:
                raise HonesError(
                    f"{journal and journal.path} holds another group {number}", do="--fresh to start again"
                )
            for (j, i), statistics in zip(group, found, strict=True):
                results[j][running, i] = statistics
            if race:
                race.take(results[0], [i for _, i in group])
            finished += len(edits) * len(group)
            bar.update(finished - bar.n)


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
        ordered = sorted((own for about, own in of_picture.items() if isinstance(about, str) is text), key=length)
        if shuffled is not None:
            random.Random(shuffled).shuffle(ordered)
        groups += [
            [member for members in ordered[start : start + pictures] for member in members]
            for start in range(0, len(ordered), pictures)
        ]
    return groups


def _fitting(jobs: Sequence[Job], group: Sequence[tuple[int, int]], pictures: int) -> list[list[tuple[int, int]]]:
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
