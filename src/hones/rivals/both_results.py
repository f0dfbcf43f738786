"""What a comparison in both directions found, as it is written to RUN/T/both.json (`hones.rivals.both`)."""

from dataclasses import dataclass

from hones.method.budget import Rest
from hones.stats import Interval
from hones.tabular import Column, Table, Tabular

Levels = tuple[Interval, ...]
Shares = tuple[Interval | None, ...]


@dataclass(frozen=True)
class BothCurve:
    """One method along budgets: the metric with its set kept alone and with it replaced, and both as shares.

    ratios: shares of all neurons; neurons: how many. cpr, cmd: None without a scale, or with one budget alone.
    """

    method: str
    ratios: tuple[float, ...]
    neurons: tuple[int, ...]
    kept: Levels
    removed: Levels
    faithfulness: Shares
    completeness: Shares
    cpr: Interval | None
    cmd: Interval | None


@dataclass(frozen=True)
class BothDirections(Tabular):
    """All methods on one task, kept and replaced. span: whole - empty, what shares are of. rest: what others become."""

    task: str
    metric_name: str
    items: int
    whole: Interval
    empty: Interval
    span: Interval
    curves: tuple[BothCurve, ...]
    rest: Rest = "zero"

    def tables(self) -> list[Table]:
        """The areas of each method, largest CPR first; every point of the curves."""
        areas = (
            Column("method", "method"),
            Column("cpr", "CPR [95 %]", "interval", ".3f", missing="-", full="CPR"),
            Column("cmd", "CMD [95 %]", "interval", ".3f", missing="-", full="CMD"),
        )
        rows = sorted(map(vars, self.curves), key=lambda row: -(row["cpr"].value if row["cpr"] else 0.0))
        levels = f"whole {self.whole:.3f}, nothing kept {self.empty:.3f}"
        title = f"{self.task}, {self.metric_name}: {levels}" + (", means for the rest" if self.rest == "mean" else "")
        caption = "mean over budgets (log scale) of the faithfulness F of kept sets (CPR), and of |1 - F| (CMD)"
        if self.span.low <= 0:
            caption = (
                f"no share is given: the whole model is not surely ahead of one with nothing kept ({self.span:+.3f})"
            )
        points = (
            Column("method", "method"),
            Column("ratio", "share of neurons", "number", "g"),
            Column("neurons", "neurons", "count"),
            Column("kept", "kept", "interval", terse=True),
            Column("removed", "without", "interval", terse=True),
            Column("faithfulness", "faithfulness", "interval", ".2f", missing="-"),
            Column("completeness", "left without", "interval", ".2f", missing="-", full="completeness"),
        )
        along = []
        for c in self.curves:
            for i, ratio in enumerate(c.ratios):
                of_curve = ("neurons", "kept", "removed", "faithfulness", "completeness")
                row = {name: getattr(c, name)[i] for name in of_curve}
                along.append({"method": c.method, "ratio": ratio, "percent": f"{100 * ratio:g}", **row})
        return [
            Table("areas", title, areas, rows, caption),
            Table("both", f"{self.task}: sets kept alone, and replaced, by share of neurons, %", points, along),
        ]
