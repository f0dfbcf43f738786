"""The comparison: every method's neurons masked on the test items, in one sweep.

For each method and budget the selected z are set to zero at every position (step 3 of the paper). All sets, random
draws and budgets of a task share the unedited model's answers and the resamples of the bootstrap, so every difference
is paired. With the oracle among the methods, each ranking is also compared with it over all neurons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.method.masking import relative_drop, resampled_draws
from hones.method.neurons import select_neurons
from hones.models.anatomy import Site
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.rivals.results import Comparison, Curve, MethodResult
from hones.stats import PairedBootstrap, two_sided_p
from hones.sweep.run import SweepSettings
from hones.sweep.run import sweep as run_sweep
from hones.tasks.base import Example, Task

BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
HONES, ORACLE = "hones", "oracle"


@dataclass(frozen=True)
class Ranking:
    """A method's numbers for every neuron, one array [L, I] per draw (one, where it is not random)."""

    method: str
    importances: tuple[Float[np.ndarray, "layers neurons"], ...]
    seconds: float

    def sets(self, ratio: float) -> list[frozenset[Site]]:
        """The neurons that each draw selects at a budget."""
        return [frozenset((n.layer, n.neuron) for n in select_neurons(i, ratio)) for i in self.importances]


@dataclass(frozen=True)
class _Masked:
    """A method's metric under its mask: on all items and in every resample, mean over draws."""

    draws: tuple[float, ...]
    resampled: Float[np.ndarray, " resamples"]

    @property
    def value(self) -> float:
        return float(np.mean(self.draws))


class _Arms:
    """All masks of a comparison, each run once."""

    def __init__(self, rankings: Sequence[Ranking], ratios: Sequence[float]) -> None:
        self.sets = {(r.method, ratio): r.sets(ratio) for r in rankings for ratio in ratios}
        distinct = dict.fromkeys(chosen for sets in self.sets.values() for chosen in sets)
        self.number = {chosen: n for n, chosen in enumerate(dict.fromkeys([frozenset[Site](), *distinct]))}
        self.edits = [BASELINE, *(Intervention(masked=chosen) for chosen in [*self.number][1:])]

    def measure(
        self, task: Task, statistics: Float[np.ndarray, "edits items k"], bootstrap: PairedBootstrap, seed: int
    ) -> None:
        """Take the sweep's statistics."""
        self.totals = task.score(statistics.sum(1, dtype=np.float64))
        self.resampled = np.stack([bootstrap.scores(arm, task.score) for arm in statistics])
        self.seed = seed

    def masked(self, method: str, ratio: float) -> _Masked:
        """A method's metric at a budget."""
        arms = [self.number[chosen] for chosen in self.sets[method, ratio]]
        resampled = self.resampled[arms]
        mean = resampled[0] if len(arms) == 1 else resampled_draws(resampled, self.seed)
        return _Masked(tuple(float(self.totals[arm]) for arm in arms), mean)


def compare_methods(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    rankings: Sequence[Ranking],
    *,
    ratio: float = 0.01,
    budgets: Sequence[float] = BUDGETS,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> Comparison:
    """Mask what each method selects, on the test items.

    Args:
        rankings: one per method, `hones` among them.
        budgets: of the curves; none: no curves.

    Raises:
        HonesError: no examples, no ranking of `hones`, a ratio outside (0, 1].
    """
    by_name = {ranking.method: ranking for ranking in rankings}
    if HONES not in by_name or not examples:
        raise HonesError(f"{len(rankings)} rankings and {len(examples)} test items", expected="hones, and one item")
    arms = _Arms(rankings, [*dict.fromkeys([ratio, *budgets])])
    statistics = run_sweep(vlm, task, examples, arms.edits, sweep, f"{task.name}: comparison")
    bootstrap = PairedBootstrap(len(examples), seed)
    arms.measure(task, statistics, bootstrap, seed)
    return Comparison(
        task=task.name,
        metric_name=task.metric_name,
        items=len(examples),
        ratio=ratio,
        baseline=bootstrap.interval(arms.totals[0], arms.resampled[0]),
        methods=tuple(_result(ranking, by_name, arms, ratio, bootstrap) for ranking in rankings),
        curves=tuple(_curve(name, arms, budgets, bootstrap) for name in by_name) if budgets else (),
    )


def _result(
    ranking: Ranking, by_name: dict[str, Ranking], arms: _Arms, ratio: float, bootstrap: PairedBootstrap
) -> MethodResult:
    sets, masked, hones = (
        arms.sets[ranking.method, ratio],
        arms.masked(ranking.method, ratio),
        arms.masked(HONES, ratio),
    )
    base, base_resampled = arms.totals[0], arms.resampled[0]
    (hones_set,) = arms.sets[HONES, ratio]
    ahead, is_hones = masked.resampled - hones.resampled, ranking.method == HONES
    oracle = by_name.get(ORACLE)
    layers = len(ranking.importances[0])
    return MethodResult(
        method=ranking.method,
        neurons=len(sets[0]),
        masked=bootstrap.interval(masked.value, masked.resampled),
        absolute_drop=bootstrap.interval(base - masked.value, base_resampled - masked.resampled),
        relative_drop=relative_drop(
            np.array([base, masked.value]), np.stack([base_resampled, masked.resampled]), bootstrap
        ),
        hones_advantage=None if is_hones else bootstrap.interval(masked.value - hones.value, ahead),
        p_value=None if is_hones else two_sided_p(ahead),
        overlap=_share(hones_set, sets),
        seconds=ranking.seconds,
        per_layer=tuple(np.bincount([layer for layer, _ in sets[0]], minlength=layers).tolist()),
        draws=masked.draws if len(sets) > 1 else (),
        rank_correlation=None if oracle is None else _correlation(ranking, oracle),
        recall=None if oracle is None else _share(arms.sets[ORACLE, ratio][0], sets),
    )


def _curve(method: str, arms: _Arms, budgets: Sequence[float], bootstrap: PairedBootstrap) -> Curve:
    points = [arms.masked(method, ratio) for ratio in budgets]
    return Curve(
        method=method,
        ratios=tuple(budgets),
        neurons=tuple(len(arms.sets[method, ratio][0]) for ratio in budgets),
        masked=tuple(bootstrap.interval(point.value, point.resampled) for point in points),
    )


def _share(wanted: frozenset[Site], sets: Sequence[frozenset[Site]]) -> float:
    """The share of `wanted` that the sets hold, mean over sets; 0 where nothing is wanted."""
    return float(np.mean([len(wanted & chosen) for chosen in sets])) / max(1, len(wanted))


def _correlation(ranking: Ranking, oracle: Ranking) -> float:
    (truth,) = oracle.importances
    return float(np.mean([spearman(importance, truth) for importance in ranking.importances]))


def spearman(a: Float[np.ndarray, "layers neurons"], b: Float[np.ndarray, "layers neurons"]) -> float:
    """Spearman's rank correlation over all neurons, ties at their mean rank; 0 where one is constant."""
    first, second = ranks(a.ravel()), ranks(b.ravel())
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1, equal values at the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group]
