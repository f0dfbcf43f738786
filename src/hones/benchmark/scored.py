"""A cell with the statistics behind it, and what is taken from them anew in every resample of the items."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from hones.benchmark.metrics import BUDGETS
from hones.benchmark.results import Cell
from hones.method.keeping import EMPTY
from hones.rivals.both import areas_of
from hones.stats import UNEDITED, Measurement, Share
from hones.tasks.base import Task

SEED = 3407
Resampled = Float[np.ndarray, " resampled"]
"""A number on all test items, then on every resample of them."""


@dataclass(frozen=True)
class Scored:
    """A cell, the task, and the statistics of its test items [3, items, k]: nothing, P, the method's neurons zeroed.

    both: [2 + 2 B, items, k]: nothing edited, nothing kept, then at each of BUDGETS the method's neurons kept alone,
    and at each replaced. others: [2, items, k] of other tasks: nothing, the method's neurons zeroed. Where asked for.
    """

    cell: Cell
    task: Task
    statistics: Float[np.ndarray, "3 items k"]
    both: Float[np.ndarray, "arms items k"] | None = None
    others: Sequence[tuple[Task, Float[np.ndarray, "2 _ _"]]] = ()

    @cached_property
    def further(self) -> dict[str, Resampled]:
        """Those of FURTHER that were measured and have a scale (`hones.method.keeping`, `hones.method.selectivity`).

        faithfulness, completeness: of the first |P|. cpr, cmd: over BUDGETS, in multiples of |P|.
        """
        found = {**self._both_directions(), "selective_drop": self._selective_drop()}
        return {name: np.array([x.value, *x.resampled]) for name, x in found.items() if x is not None}

    def _both_directions(self) -> dict[str, Share | None]:
        if self.both is None:
            return {}
        arms = [
            UNEDITED,
            EMPTY,
            *(("kept", budget) for budget in BUDGETS),
            *(("replaced", budget) for budget in BUDGETS),
        ]
        measured = Measurement(dict(zip(arms, self.both[:, None], strict=True)), self.task.score, SEED)
        faithful = {budget: measured.recovered(("kept", budget), EMPTY) for budget in BUDGETS}
        cpr, cmd = areas_of(BUDGETS, [share for share in faithful.values() if share is not None])
        completeness = measured.recovered(("replaced", 1.0), EMPTY)
        return {"faithfulness": faithful[1.0], "completeness": completeness, "cpr": cpr, "cmd": cmd}

    def _selective_drop(self) -> Share | None:
        of_others = [_lost(task, x[0], x[1]) for task, x in self.others]
        comparable = [share for share in of_others if share is not None]
        own = _lost(self.task, self.statistics[0], self.statistics[2])
        return own.ahead_of(comparable) if own is not None and comparable else None


def _lost(task: Task, unedited: Float[np.ndarray, "items k"], masked: Float[np.ndarray, "items k"]) -> Share | None:
    """The share of its baseline that a task loses; None where there is nothing to lose."""
    return Measurement({UNEDITED: unedited[None], "masked": masked[None]}, task.score, SEED).share_lost("masked")
