"""Answers kept for people to read: of the arms of a sweep that have a name for it, every item's answer and score.

A sweep measures statistics; what the model said is thrown away once it is scored, unless a log is handed in with the
sweep's settings. The answers are those that were scored, so they are the same from any engine and any workers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hones.stats import ArmName
from hones.sweep.run import Job, KeptAnswers
from hones.tasks.base import Answer, Example


@dataclass(frozen=True)
class ArmAnswer:
    """What was answered under one arm, and the task's metric of this answer alone (`Metric.score_alone`)."""

    answer: Answer
    score: float


@dataclass(frozen=True)
class ItemAnswers:
    """What was answered about one example, by the name of the arm."""

    example: Example
    arms: dict[str, ArmAnswer]


@dataclass
class AnswerLog:
    """The answers of one sweep. of: of every task, in the order of its examples.

    Args:
        name: of an arm among the answers; None: they are not kept. Its second draw is NAME #2, and so on.
    """

    name: Callable[[ArmName], str | None]
    of: dict[str, list[ItemAnswers]] = field(default_factory=dict)

    def rows(self, arms: Mapping[ArmName, Sequence[int]]) -> dict[str, int]:
        """The interventions whose answers are kept, by name; arms: the interventions of every arm's draws."""
        named = {}
        for arm, draws in arms.items():
            name = self.name(arm)
            if name is not None:
                named |= {f"{name} #{number}" if number > 1 else name: row for number, row in enumerate(draws, 1)}
        return named

    def take(
        self, jobs: Sequence[Job], rows: Mapping[str, int], kept: KeptAnswers, swept: Sequence[np.ndarray]
    ) -> None:
        """What a sweep kept; items that a race ended without are left out.

        Args:
            swept: of every job, statistics [edits, items, k].
        """
        place = {edit: at for at, edit in enumerate(kept.edits)}
        for j, ((task, examples), statistics) in enumerate(zip(jobs, swept, strict=True)):
            scores = {name: task.score_alone(statistics[row].astype(float)) for name, row in rows.items()}
            self.of[task.name] = [
                ItemAnswers(
                    example,
                    {name: ArmAnswer(kept.of[j, i][place[row]], float(scores[name][i])) for name, row in rows.items()},
                )
                for i, example in enumerate(examples)
                if (j, i) in kept.of
            ]
