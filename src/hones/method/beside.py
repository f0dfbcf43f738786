"""Other tasks and plain text under the masks of one task, and what follows for each (`hones.method.selectivity`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hones.log import remark
from hones.method.selectivity import OtherTask, PlainTextLoss, Selectivity
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName, Interval, Measurement, Share, interval_of
from hones.sweep.measure import measure
from hones.sweep.plain_text import plain_text_of
from hones.sweep.run import Job, SweepSettings
from hones.tasks.base import Task


@dataclass(frozen=True)
class Beside:
    """Other tasks and plain text, measured under some masks.

    text: None where the model cannot be asked it. guess: the log loss of a uniform guess.
    """

    others: Sequence[tuple[Task, Measurement]]
    text: Measurement | None
    guess: float

    def of(self, own: Measurement, arm: ArmName, beyond_random: Interval) -> Selectivity:
        """What the mask `arm` costs.

        Args:
            own: what was measured of the mask's own task.
            beyond_random: how much more the mask costs that than random neurons do.
        """
        others = tuple(
            OtherTask(
                task=task.name,
                metric_name=task.metric_name,
                items=measured.items,
                baseline=measured.level(UNEDITED),
                masked=measured.level(arm),
                drop=measured.drop(arm),
                relative_drop=measured.relative_drop(arm),
            )
            for task, measured in self.others
        )
        lost = own.share_lost(arm)
        shares = [share for _, measured in self.others if (share := measured.share_lost(arm)) is not None]
        selective = lost.beyond(shares) if lost is not None and shares else None
        ahead = [] if selective is None else [selective]
        text = None if self.text is None else _plain_text(self.text, arm, self.guess)
        of_text = self.of_text(arm)
        if lost is not None and of_text is not None:
            ahead.append(lost.beyond([of_text]))
        rivalled = beyond_random.low > 0 and any(x.low <= 0 for x in ahead)
        return Selectivity(others, text, selective, rivalled if rivalled or selective is not None else None)

    def of_text(self, arm: ArmName) -> Share | None:
        """The share of a token's probability that plain text loses; None where the model does not read it."""
        if self.text is None or self.text.value(UNEDITED) >= self.guess:
            return None
        return _probability_lost(self.text, arm)


def _probability_lost(text: Measurement, arm: ArmName) -> Share:
    increases = text.resampled(arm) - text.resampled(UNEDITED)
    return Share(-math.expm1(text.value(UNEDITED) - text.value(arm)), -np.expm1(-increases))


def _plain_text(measured: Measurement, arm: ArmName, guess: float) -> PlainTextLoss:
    """What a mask does to plain text."""
    lost = _probability_lost(measured, arm)
    return PlainTextLoss(
        paragraphs=measured.items,
        baseline=measured.level(UNEDITED),
        masked=measured.level(arm),
        increase=measured.difference(arm, UNEDITED),
        share_lost=interval_of(100 * lost.value, 100 * lost.resampled),
        guess=guess,
    )


def measure_beside(
    vlm: VLM,
    others: Sequence[Job],
    masks: Mapping[ArmName, Intervention],
    sweep: SweepSettings | None = None,
    *,
    seed: int,
    progress: str,
) -> Beside:
    """Other tasks under the masks in one sweep, and plain text in another, whose engine is its own.

    Args:
        others: the other tasks with their test items.

    Raises:
        HonesError: as `hones.sweep.run.sweep`.
    """
    arms = {UNEDITED: BASELINE, **masks}
    measured: list[Measurement] = []
    if others:
        measured = measure(vlm, others, arms, sweep, seed=seed, progress=f"{progress}, other tasks")
    asked = plain_text_of(vlm)
    if asked.left_out:
        first = asked.left_out[0]
        remark(f"plain text: {len(asked.left_out)} paragraphs left out, the first is {first.id}: {first.reason}")
    text = None
    if asked.examples:
        # a small part of the rest: no journal
        alone = replace(sweep or SweepSettings(), journal=None, answers=None)
        (text,) = measure(vlm, [asked.job], arms, alone, seed=seed, progress=f"{progress}, plain text")
    tasks = [task for task, _ in others]
    return Beside(list(zip(tasks, measured, strict=True)), text, math.log(vlm.anatomy.lm_head.weight.shape[0]))
