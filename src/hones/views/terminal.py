"""Results in a terminal, 80 columns wide: any table of a result, maps of heads, trees of what an answer rests on."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import singledispatch
from math import isnan

import numpy as np
from jaxtyping import Float
from rich import table as rich
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from hones.data.unified import LeftOut
from hones.method.analysis.explanation import ExplainedNeuron, Explanation
from hones.method.analysis.results import Analysis
from hones.method.found import HeadResult
from hones.palette import shade
from hones.rivals.both_results import BothDirections
from hones.rivals.results import Comparison
from hones.stats import Interval
from hones.tabular import Column, Row, Table, Tabular, pivot
from hones.views.text import clean, token_text

WIDTH = 80
BARS = " ▁▂▃▄▅▆▇█"
CARDS_SHOWN = 2
TOKENS_SHOWN = 6
LIST_SHOWN = 3
LEFT_OUT_SHOWN = 20


def show(*tables: Table) -> Group:
    """Tables one below the other, each with its title and caption."""
    parts: list[RenderableType] = []
    for table in tables:
        drawn = _laid_out(table, stacked=False)
        if _width(drawn) > WIDTH:
            drawn = _laid_out(table, stacked=True)
        if _width(drawn) > WIDTH:
            drawn = _laid_out(table, stacked=True, gap=1)
        parts += [Text(""), Text(table.title, "bold"), drawn]
        if table.caption:
            parts.append(Text(table.caption, "dim"))
    return Group(*parts[1:])


@singledispatch
def view(result: Tabular) -> RenderableType:
    """A result as a terminal shows it: all its tables, unless something below says otherwise."""
    return show(*result.tables())


@view.register
def _(result: HeadResult) -> RenderableType:
    return Group(show(*result.tables()), head_map(result))


@view.register
def _(result: Comparison) -> RenderableType:
    """The methods at the budget, and elsewhere; the drop and the selective drop at every budget, a row per method."""
    tables = [table for table in result.tables() if table.name != "curves"]
    if result.curves:
        curves = result.table("curves")
        title = f"{result.task}: drop of {result.metric_name} by share masked, %"
        tables.append(pivot(curves, title, "ratio", Column("drop", form="+.2f", kind="number"), "{percent}"))
        if any(column.name == "selective_drop" for column in curves.headed):
            title = f"{result.task}: selective drop by share masked, %"
            selective = Column("selective_drop", form="+.2f", kind="interval", terse=True)
            tables.append(pivot(curves, title, "ratio", selective, "{percent}"))
    return show(*tables)


@view.register
def _(result: BothDirections) -> RenderableType:
    """The areas; the faithfulness and the completeness at every budget, a row per method."""
    areas, points = result.tables()
    tables = [areas]
    for name, what in (("faithfulness", "faithfulness of kept sets"), ("completeness", "left without the sets")):
        cell = Column(name, form=".2f", kind="interval", terse=True, missing="-")
        title = f"{result.task}: {what} by share of neurons, %"
        tables.append(pivot(points, title, "ratio", cell, "{percent}"))
    return show(*tables)


@view.register
def _(result: Analysis) -> RenderableType:
    """Layers and groups, cross-ablation, overlaps, and the first cards of every task."""
    ablations, groups, layers, overlap, cards, _ = result.tables()
    first, *others = ablations.columns
    ablations = replace(ablations, columns=(replace(first, heading="group", below="neurons"), *others))
    cell = Column("drop", "", "interval", "+.3f", below="random_drop", bold="advantage", terse=True)
    note = "below: random neurons of the same layers; bold: interval of the difference above zero"
    crossed = pivot(ablations, "Drop of every task when a group is masked", "task", cell, "{task}", note)
    tables = [layers, groups, crossed]
    if overlap.rows:
        pairs = replace(overlap, columns=(Column("pair", "tasks"),))
        tables.append(pivot(pairs, overlap.title, "of", Column("said"), "{of}"))
    if cards.rows:
        title = f"The first {CARDS_SHOWN} neurons of each task: heads -> neuron -> tokens"
        rows = [row for row in cards.rows if row["rank"] <= CARDS_SHOWN]
        tables.append(replace(cards, title=title, rows=rows))
    return show(*tables)


@view.register
def _(explanation: Explanation) -> RenderableType:
    """The answer, the map of heads, and the tree heads -> neurons -> tokens."""
    answer = Text.assemble(
        "answer: ",
        (explanation.answer, "bold"),
        f"   probability {explanation.probability:.3g} of it and its end token",
        ("\ncut before its end: raise --max-new-tokens" if explanation.cut else "", "yellow"),
    )
    marked = {(h.layer, h.head) for h in explanation.critical}
    heads = heat_map(explanation.drops(), marked, "the answer's log-probability")
    if not explanation.neurons:
        nothing = Text("no head's replacement lowers the probability through a neuron", style="yellow")
        return Group(answer, heads, nothing, *_where(explanation))
    return Group(answer, heads, _tree(explanation), *_where(explanation))


def _where(explanation: Explanation) -> list[Text]:
    """The strongest patches of every map in words, or why there are no maps."""
    if explanation.no_maps:
        return [Text(clean(f"no maps: {explanation.no_maps}"), style="yellow")]
    lines = [Text("where in the picture, rows and columns from 0 at the top left", "dim")] if explanation.maps else []
    for one in explanation.maps:
        lines += [Text(clean(one.title), "bold"), Text(f"  {one.words()}")]
    return lines


def _tree(explanation: Explanation) -> Tree:
    """Every critical head with the neurons that it feeds more than any other head does."""
    fed: dict[tuple[int, int], list[ExplainedNeuron]] = defaultdict(list)
    for neuron in explanation.neurons:
        fed[neuron.heads[0].layer, neuron.heads[0].head].append(neuron)
    tree = Tree(Text("head (its replacement: probability) -> neurons it feeds most -> tokens they promote", "dim"))
    for head in explanation.critical:
        without = explanation.probability - head.probability_drop
        label = f"head {head.layer}, {head.head}  {explanation.probability:.3g} -> {without:.3g}"
        branch = tree.add(Text(label, style="bold"))
        for neuron in fed[head.layer, head.head]:
            tokens = " ".join(_token(token.text) for token in neuron.promotes[:TOKENS_SHOWN])
            of = "" if neuron.expert is None else f" of expert {neuron.expert}"
            branch.add(Text(f"neuron {neuron.layer}, {neuron.neuron}{of} ({neuron.heads[0].value:.0%}) {tokens}"))
    return tree


def head_map(result: HeadResult) -> RenderableType:
    """Layers by heads, warmer where replacement costs more, cooler where it helps; a dot marks the critical heads."""
    critical = {(h.layer, h.head) for h in result.critical}
    return heat_map(result.matrix(*result.shape), critical, "the metric")


def heat_map(
    scores: Float[np.ndarray, "layers heads"], critical: Collection[tuple[int, int]], of: str
) -> RenderableType:
    """The map of how much every head's replacement lowers `of`; NaN where there is no head."""
    strongest = float(np.nanmax(np.abs(scores))) or 1.0
    heads = range(scores.shape[1])
    lines = [Text("layer " + "".join(f"{h:>3}" if h % 4 == 0 else "   " for h in heads), style="dim")]
    for layer, row in enumerate(scores):
        line = Text(f"{layer:>5} ")
        for head in heads:
            if np.isnan(row[head]):
                line.append(" × ", style="dim")
                continue
            cell = " ● " if (layer, head) in critical else "   "
            line.append(cell, style=f"black on {shade(float(row[head]) / strongest)}")
        lines.append(line)
    darkest = f"darkest orange: {of} drops by {strongest:.3f}" if np.nan_to_num(scores).any() else f"no head moves {of}"
    none = "; × no such head" if np.isnan(scores).any() else ""
    lines.append(Text(f"      ● critical; {darkest}{none}", style="dim"))
    return Group(*lines)


