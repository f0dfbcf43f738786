"""A comparison in both directions: every method's neurons kept alone, and replaced, along budgets.

On the scale of `hones.method.keeping`, what is replaced becomes 0 or its mean: the faithfulness F(k) of the set of
budget k kept alone, and the completeness K(k) of the model without it. Over the budgets of the curves, with x = log k
as the curves are drawn,

    CPR = integral of F dx / length of x        CMD = integral of |1 - F| dx / length of x

by trapezoid (after Mueller et al. 2025): a method ranks well where CPR is near 1 and CMD near 0. Both are taken anew in
every resample, so their intervals are paired like all others. Where there is no scale there is neither.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.method.budget import BUDGETS
from hones.method.keeping import EMPTY, interval_or_none, keeping
from hones.models.interventions import BASELINE, Constants, Intervention
from hones.models.vlm import VLM
from hones.rivals.both_results import BothCurve, BothDirections
from hones.rivals.compare import Ranking
from hones.stats import UNEDITED, ArmName, Share
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task


def compare_both(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    rankings: Sequence[Ranking],
    *,
    budgets: Sequence[float] = BUDGETS,
    means: Float[np.ndarray, "layers neurons"] | None = None,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> BothDirections:
    """Keep what each method selects alone, and replace it, on the test items.

    Args:
        means: what replaced neurons become (`hones.method.keeping.mean_activations`); None: 0.

    Raises:
        HonesError: no examples, no rankings, no budgets, or a budget outside (0, 1].
    """
    if not rankings or not examples or not budgets:
        found = f"{len(rankings)} rankings, {len(examples)} test items and {len(budgets)} budgets to keep"
        raise HonesError(found, expected="one of each")
    sets = {(r.method, budget): r.sets(budget) for r in rankings for budget in dict.fromkeys(budgets)}
    constants = None if means is None else Constants(means)
    arms: dict[ArmName, Intervention | list[Intervention]] = {UNEDITED: BASELINE, EMPTY: keeping(vlm, (), constants)}
    for arm, drawn in sets.items():
        arms["kept", *arm] = [keeping(vlm, chosen, constants) for chosen in drawn]
        arms["removed", *arm] = [Intervention(masked=chosen, constants=constants) for chosen in drawn]
    progress = f"{task.name}: both directions"
    (measured,) = measure(vlm, [(task, examples)], arms, sweep, seed=seed, progress=progress)

    curves = []
    for method in dict.fromkeys(r.method for r in rankings):
        faithful = [measured.recovered(("kept", method, budget), EMPTY) for budget in budgets]
        left = [measured.recovered(("removed", method, budget), EMPTY) for budget in budgets]
        cpr, cmd = areas_of(budgets, [share for share in faithful if share is not None])
        curve = BothCurve(
            method=method,
            ratios=tuple(budgets),
            neurons=tuple(len(sets[method, budget][0]) for budget in budgets),
            kept=tuple(measured.level(("kept", method, budget)) for budget in budgets),
            removed=tuple(measured.level(("removed", method, budget)) for budget in budgets),
            faithfulness=tuple(map(interval_or_none, faithful)),
            completeness=tuple(map(interval_or_none, left)),
            cpr=interval_or_none(cpr),
            cmd=interval_or_none(cmd),
        )
        curves.append(curve)
    return BothDirections(
        task=task.name,
        metric_name=task.metric_name,
        items=len(examples),
        rest="zero" if means is None else "mean",
        whole=measured.level(UNEDITED),
        empty=measured.level(EMPTY),
        span=measured.difference(UNEDITED, EMPTY),
        curves=tuple(curves),
    )


def areas_of(budgets: Sequence[float], faithful: Sequence[Share]) -> tuple[Share | None, Share | None]:
    """CPR and CMD of the faithfulness at each budget; None where it is not known at every one of two or more."""
    order = np.argsort(budgets)
    x = np.log([budgets[i] for i in order])
    if len(faithful) < len(budgets) or len(x) < 2 or x[0] == x[-1]:
        return None, None

    def mean(y: Float[np.ndarray, "budgets *resamples"]) -> Float[np.ndarray, "*resamples"]:
        """The area under a curve, over the length of its axis."""
        return np.asarray(np.trapezoid(y, x, axis=0) / (x[-1] - x[0]))

    values = np.array([faithful[i].value for i in order])
    resampled = np.stack([faithful[i].resampled for i in order])
    under = Share(float(mean(values)), mean(resampled))
    beside = Share(float(mean(np.abs(1 - values))), mean(np.abs(1 - resampled)))
    return under, beside
