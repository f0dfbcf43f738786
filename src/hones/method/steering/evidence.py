"""Evidence that steering helps: every way to steer on the same test items, several seeds, paired.

With the statistics x[a, k, i] of item i under the scales that the way a learned with seed k (one k for ways that are
not learned), in a resample of items with counts w_i (all 1: the items themselves),

    P(a, k; w) = score( sum_i w_i x[a, k, i] )          the task's metric
    M(a; w)    = mean over k of P(a, k; w)              averaged over seeds
    gain(a; w) = M(a; w) - P(base; w)
    HONES ahead of a by M(hones; w) - M(a; w)

A value is that at w = 1, its interval the 95 % percentiles over resamples. All ways, seeds and the base share the
resamples, so every difference is paired over items; the seeds are those that were run, not resampled. The answers of a
file come from one sweep whose interventions are all distinct scales [arms, items, k], the unedited model first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.method.steering.controls import HONES
from hones.method.steering.evaluate import SteeringResult, steering_result
from hones.method.steering.results import QUANTILES, Elsewhere, LayerScales, ScaleSpread, SteeredBy, Tested
from hones.method.steering.settings import Scales
from hones.models.anatomy import Site
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import Interval, PairedBootstrap, two_sided_p
from hones.sweep.run import Job, SweepSettings, sweep_tasks
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class Arm:
    """A way to steer and its scales: one per seed, or one where it is not learned."""

    method: str
    scales: tuple[Scales, ...]

    @property
    def neurons(self) -> int:
        """How many are scaled."""
        return len(self.scales[0].values)


class _Cells:
    """The statistics of all arms, each distinct set of scales swept once, and their resampled scores."""

    def __init__(self, arms: Sequence[Arm]) -> None:
        self.keys = {(arm.method, k): _key(scales) for arm in arms for k, scales in enumerate(arm.scales)}
        found = {_key(scales): scales for arm in arms for scales in arm.scales}
        self.number = {key: n for n, key in enumerate(dict.fromkeys([(), *found]))}
        self.edits = [BASELINE, *(Intervention(scales=found[key].values) for key in [*self.number][1:])]

    def measure(
        self, task: Task, statistics: Float[np.ndarray, "arms items k"], seed: int
    ) -> tuple[PairedBootstrap, Float[np.ndarray, " arms"], Float[np.ndarray, "arms resamples"]]:
        """The bootstrap, the metric of every arm, and that of every resample."""
        bootstrap = PairedBootstrap(statistics.shape[1], seed)
        totals = np.asarray(task.score(statistics.sum(1, dtype=np.float64)))
        return bootstrap, totals, np.stack([bootstrap.scores(arm, task.score) for arm in statistics])

    def of(self, arm: Arm) -> list[int]:
        """Where the statistics of an arm's seeds are."""
        return [self.number[self.keys[arm.method, k]] for k in range(len(arm.scales))]


def _key(scales: Scales) -> tuple[tuple[Site, float], ...]:
    return tuple(sorted((site, s) for site, s in scales.values.items() if s != 0))


def evaluate_arms(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    arms: Sequence[Arm],
    *,
    file: str = "",
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> tuple[Tested, dict[str, SteeringResult]]:
    """Every arm on the same items.

    Args:
        arms: HONES among them.
        file: what the items are called in the result.
        seed: of the bootstrap.

    Returns:
        All of them paired, and each arm's first seed against the base, as `evaluate_scales` gives it.

    Raises:
        HonesError: no examples, no arm of HONES, or a neuron that the model lacks.
    """
    if not examples or HONES not in [arm.method for arm in arms]:
        raise HonesError(f"{len(arms)} ways to steer and {len(examples)} items", expected="hones, and one item")
    cells = _Cells(arms)
    (statistics,) = sweep_tasks(vlm, [(task, examples)], cells.edits, sweep, f"{task.name}: steered")
    bootstrap, totals, resampled = cells.measure(task, statistics, seed)
    mean = {arm.method: totals[cells.of(arm)].mean() for arm in arms}
    drawn = {arm.method: resampled[cells.of(arm)].mean(0) for arm in arms}
    found = []
    for arm in arms:
        value, of_resample = mean[arm.method], drawn[arm.method]
        gain = of_resample - resampled[0]
        ahead, is_hones = drawn[HONES] - of_resample, arm.method == HONES
        found.append(
            SteeredBy(
                method=arm.method,
                neurons=arm.neurons,
                steered=bootstrap.interval(value, of_resample),
                by_seed=tuple(float(x) for x in totals[cells.of(arm)]),
                gain=bootstrap.interval(value - totals[0], gain),
                gain_p=two_sided_p(gain),
                hones_advantage=None if is_hones else bootstrap.interval(mean[HONES] - value, ahead),
                p_value=None if is_hones else two_sided_p(ahead),
            )
        )
    base = bootstrap.interval(totals[0], resampled[0])
    first = {
        arm.method: steering_result(task, statistics[[0, cells.of(arm)[0]]], bootstrap, arm.scales[0].epoch)
        for arm in arms
    }
    return Tested(file, task.metric_name, len(examples), base, tuple(found)), first


def measure_elsewhere(
    vlm: VLM, jobs: Sequence[Job], hones: Arm, *, sweep: SweepSettings | None = None, seed: int = 3407
) -> tuple[Elsewhere, ...]:
    """What the scales of HONES do to other tasks, all of them in one sweep.

    Raises:
        HonesError: a task without examples, or a neuron that the model lacks.
    """
    if any(not examples for _, examples in jobs):
        raise HonesError("a task without items to test", expected="at least one")
    cells = _Cells([hones])
    names = ", ".join(task.name for task, _ in jobs)
    swept = sweep_tasks(vlm, jobs, cells.edits, sweep, f"{names}: steered") if jobs else []
    found = []
    for (task, examples), statistics in zip(jobs, swept, strict=True):
        bootstrap, totals, resampled = cells.measure(task, statistics, seed)
        value, of_resample = totals[cells.of(hones)].mean(), resampled[cells.of(hones)].mean(0)
        base, steered = bootstrap.interval(totals[0], resampled[0]), bootstrap.interval(value, of_resample)
        change: Interval = bootstrap.interval(value - totals[0], of_resample - resampled[0])
        found.append(Elsewhere(task.name, task.metric_name, len(examples), base, steered, change))
    return tuple(found)


def spread(arm: Arm, max_scale: float) -> ScaleSpread:
    """How the scales of an arm are distributed, all its seeds together."""
    by_layer: dict[int, list[float]] = {}
    for scales in arm.scales:
        for (layer, _), s in scales.values.items():
            by_layer.setdefault(layer, []).append(s)
    values = np.array([s for of_layer in by_layer.values() for s in of_layer])
    bound = np.float32(max_scale)  # as the trainer, whose parameters are float32, clamps
    return ScaleSpread(
        method=arm.method,
        count=len(values),
        mean=float(values.mean()),
        deviation=float(values.std()),
        quantiles=_quantiles(values),
        clamped=float(np.mean(np.abs(values).astype(np.float32) >= bound)),
        max_scale=max_scale,
        layers=tuple(
            LayerScales(layer, len(s), float(np.mean(s)), _quantiles(np.array(s)))
            for layer, s in sorted(by_layer.items())
        ),
    )


def _quantiles(values: Float[np.ndarray, " n"]) -> tuple[float, ...]:
    return tuple(float(x) for x in np.quantile(values, QUANTILES))