def left_out_list(left_out: Sequence[tuple[str, LeftOut]], named: str = ", all named in run.json") -> RenderableType:
    """Every item that was left out, by name; named: where all of many are."""
    lines = [
        Text(clean(f"left out ({where}): item {item.id}: {item.reason}"), style="yellow") for where, item in left_out
    ]
    hidden = len(lines) - LEFT_OUT_SHOWN
    if hidden > 0:
        lines = [*lines[:LEFT_OUT_SHOWN], Text(f"... and {hidden} more{named}", style="yellow")]
    return Group(*lines)


def _laid_out(table: Table, stacked: bool, gap: int = 2) -> rich.Table:
    """stacked: the bounds of an interval stand beneath its value. gap: spaces between columns."""
    attached = {name for column in table.headed for name in (column.beside, column.below)}
    columns = [column for column in table.headed if not column.detail and column.name not in attached]
    by_name = {column.name: column for column in table.columns}
    drawn = rich.Table(box=SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        below = by_name.get(column.below)
        heading = column.heading
        if below is not None and not below.unit:
            heading += f"\n{below.heading}"
        wraps = column.kind in ("text", "tokens")
        justify = "right" if column.kind in ("number", "count") else "left"
        drawn.add_column(heading, no_wrap=not wraps, justify=justify)
    for row in table.rows[: table.shown]:
        drawn.add_row(*(_cell(column, row, by_name, stacked) for column in columns))
    return drawn


def _cell(column: Column, row: Row, by_name: dict[str, Column], stacked: bool) -> Text:
    """A value; what belongs beside it; its bounds; below, dim, what belongs there."""
    plain = Column("", form=column.form)
    value = row.get(column.name)
    text = _short(column, value)
    if (beside := row.get(column.beside)) is not None:
        text += " " + _short(by_name.get(column.beside, plain), beside)
    decides = row.get(column.bold)
    style = "bold" if decides is not None and decides.low > 0 else ""
    if decides is value and value is not None and value.high < 0:
        text += " !"
    if isinstance(value, Interval) and not column.terse and not isnan(value.low):
        text += ("\n" if stacked else " ") + value.bounds(column.form or ".3f")
    cell = Text(text, style)
    if (below := row.get(column.below)) is not None:
        cell.append("\n" + _short(by_name.get(column.below, plain), below), "not bold dim")
    return cell


def _short(column: Column, value: object) -> str:
    """The value without bounds; the first of many; layers as bars."""
    match column.kind, value:
        case _, Interval():
            return column.text(value.value)
        case "tasks", tuple():
            return "+".join(task[:3] for task in value)
        case "layers", tuple():
            highest = max(value)
            if highest == 0:
                return ""
            bars = "".join(BARS[-(-count * (len(BARS) - 1) // highest)] for count in value)
            return f"{bars}  layer {value.index(highest)}: {highest}"
        case "tokens", tuple():
            return " ".join(map(_token, value[:TOKENS_SHOWN]))
        case "list", tuple():
            return clean("\n".join(value[:LIST_SHOWN]))
    return clean(column.text(value))


def _token(text: str) -> str:
    """A token in quotes; one that is part of a character as it is on a page."""
    shown = token_text(text)
    return shown if shown.startswith("byte ") else repr(text)


def _width(drawn: rich.Table) -> int:
    """Columns that a table needs: the longest line of what is not broken, the longest word of what is."""
    width = (len(drawn.columns) - 1) * 2
    for column in drawn.columns:
        cells = [str(cell) for cell in (column.header, *column.cells)]
        pieces = [piece for cell in cells for piece in (cell.splitlines() if column.no_wrap else cell.split())]
        width += max(map(cell_len, pieces), default=0)
    return width
