"""The comparison: every method's neurons masked on the test items, in one sweep.

For each method and budget the selected z are set to zero at every position (step 3 of the paper). All sets, random
draws and budgets of a task share the unedited model's answers and the resamples of the bootstrap, so every difference
is paired. Other tasks and plain text are measured under the same sets (`hones.method.selectivity`), of random methods
under the first draw. With the oracle among the methods, each ranking is also compared with it over all neurons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.method.beside import measure_beside
from hones.method.budget import BUDGETS
from hones.method.found import sites_of
from hones.method.neurons import select_neurons
from hones.method.selectivity import Selectivity
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.rivals.base import Importance
from hones.rivals.results import Comparison, Curve, MethodResult
from hones.stats import UNEDITED, ArmName
from hones.sweep.measure import measure
from hones.sweep.run import Job, SweepSettings
from hones.tasks.base import Example, Task

CONTROLS = ("layer-random", "random")
"""Beyond which of these, the first that is compared, a drop has to lie for its set to be called general."""
HONES, ORACLE = "hones", "oracle"


@dataclass(frozen=True)
class Ranking:
    """A method's numbers for every neuron, one array [L, I] per draw (one, where it is not random).

    at: of a method that ranks for a budget, the numbers for others than the comparison's own.
    """

    method: str
    importances: tuple[Importance, ...]
    seconds: float
    at: Mapping[float, Importance] = field(default_factory=dict)

    def sets(self, ratio: float) -> list[frozenset[Site]]:
        """The neurons that each draw selects at a budget."""
        ranked = (self.at[ratio],) if ratio in self.at else self.importances
        return [frozenset(sites_of(select_neurons(i, ratio))) for i in ranked]


def compare_methods(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    rankings: Sequence[Ranking],
    *,
    ratio: float = 0.01,
    budgets: Sequence[float] = BUDGETS,
    others: Sequence[Job] = (),
    sweep: SweepSettings | None = None,
    beside: SweepSettings | None = None,
    seed: int = 3407,
) -> Comparison:
    """Mask what each method selects, on the test items.

    Args:
        rankings: one per method, `hones` among them.
        budgets: of the curves; none: no curves.
        others: other tasks with their test items.
        beside: how the sweep of the others runs; None: as `sweep`, without its journal and answers.

    Raises:
        HonesError: no examples, no ranking of `hones`, a ratio outside (0, 1].
    """
    by_name = {ranking.method: ranking for ranking in rankings}
    if HONES not in by_name or not examples:
        raise HonesError(f"{len(rankings)} rankings and {len(examples)} test items", expected="hones, and one item")
    sets = {(r.method, budget): r.sets(budget) for r in rankings for budget in dict.fromkeys([ratio, *budgets])}
    arms: dict[ArmName, Intervention | list[Intervention]] = {UNEDITED: BASELINE}
    for arm, drawn in sets.items():
        arms[arm] = [Intervention(masked=chosen) for chosen in drawn]
    progress = f"{task.name}: comparison"
    (measured,) = measure(vlm, [(task, examples)], arms, sweep, seed=seed, progress=progress)
    masks = {arm: Intervention(masked=drawn[0]) for arm, drawn in sets.items()}
    apart = beside or replace(sweep or SweepSettings(), journal=None, answers=None)
    elsewhere = measure_beside(vlm, others, masks, apart, seed=seed, progress=progress)
    control = next((name for name in CONTROLS if name in by_name), None)

    def selectivity(method: str, budget: float) -> Selectivity:
        arm = (method, budget)
        beyond = measured.drop(arm) if control is None else measured.difference((control, budget), arm)
        return elsewhere.of(measured, arm, beyond)

    at_ratio = {method: drawn for (method, budget), drawn in sets.items() if budget == ratio}
    oracle = by_name.get(ORACLE)
    hones = (HONES, ratio)
    methods = []
    for ranking in rankings:
        chosen = at_ratio[ranking.method]
        arm = (ranking.method, ratio)
        correlations = [spearman(i, oracle.importances[0]) for i in ranking.importances] if oracle is not None else []
        result = MethodResult(
            method=ranking.method,
            neurons=len(chosen[0]),
            masked=measured.level(arm),
            absolute_drop=measured.drop(arm),
            relative_drop=measured.relative_drop(arm),
            hones_advantage=None if arm == hones else measured.difference(arm, hones),
            p_value=None if arm == hones else measured.p_value(arm, hones),
            overlap=_share(at_ratio[HONES][0], chosen),
            seconds=ranking.seconds,
            per_layer=tuple(np.bincount([n for n, _ in chosen[0]], minlength=len(ranking.importances[0])).tolist()),
            draws=measured.by_draw(arm) if len(chosen) > 1 else (),
            rank_correlation=None if oracle is None else float(np.mean(correlations)),
            recall=None if oracle is None else _share(at_ratio[ORACLE][0], chosen),
            selectivity=selectivity(*arm),
        )
        methods.append(result)
    curves = [
        Curve(
            method=method,
            ratios=tuple(budgets),
            neurons=tuple(len(sets[method, budget][0]) for budget in budgets),
            masked=tuple(measured.level((method, budget)) for budget in budgets),
            selectivity=tuple(selectivity(method, budget) for budget in budgets),
        )
        for method in by_name
        if budgets
    ]
    return Comparison(
        task=task.name,
        metric_name=task.metric_name,
        items=len(examples),
        ratio=ratio,
        baseline=measured.level(UNEDITED),
        methods=tuple(methods),
        curves=tuple(curves),
    )


def _share(wanted: frozenset[Site], sets: Sequence[frozenset[Site]]) -> float:
    """The share of `wanted` that the sets hold, mean over sets; 0 where nothing is wanted."""
    return float(np.mean([len(wanted & chosen) for chosen in sets])) / max(1, len(wanted))


def spearman(a: Importance, b: Importance) -> float:
    """Spearman's rank correlation over all neurons, ties at their mean rank; 0 where one is constant."""
    first = ranks(a.ravel())
    second = ranks(b.ravel())
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1, equal values at the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]
