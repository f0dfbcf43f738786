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
    distinct: dict[object, Intervention] = {}
    keys: dict[ArmName, list[object]] = {}
    for arm, given in arms.items():
        of_arm = [given] if isinstance(given, Intervention) else given
        # equal for interventions that do the same
        keys[arm] = [
            (e.heads, e.masked, frozenset(x for x in e.scales.items() if x[1] != 0), e.kept, e.constants, e.adapter)
            for e in of_arm
        ]
        distinct |= dict(zip(keys[arm], of_arm, strict=True))
    row = {key: number for number, key in enumerate(distinct)}
    rows = {arm: [row[key] for key in of_arm] for arm, of_arm in keys.items()}
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
