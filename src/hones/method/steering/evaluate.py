"""What learned scales change on test items: Base against HONES, paired."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.method.steering.settings import Scales
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import Interval, PairedBootstrap
from hones.sweep.run import SweepSettings
from hones.sweep.run import sweep as run_sweep
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class SteeringResult(Tabular):
    """The test metric without (`base`) and with (`steered`) the scales, and the paired gain.

    epoch: whose scales were kept by early stopping, 0 being no scaling; None without.
    """

    metric_name: str
    items: int
    base: Interval
    steered: Interval
    gain: Interval
    base_details: dict[str, float] = field(default_factory=dict)
    steered_details: dict[str, float] = field(default_factory=dict)
    epoch: int | None = None

    def tables(self) -> list[Table]:
        """One row."""
        columns = (
            Column("metric_name", "metric", "metric", detail=True),
            Column("items", "items", "count", detail=True),
            Column("base", "base", "interval", terse=True),
            Column("steered", "steered", "interval", terse=True),
            Column("gain", "gain [95 %]", "interval", "+.3f", bold="gain", full="gain"),
        )
        return [Table("steering", "Steering the selected neurons", columns, [vars(self)])]


def evaluate_scales(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    scales: Scales,
    *,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> SteeringResult:
    """The metric on `examples` with and without the scales.

    Raises:
        HonesError: no examples, or a neuron that the model lacks.
    """
    if not examples:
        raise HonesError("no test items to steer on", expected="at least one")
    edits = [BASELINE, Intervention(scales=scales.values)]
    statistics = run_sweep(vlm, task, examples, edits, sweep, f"{task.name}: test")
    return steering_result(task, statistics, PairedBootstrap(len(examples), seed), scales.epoch)


def steering_result(
    task: Task, statistics: Float[np.ndarray, "2 items k"], bootstrap: PairedBootstrap, epoch: int | None = None
) -> SteeringResult:
    """The result of the statistics without and with the scales of an epoch."""
    base, steered = (float(x) for x in task.score(statistics.sum(1, dtype=np.float64)))
    base_resampled, steered_resampled = (bootstrap.scores(arm, task.score) for arm in statistics)
    return SteeringResult(
        task.metric_name,
        statistics.shape[1],
        bootstrap.interval(base, base_resampled),
        bootstrap.interval(steered, steered_resampled),
        bootstrap.interval(steered - base, steered_resampled - base_resampled),
        task.details(statistics[0].sum(0, dtype=np.float64)),
        task.details(statistics[1].sum(0, dtype=np.float64)),
        epoch,
    )
