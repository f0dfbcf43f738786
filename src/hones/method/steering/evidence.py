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
from hones.method.steering.evaluate import SteeringResult, edit_of, steering_result
from hones.method.steering.results import QUANTILES, Elsewhere, LayerScales, ScaleSpread, SteeredBy, Tested
from hones.method.steering.settings import HONES, Scales
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName
from hones.sweep.measure import measure
from hones.sweep.run import Job, SweepSettings
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

    @property
    def parameters(self) -> int | None:
        """How many numbers its adapter has, if it is one."""
        adapter = self.scales[0].adapter
        return None if adapter is None else adapter.parameters


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
    # One arm per way, its seeds as draws, and its first seed alone
    interventions: dict[ArmName, Intervention | list[Intervention]] = {UNEDITED: BASELINE}
    for arm in arms:
        interventions[arm.method] = [edit_of(scales) for scales in arm.scales]
        interventions[arm.method, "first seed"] = edit_of(arm.scales[0])
    (measured,) = measure(
        vlm, [(task, examples)], interventions, sweep, seed=seed, draws="averaged", progress=f"{task.name}: steered"
    )

    # M(a), gain(a), and how far HONES is ahead
    methods = []
    for arm in arms:
        is_hones = arm.method == HONES
        methods.append(
            SteeredBy(
                method=arm.method,
                neurons=arm.neurons,
                parameters=arm.parameters,
                steered=measured.level(arm.method),
                by_seed=measured.by_draw(arm.method),
                gain=measured.difference(arm.method, UNEDITED),
                gain_p=measured.p_value(arm.method, UNEDITED),
                hones_advantage=None if is_hones else measured.difference(HONES, arm.method),
                p_value=None if is_hones else measured.p_value(HONES, arm.method),
            )
        )
    tested = Tested(file, task.metric_name, len(examples), measured.level(UNEDITED), tuple(methods))
    first = {arm.method: steering_result(task, measured, (arm.method, "first seed"), arm.scales[0]) for arm in arms}
    return tested, first


def measure_elsewhere(
    vlm: VLM, jobs: Sequence[Job], hones: Arm, *, sweep: SweepSettings | None = None, seed: int = 3407
) -> tuple[Elsewhere, ...]:
    """What the scales of HONES do to other tasks, all of them in one sweep.

    Raises:
        HonesError: a task without examples, or a neuron that the model lacks.
    """
    if any(not examples for _, examples in jobs):
        raise HonesError("a task without items to test", expected="at least one")
    names = ", ".join(task.name for task, _ in jobs)
    arms = {UNEDITED: BASELINE, HONES: [edit_of(scales) for scales in hones.scales]}
    swept = measure(vlm, jobs, arms, sweep, seed=seed, draws="averaged", progress=f"{names}: steered")
    return tuple(
        Elsewhere(
            task=task.name,
            metric_name=task.metric_name,
            items=measured.items,
            base=measured.level(UNEDITED),
            steered=measured.level(HONES),
            change=measured.difference(HONES, UNEDITED),
        )
        for (task, _), measured in zip(jobs, swept, strict=True)
    )


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
