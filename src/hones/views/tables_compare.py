"""Methods and comparisons as tables for a terminal, 80 columns wide."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hones.rivals.base import Method
from hones.rivals.results import Comparison, MethodResult
from hones.stats import Interval
from hones.views.tables import level


def method_table(methods: Iterable[Method]) -> Table:
    """Name, line and source of each."""
    table = Table(title="Methods: how neurons are ranked", box=SIMPLE_HEAD, pad_edge=False, width=80)
    table.add_column("method", no_wrap=True)
    table.add_column("ranks a neuron by")
    for method in methods:
        table.add_row(method.name, Text.assemble(method.summary, ("\n" + method.source, "dim")))
    table.caption = "hones methods need --heads; " + "ape, qrnca and cna need items annotated for several tasks"
    return table


def comparison_table(result: Comparison) -> Table:
    """Drops, HONES against each method, overlap and seconds; one row per method, largest drop first."""
    share = f"{100 * result.ratio:g} %"
    title = f"{result.task}, {result.metric_name} {level(result.baseline)}, {result.items} test items, {share} masked"
    with_oracle = any(m.recall is not None for m in result.methods)
    table = _narrow_table(title)
    table.add_column("method", no_wrap=True)
    for heading in ("drop [95 %]", "drop, %", "HONES ahead by", "share", *(["oracle"] if with_oracle else []), "sec"):
        table.add_column(heading, no_wrap=True, justify="left" if "dro" in heading or "HON" in heading else "right")
    full = max(m.neurons for m in result.methods)
    for m in sorted(result.methods, key=lambda m: -m.absolute_drop.value):
        few = f"\n{m.neurons} of {full}" if m.neurons < full else f"\n{len(m.draws)} draws" if m.draws else ""
        oracle = [f"{m.rank_correlation:+.2f}\n{m.recall:.2f}"] if m.recall is not None else []
        table.add_row(
            Text.assemble(m.method, (few, "dim")),
            _stacked(m.absolute_drop, "+.3f"),
            "-" if m.relative_drop is None else _stacked(m.relative_drop, ".0f"),
            _against(m),
            f"{m.overlap:.2f}",
            *oracle,
            f"{m.seconds:.0f}" if m.seconds >= 100 else f"{m.seconds:.1f}",
        )
    notes = "bold: HONES's set matters more (interval above 0); ! less (below 0); share: of HONES's neurons"
    notes += "; p: two-sided, not corrected for many methods"
    table.caption = notes + ("; oracle: rank correlation and recall of its set" if with_oracle else "")
    return table


def curve_table(result: Comparison) -> Table:
    """The drop of the metric at each budget."""
    ratios = result.curves[0].ratios
    table = _narrow_table(f"{result.task}: drop of {result.metric_name} by share masked")
    table.add_column("method", no_wrap=True)
    for ratio in ratios:
        table.add_column(f"{100 * ratio:g} %", no_wrap=True, justify="right")
    for curve in result.curves:
        table.add_row(curve.method, *(f"{result.baseline.value - point.value:+.3f}" for point in curve.masked))
    return table


def _narrow_table(title: str) -> Table:
    """One space between columns: eighty columns hold seven numbers beside the longest name."""
    return Table(title=title, box=SIMPLE_HEAD, padding=0, show_edge=False)


def _against(m: MethodResult) -> Text:
    if m.hones_advantage is None or m.p_value is None:
        return Text("")
    better, worse = m.hones_advantage.low > 0, m.hones_advantage.high < 0
    p = "p<.001" if m.p_value < 0.001 else f"p={m.p_value:.3f}".replace("0.", ".", 1)
    first = f"{m.hones_advantage.value:+.3f} {p}{' !' if worse else ''}"
    return Text(f"{first}\n{_bounds(m.hones_advantage, '+.3f')}", style="bold" if better else "")


def _stacked(interval: Interval, form: str) -> str:
    return f"{interval.value:{form}}\n{_bounds(interval, form)}"


def _bounds(interval: Interval, form: str) -> str:
    return f"[{interval.low:{form}}, {interval.high:{form}}]"
