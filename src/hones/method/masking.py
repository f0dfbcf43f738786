"""Step 3 of the paper: the causal check.

Set the selected z to zero at every position, evaluate on the test items, and report the absolute drop and the
relative drop 100 * (base - masked) / base with paired bootstrap intervals. The control masks random neurons with the
same count in every layer, over several draws that are resampled like the items; `advantage` is the metric under the
control (mean over draws) minus the metric under the selection, so positive means that the selection matters more than
its layers.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from hones.errors import TaskStops
from hones.models.anatomy import Site
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import Interval, PairedBootstrap
from hones.sweep.run import SweepSettings
from hones.sweep.run import sweep as run_sweep
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class MaskingResult(Tabular):
    """The metric with and without the selected neurons.

    Drops are base - masked; `relative_drop` is in per cent, None where the baseline is 0 and there is nothing to lose.
    """

    metric_name: str
    items: int
    neurons: int
    baseline: Interval
    masked: Interval
    absolute_drop: Interval
    relative_drop: Interval | None
    control: Interval
    advantage: Interval
    control_draws: tuple[float, ...]
    baseline_details: dict[str, float] = field(default_factory=dict)
    masked_details: dict[str, float] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        """One row."""
        columns = (
            Column("metric_name", "metric", "metric", detail=True),
            Column("items", "items", "count", detail=True),
            Column("neurons", "neurons", "count", detail=True),
            Column("baseline", "base", "interval", terse=True),
            Column("masked", "masked", "interval", terse=True),
            Column("control", "random", "interval", terse=True),
            Column("absolute_drop", "drop [95 %]", "interval", "+.3f", beside="relative_drop", full="drop"),
            Column("relative_drop", "drop, %", "interval", ".1f", " %"),
            Column("advantage", "random - masked", "interval", "+.3f", bold="advantage"),
        )
        caption = "random: as many neurons in the same layers, mean over draws; bold: interval above zero"
        return [Table("masking", f"Masking {self.neurons:,} neurons", columns, [vars(self)], caption)]


def evaluate_masking(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    neurons: Sequence[Site],
    *,
    draws: int = 5,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> MaskingResult:
    """Mask the neurons, and `draws` layer-matched random sets, on the test items.

    Raises:
        HonesError: no neurons, no examples, or a neuron that the model lacks.
    """
    if not neurons or not examples:
        raise TaskStops(f"{len(neurons)} neurons to mask and {len(examples)} test items", expected="at least one each")
    controls = [layer_matched_random(neurons, vlm.anatomy.neurons, seed + draw) for draw in range(draws)]
    edits = [BASELINE, *(Intervention(masked=frozenset(chosen)) for chosen in (neurons, *controls))]
    statistics = run_sweep(vlm, task, examples, edits, sweep, f"{task.name}: masking")
    totals = task.score(statistics.sum(1, dtype=np.float64))
    bootstrap = PairedBootstrap(len(examples), seed)
    resampled = np.stack([bootstrap.scores(arm, task.score) for arm in statistics])
    relative = relative_drop(totals[:2], resampled[:2], bootstrap)
    control, control_resampled = totals[2:].mean(), resampled_draws(resampled[2:], seed)
    return MaskingResult(
        metric_name=task.metric_name,
        items=len(examples),
        neurons=len(set(neurons)),
        baseline=bootstrap.interval(totals[0], resampled[0]),
        masked=bootstrap.interval(totals[1], resampled[1]),
        absolute_drop=bootstrap.interval(totals[0] - totals[1], resampled[0] - resampled[1]),
        relative_drop=relative,
        control=bootstrap.interval(control, control_resampled),
        advantage=bootstrap.interval(control - totals[1], control_resampled - resampled[1]),
        control_draws=tuple(float(x) for x in totals[2:]),
        baseline_details=task.details(statistics[0].sum(0, dtype=np.float64)),
        masked_details=task.details(statistics[1].sum(0, dtype=np.float64)),
    )


def relative_drop(
    totals: Float[np.ndarray, "2"], resampled: Float[np.ndarray, "2 resamples"], bootstrap: PairedBootstrap
) -> Interval | None:
    """100 * (base - masked) / base; resamples without any success are left out, as they have no relative drop."""
    if not totals[0] > 0:
        return None
    base, masked = resampled[:, resampled[0] > 0]
    return bootstrap.interval(100 * (totals[0] - totals[1]) / totals[0], 100 * (base - masked) / base)


def resampled_draws(arms: Float[np.ndarray, "draws resamples"], seed: int) -> Float[np.ndarray, " resamples"]:
    """The mean over draws in every resample; the draws are themselves drawn again with replacement."""
    draws, resamples = arms.shape
    chosen = np.random.default_rng(seed).integers(draws, size=(draws, resamples))
    return np.take_along_axis(arms, chosen, axis=0).mean(0)


def layer_matched_random(
    neurons: Sequence[Site], width: int, seed: int, avoid: Collection[Site] = frozenset()
) -> list[Site]:
    """Random neurons outside the selection, as many in every layer as the selection has there.

    avoid: further neurons not to draw. Where a layer has too few others, it is drawn from these too, and where it has
    fewer unselected neurons than that, from its selected ones.
    """
    rng = np.random.default_rng(seed)
    chosen, avoided = set(neurons), {*neurons, *avoid}
    drawn: list[Site] = []
    for layer, count in sorted(Counter(layer for layer, _ in chosen).items()):
        pools = ([i for i in range(width) if (layer, i) not in taken] for taken in (avoided, chosen, ()))
        pool = next(pool for pool in pools if len(pool) >= count)
        drawn += [(layer, int(i)) for i in rng.choice(pool, size=count, replace=False)]
    return drawn
