"""Methods as shards: each method's numbers for every neuron come from one worker.

HONES and its variants (`hones.method.drops`) and what takes gradients at gates (`hones.rivals.gates`) are cut by items
instead, and a random method needs no model.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hones.models.vlm import VLM
from hones.progress import progress_bar
from hones.rivals.base import OTHER_TASKS, Context, Importance, Method
from hones.sweep.run import SweepSettings
from hones.sweep.shards import Advance, ShardedWork, portable
from hones.tasks.base import Task


@dataclass(frozen=True)
class Ranked:
    """A method's numbers, and how long they took."""

    importance: Importance
    seconds: float


@dataclass(frozen=True)
class MethodWork(ShardedWork[Method, Ranked]):
    """A shard is a method. What methods keep for other tasks stays in the process that they ran in.

    given: what a context holds beside the model.
    """

    given: dict[str, Any]

    @property
    def tasks(self) -> list[Task]:
        return [self.given["task"], *(task for name in OTHER_TASKS for task, _ in self.given[name])]

    def __getstate__(self) -> dict[str, Any]:
        return {"given": {**self.given, "shared": {}}}

    def begin(self, vlm: VLM) -> Callable[[Method, Advance], Ranked]:
        """All methods of a task share the context."""
        context = Context(vlm, **self.given)

        def compute(shard: Method, _: Advance) -> Ranked:
            started = time.monotonic()
            return Ranked(shard.importance(context), time.monotonic() - started)

        return compute

    def name(self, shard: Method) -> str:
        """The method's."""
        return f"the method {shard.name} on {self.given['task'].name}"


def ranked(
    methods: Sequence[Method], context: Context, summed: Callable[[Method], SweepSettings] | None = None
) -> Iterator[tuple[int, Ranked]]:
    """(number of the method, what it found), in the order in which they end.

    summed: the settings, with a running sum, of a method that is cut by items; by default the context's.
    """
    away = [number for number, method in enumerate(methods) if not (method.drawn or method.cut_by_items)]
    for number, method in enumerate(methods):
        if number not in away:
            started = time.monotonic()
            of_method = context if summed is None else replace(context, sweep=summed(method))
            yield number, Ranked(method.importance(of_method), time.monotonic() - started)
    if not away:
        return
    given = {name: value for name, value in vars(context).items() if name not in ("vlm", "hones")}
    given["examples"] = portable(context.examples)
    for name in OTHER_TASKS:
        given[name] = [(task, portable(examples)) for task, examples in given[name]]
    sweep = context.sweep
    given["sweep"] = SweepSettings(sweep.engine, sweep.batch_size, sweep.max_new_tokens, sweep.memory)
    compute = context.sweep.workers.begin(context.vlm, MethodWork(given))
    with progress_bar(f"{context.task.name}: methods", total=len(away), unit=" methods") as bar:
        for at, ranking in compute([methods[number] for number in away], bar):
            yield away[at], ranking
            bar.update()


def importance_of(method: Method, context: Context, *, sweep: SweepSettings) -> Importance:
    """One method's numbers, computed where the sweep's workers are."""
    ((_, ranking),) = ranked([method], replace(context, sweep=sweep))
    return ranking.importance
