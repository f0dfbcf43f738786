"""What steering changes, as it is written to RUN/T/steering/evidence.json."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hones.stats import Interval
from hones.tabular import Column, Table, Tabular

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class SteeredBy:
    """One way to steer on one file of items.

    steered: the metric, mean over seeds; by_seed: of each. gain: steered - base. hones_advantage: HONES's metric minus
    this one, so positive means that HONES is better; p_value: of that, two-sided, paired bootstrap; both None for HONES
    itself. gain_p: of the gain. parameters: how many numbers were learned in place of scales; None, and not in the
    file, of ways that scale neurons.
    """

    method: str
    neurons: int
    steered: Interval
    by_seed: tuple[float, ...]
    gain: Interval
    gain_p: float
    hones_advantage: Interval | None = None
    p_value: float | None = None
    parameters: Annotated[int | None, Field(exclude_if=lambda x: x is None)] = None


@dataclass(frozen=True)
class Tested:
    """Every way to steer on the same items of one file. base: the model itself."""

    file: str
    metric_name: str
    items: int
    base: Interval
    methods: tuple[SteeredBy, ...]


@dataclass(frozen=True)
class Elsewhere:
    """Another task under the scales that HONES learned: its metric without and with them, and the paired change."""

    task: str
    metric_name: str
    items: int
    base: Interval
    steered: Interval
    change: Interval


@dataclass(frozen=True)
class LayerScales:
    """The scales of one layer: how many, their mean, and their quantiles at QUANTILES."""

    layer: int
    count: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class ScaleSpread:
    """How a way's learned scales are distributed, those of all seeds together.

    count: scales of all seeds. clamped: the share at the bound +-max_scale. deviation: standard deviation. quantiles:
    at QUANTILES. layers: those with scales.
    """

    method: str
    count: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    clamped: float
    max_scale: float
    layers: tuple[LayerScales, ...]


@dataclass(frozen=True)
class Evidence(Tabular):
    """Everything measured of steering one task. out_of_domain: on a file that nothing was learned on."""

    task: str
    seeds: tuple[int, ...]
    test: Tested
    elsewhere: tuple[Elsewhere, ...]
    out_of_domain: Tested | None
    scales: tuple[ScaleSpread, ...]

    def tables(self) -> list[Table]:
        """The ways to steer on the test items, out of domain, the other tasks, and the scales."""
        tables = [self._ways("steering", f"{self.task}: steered", self.test)]
        if self.out_of_domain is not None:
            tables.append(self._ways("out of domain", f"{self.task}: out of domain", self.out_of_domain))
        if self.elsewhere:
            tables.append(self._elsewhere())
        return [*tables, self._scales()]

    def _ways(self, name: str, title: str, tested: Tested) -> Table:
        """One row per way, HONES first."""
        title += f", {tested.items} items" + (f" of {tested.file}" if tested.file else "")
        title += f"; {tested.metric_name} without scales {tested.base:.3f}"
        caption = "bold: interval above 0; ! below 0; p: two-sided, not corrected for several ways"
        if len(self.seeds) > 1:
            caption += f"; learned ways: means over seeds {', '.join(map(str, self.seeds))}"
        # one scale is one parameter, so that parameters are what all ways have where some learn no scales
        counted = "parameters" if any(way.parameters is not None for way in tested.methods) else "neurons"
        columns = (
            Column("metric_name"),
            Column("items"),
            Column("base", kind="interval"),
            Column("method", "way", below=counted),
            Column(counted, counted, "count", unit=f" {counted}"),
            Column("steered", "steered", "interval"),
            Column("gain", "gain [95 %]", "interval", "+.3f", beside="gain_p", bold="gain", full="gain"),
            Column("gain_p", "gain p", "p"),
            Column("hones_advantage", "HONES ahead by", "interval", "+.3f", beside="p_value", bold="hones_advantage"),
            Column("p_value", "p", "p"),
            Column("by_seed", "seeds", "list", detail=True),
        )
        about = {"metric_name": tested.metric_name, "items": tested.items, "base": tested.base}
        rows = [about | vars(way) | {"by_seed": tuple(f"{x:.6g}" for x in way.by_seed)} for way in tested.methods]
        if counted == "parameters":
            rows = [row | {"parameters": row["parameters"] or row["neurons"]} for row in rows]
        return Table(name, title, columns, rows, caption)

    def _elsewhere(self) -> Table:
        columns = (
            Column("task", "task", below="metric_name"),
            Column("metric_name", "metric", "metric"),
            Column("items", "items", "count"),
            Column("base", "base", "interval", terse=True),
            Column("steered", "steered", "interval", terse=True),
            Column("change", "change [95 %]", "interval", "+.3f", bold="change", full="change"),
        )
        title = f"Other tasks under the scales of {self.task}"
        return Table("other tasks", title, columns, [vars(e) for e in self.elsewhere])

    def _scales(self) -> Table:
        names = {f"q{100 * q:g}": f"{100 * q:g} %" for q in QUANTILES}
        columns = (
            Column("method", "way", below="count"),
            Column("count", "scales", "count"),
            Column("mean", "mean", "number", "+.3f"),
            Column("deviation"),
            *(Column(name, heading, "number", "+.3f") for name, heading in names.items()),
            Column("clamped", "clamped", "number", ".0%"),
            Column("max_scale"),
        )
        rows = [vars(s) | dict(zip(names, s.quantiles, strict=True)) for s in self.scales]
        return Table("scales", f"{self.task}: learned scales s, quantiles", columns, rows)
