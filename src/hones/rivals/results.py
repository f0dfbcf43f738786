"""What a comparison of methods found, as it is written to RUN/T/comparison.json."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from hones.method.selectivity import ASK_OTHERS, Selectivity
from hones.stats import Interval
from hones.tabular import Column, Table, Tabular


@dataclass(frozen=True)
class MethodResult:
    """One method's neurons, masked on the test items.

    masked: the metric, for random controls its mean over `draws`. absolute_drop, relative_drop (per cent): against the
    baseline; relative None where the baseline is 0. hones_advantage: the metric under this method's mask minus the
    metric under HONES's, so positive means that HONES's set matters more; p_value: two-sided, paired bootstrap; both
    None for HONES itself. overlap: share of HONES's set that this method has too. per_layer [L]: neurons per layer.
    rank_correlation (Spearman, over all neurons) and recall (of the oracle's set): None without the oracle.
    selectivity: what the mask costs elsewhere; None in files of versions that did not measure it.
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
    selectivity: Selectivity | None = None


@dataclass(frozen=True)
class Curve:
    """A method's metric at several budgets; ratios are shares of all neurons, neurons how many were masked.

    selectivity: at each of them; none in files of versions that did not measure it.
    """

    method: str
    ratios: tuple[float, ...]
    neurons: tuple[int, ...]
    masked: tuple[Interval, ...]
    selectivity: tuple[Selectivity, ...] = ()


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

    def tables(self) -> list[Table]:
        """The methods at the budget, largest drop first; what they cost elsewhere; every point of the curves."""
        tables = [self._at_budget()]
        if any(m.selectivity is not None and m.selectivity.says_something for m in self.methods):
            tables.append(self._elsewhere())
        return [*tables, self._along_budgets()] if self.curves else tables

    def _at_budget(self) -> Table:
        oracle = any(m.recall is not None for m in self.methods)
        columns = (
            Column("method", "method", below="fewer"),
            Column("neurons", "neurons", "count", detail=True),
            Column("masked", "masked", "interval", detail=True),
            Column("absolute_drop", "drop [95 %]", "interval", "+.3f", full="drop"),
            Column("relative_drop", "drop, %", "interval", ".0f", missing="-"),
            Column("hones_advantage", "HONES ahead by", "interval", "+.3f", beside="p_value", bold="hones_advantage"),
            Column("p_value", "p", "p"),
            Column("overlap", "share", "number", ".2f", full="overlap with HONES"),
            Column(
                "rank_correlation", "rank" if oracle else "", "number", "+.2f", below="recall", full="rank correlation"
            ),
            Column("recall", "recall" if oracle else "", "number", ".2f"),
            Column("seconds", "sec", "number", ".1f", full="seconds"),
        )
        full = max(m.neurons for m in self.methods)
        rows = []
        for m in sorted(self.methods, key=lambda m: -m.absolute_drop.value):
            draws = f"{len(m.draws)} draws" if m.draws else None
            rows.append(vars(m) | {"fewer": f"{m.neurons} of {full}" if m.neurons < full else draws})
        share = f"{100 * self.ratio:g} %"
        title = f"{self.task}, {self.metric_name} {self.baseline:.3f}, {self.items} test items, {share} masked"
        caption = (
            "bold: HONES's set matters more (interval above 0); ! less (below 0); share: of HONES's neurons; "
            "p: two-sided, not corrected for many methods"
        )
        if oracle:
            caption += "; rank, recall: rank correlation with the oracle, and recall of its set"
        return Table("methods", title, columns, rows, caption)

    def _elsewhere(self) -> Table:
        """A row per method: the share that its set takes from the task, from each other one and from plain text."""
        measured = [(m, m.selectivity) for m in self.methods if m.selectivity is not None]
        asked = any(found.others for _, found in measured)
        columns = (
            Column("method", "method", below="general"),
            Column("general"),
            Column("relative_drop", self.task, "interval", ".0f", missing="-"),
            *_cost_columns([found for _, found in measured]),
            Column("selective_drop", "selective" if asked else "", "interval", "+.2f", full="selective drop"),
        )
        rows = []
        for m, found in measured:
            general = "general" if found.general else None
            rows.append({**vars(m), **_costs(found), "selective_drop": found.selective_drop, "general": general})
        rows.sort(key=lambda row: -(row["selective_drop"] or row["absolute_drop"]).value)
        caption = "selective: own share minus the largest of the others; general: others lose as much"
        title = f"{self.task}: what the same masks cost, % of each baseline"
        return Table("selectivity", title, columns, rows, caption if asked else ASK_OTHERS)

    def _along_budgets(self) -> Table:
        """A row per method and budget: the metric, and the share that the set takes from others."""
        measured = [found for c in self.curves for found in c.selectivity]
        selective = any(found.others for found in measured)
        columns = (
            Column("method", "method"),
            Column("ratio", "share of neurons", "number", "g"),
            Column("neurons", "neurons", "count"),
            Column("masked", "masked", "interval"),
            *_cost_columns([found for found in measured if found.says_something], "{} lost, %"),
            Column("selective_drop", "selective drop" if selective else "", "interval", "+.2f"),
        )
        rows = [
            {"method": c.method, "ratio": ratio, "percent": f"{100 * ratio:g}", "neurons": neurons, "masked": masked}
            | {"drop": self.baseline.value - masked.value, "selective_drop": found and found.selective_drop}
            | (_costs(found) if found is not None else {})
            for c in self.curves
            for ratio, neurons, masked, found in zip_longest(c.ratios, c.neurons, c.masked, c.selectivity)
        ]
        return Table("curves", f"{self.task}: {self.metric_name} along shares masked", columns, rows)


def _cost_columns(measured: Iterable[Selectivity], header: str = "{}") -> list[Column]:
    """A column for each thing that a set costs beside its own task."""
    names = dict.fromkeys(row["on"] for found in measured for row in found.rows())
    return [Column(f"on {name}", header.format(name), "interval", ".0f", missing="-") for name in names]


def _costs(found: Selectivity) -> dict[str, Interval | None]:
    """The shares lost of those columns, in per cent."""
    return {f"on {row['on']}": row["relative_drop"] for row in found.rows()}
