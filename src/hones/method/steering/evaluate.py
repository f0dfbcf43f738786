"""What learned scales change on test items: Base against HONES, paired."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hones.errors import HonesError
from hones.method.steering.settings import Scales, TrainingSummary
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName, Interval, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class SteeringResult(Tabular):
    """The test metric without (`base`) and with (`steered`) the scales, and the paired gain.

    epoch: whose scales were kept by early stopping, 0 being no scaling; None without. learned: what the training did,
    None where nothing was trained.
    """

    metric_name: str
    items: int
    base: Interval
    steered: Interval
    gain: Interval
    base_details: dict[str, float] = field(default_factory=dict)
    steered_details: dict[str, float] = field(default_factory=dict)
    epoch: int | None = None
    learned: TrainingSummary | None = None

    def tables(self) -> list[Table]:
        """One row."""
        columns = (
            Column("metric_name", "metric", "metric", detail=True),
            Column("items", "items", "count", detail=True),
            Column("base", "base", "interval", terse=True),
            Column("steered", "steered", "interval", terse=True),
            Column("gain", "gain [95 %]", "interval", "+.3f", bold="gain", full="gain"),
        )
        learned = "" if self.learned is None else str(self.learned)
        return [Table("steering", "Steering the selected neurons", columns, [vars(self)], learned)]


def edit_of(scales: Scales) -> Intervention:
    """What the scales, or the adapter learned in their place, do to the model."""
    return Intervention(scales=scales.values, adapter=scales.adapter)


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
    arms = {UNEDITED: BASELINE, "steered": edit_of(scales)}
    (measured,) = measure(vlm, [(task, examples)], arms, sweep, seed=seed, progress=f"{task.name}: test")
    return steering_result(task, measured, "steered", scales)


def steering_result(task: Task, measured: Measurement, arm: ArmName, scales: Scales) -> SteeringResult:
    """The result of an arm with these scales."""
    return SteeringResult(
        metric_name=task.metric_name,
        items=measured.items,
        base=measured.level(UNEDITED),
        steered=measured.level(arm),
        gain=measured.difference(arm, UNEDITED),
        base_details=task.details(measured.sums(UNEDITED)),
        steered_details=task.details(measured.sums(arm)),
        epoch=scales.epoch,
        learned=scales.learned,
    )
