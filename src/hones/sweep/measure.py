"""Measure named arms in one sweep: what several interventions do to the metric, paired over items.

    (measured,) = measure(vlm, [(task, examples)], {UNEDITED: BASELINE, "neurons": edit, "random": controls}, seed=0)
    measured.difference("random", "neurons")

An arm is an intervention, or several draws of one. Equal interventions are swept once, in the order in which they first
come; a neuron scaled by 1 + 0 is not edited.
"""

from collections.abc import Mapping, Sequence

from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.stats import ArmName, Draws, Measurement
from hones.sweep.run import Job, KeptAnswers, SweepSettings, sweep_tasks

Arms = Mapping[ArmName, Intervention | Sequence[Intervention]]


def measure(
    vlm: VLM,
    jobs: Sequence[Job],
    arms: Arms,
    sweep: SweepSettings | None = None,
    *,
    seed: int,
    draws: Draws = "resampled",
    progress: str = "sweep",
) -> list[Measurement]:
    """Answer every example of every task under every arm, all in one sweep.

    Args:
        arms: what is done to the model, by name.
        seed, draws: of the resamples (`hones.stats.Measurement`).

    Returns:
        What was measured of each task.

    Raises:
        HonesError: as `hones.sweep.run.sweep`.
    """
    edits: dict[ArmName, Sequence[Intervention]] = {
        arm: [edit] if isinstance(edit, Intervention) else edit for arm, edit in arms.items()
    }
    distinct = {_key(edit): edit for of_arm in edits.values() for edit in of_arm}
    row = {key: number for number, key in enumerate(distinct)}
    rows = {arm: [row[_key(edit)] for edit in of_arm] for arm, of_arm in edits.items()}
    log = None if sweep is None else sweep.answers
    named = {} if log is None else log.rows(rows)
    kept = KeptAnswers([*dict.fromkeys(named.values())])
    swept = sweep_tasks(vlm, jobs, [*distinct.values()], sweep, progress, kept=kept)
    if log is not None:
        log.take(jobs, named, kept, swept)
    return [
        Measurement({arm: statistics[of_arm] for arm, of_arm in rows.items()}, task.score, seed, draws=draws)
        for (task, _), statistics in zip(jobs, swept, strict=True)
    ]


def _key(edit: Intervention) -> tuple[object, ...]:
    """Equal for interventions that do the same."""
    scales = frozenset((site, s) for site, s in edit.scales.items() if s != 0)
    return edit.heads, edit.masked, scales
