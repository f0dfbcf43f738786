"""Evidence as tables for a terminal, 80 columns wide."""

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hones.method.steering.results import QUANTILES, Evidence, SteeredBy, Tested
from hones.stats import Interval
from hones.views.tables import level


def evidence_tables(evidence: Evidence) -> list[Table]:
    """The ways to steer on the test items and out of domain, the other tasks, and the scales."""
    tables = [_ways(evidence.test, f"{evidence.task}: steered", evidence.seeds)]
    if evidence.out_of_domain is not None:
        tables.append(_ways(evidence.out_of_domain, f"{evidence.task}: out of domain", evidence.seeds))
    if evidence.elsewhere:
        tables.append(_elsewhere(evidence))
    return [*tables, _scales(evidence)]


def _narrow(title: str, *headings: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _ways(tested: Tested, title: str, seeds: tuple[int, ...]) -> Table:
    """One row per way, HONES first."""
    where = f"{tested.items} items" + (f" of {tested.file}" if tested.file else "")
    title = f"{title}, {where}\n{tested.metric_name} without scales {level(tested.base)}"
    table = _narrow(title, "way", "steered", "gain [95 %]", "HONES ahead by")
    for way in tested.methods:
        neurons = f"{way.neurons:,} neurons"
        steered = Text(f"{way.steered.value:.3f}\n[{way.steered.low:.3f}, {way.steered.high:.3f}]")
        table.add_row(
            Text.assemble(way.method, ("\n" + neurons, "dim")), steered, _change(way.gain, way.gain_p), _ahead(way)
        )
    table.caption = "bold: interval above 0; ! below 0; p: two-sided, not corrected for several ways"
    if len(seeds) > 1:
        table.caption += f"; learned ways: means over seeds {', '.join(map(str, seeds))}"
    return table


def _ahead(way: SteeredBy) -> Text:
    if way.hones_advantage is None or way.p_value is None:
        return Text("")
    return _change(way.hones_advantage, way.p_value)


def _change(interval: Interval, p: float | None = None) -> Text:
    """Bold where the interval lies above zero."""
    below = " !" if interval.high < 0 else ""
    text = f"{interval.value:+.3f}{'' if p is None else _p(p)}{below}\n[{interval.low:+.3f}, {interval.high:+.3f}]"
    return Text(text, style="bold" if interval.low > 0 else "")


def _p(p: float) -> str:
    return "  p<.001" if p < 0.001 else f"  p={p:.3f}".replace("0.", ".", 1)


def _elsewhere(evidence: Evidence) -> Table:
    table = _narrow(
        f"Other tasks under the scales of {evidence.task}", "task", "items", "base", "steered", "change [95 %]"
    )
    for e in evidence.elsewhere:
        name = Text.assemble(e.task, ("\n" + e.metric_name, "dim"))
        table.add_row(name, str(e.items), f"{e.base.value:.3f}", f"{e.steered.value:.3f}", _change(e.change))
    return table


def _scales(evidence: Evidence) -> Table:
    quantiles = [f"{100 * q:g} %" for q in QUANTILES]
    table = Table(title=f"{evidence.task}: learned scales s, quantiles", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("way", no_wrap=True)
    for heading in ("mean", *quantiles, "clamped"):
        table.add_column(heading, no_wrap=True, justify="right")
    for s in evidence.scales:
        shown = (f"{x:+.3f}" for x in (s.mean, *s.quantiles))
        name = s.method.replace(":", ":\n") if len(s.method) > len("rand-neuron") else s.method
        table.add_row(Text.assemble(name, (f"\n{s.count:,}", "dim")), *shown, f"{100 * s.clamped:.0f} %")
    return table
