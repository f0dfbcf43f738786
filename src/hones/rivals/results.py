"""What a comparison of methods found, as it is written to RUN/T/comparison.json."""

from dataclasses import dataclass

from hones.stats import Interval
from hones.tabular import Rows, Tabular


@dataclass(frozen=True)
class MethodResult:
    """One method's neurons, masked on the test items.

    masked: the metric, for random controls its mean over `draws`. absolute_drop, relative_drop (per cent): against the
    baseline; relative None where the baseline is 0. hones_advantage: the metric under this method's mask minus the
    metric under HONES's, so positive means that HONES's set matters more; p_value: two-sided, paired bootstrap; both
    None for HONES itself. overlap: share of HONES's set that this method has too. per_layer [L]: neurons per layer.
    rank_correlation (Spearman, over all neurons) and recall (of the oracle's set): None without the oracle.
    """

    method: str
    neurons: int
    masked: Interval
    absolute_drop: Interval
    relative_drop: Interval | None
    hones_advantage: Interval | None
    p_value: float | None
    overlap: float
    seconds: float
    per_layer: tuple[int, ...]
    draws: tuple[float, ...] = ()
    rank_correlation: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Curve:
    """A method's metric at several budgets; ratios are shares of all neurons, neurons how many were masked."""

    method: str
    ratios: tuple[float, ...]
    neurons: tuple[int, ...]
    masked: tuple[Interval, ...]


@dataclass(frozen=True)
class Comparison(Tabular):
    """All methods on one task, at one budget and along budgets."""

    task: str
    metric_name: str
    items: int
    ratio: float
    baseline: Interval
    methods: tuple[MethodResult, ...]
    curves: tuple[Curve, ...]

    def tables(self) -> dict[str, Rows]:
        """The methods at the budget, and every point of the curves."""
        hidden = ("per_layer", "draws")
        points = [
            {"method": c.method, "ratio": ratio, "neurons": count, "masked": masked}
            for c in self.curves
            for ratio, count, masked in zip(c.ratios, c.neurons, c.masked, strict=True)
        ]
        methods = [{k: v for k, v in vars(m).items() if k not in hidden} for m in self.methods]
        return {"methods": methods, "curves": points}
