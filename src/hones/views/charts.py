"""The charts: each is drawn once and serves the page (inline SVG) and papers (PDF, SVG), with its data as a table."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hones.method.heads import HeadResult
from hones.palette import CATEGORIES, COOL, INK, LINE, MUTED, WARM
from hones.rivals.results import Comparison
from hones.tabular import Table
from hones.views.sheet import Sheet, sheet
from hones.views.style import (
    DASHES,
    HONES_LOOK,
    MARKERS,
    RC,
    WIDTH,
    Marks,
    category_rows,
    curve,
    legend_above,
    look,
    new_figure,
)
from hones.views.text import count, metric, number, slug, with_interval

HONES = "hones"


@dataclass(frozen=True)
class Chart:
    """A figure, what its marks say, and its data. name: of files and anchors."""

    name: str
    title: str
    caption: str
    table: Sheet
    figure: Figure
    marks: Mapping[str, str]


@dataclass(frozen=True)
class HeadCell:
    """One cell of a head map: its value, and the label of the mark."""

    layer: int
    head: int
    value: float
    label: str


def head_map(task: str, result: HeadResult) -> Chart:
    """Layer x head: the drop of the metric when the head is replaced."""
    critical = {(h.layer, h.head) for h in result.critical}
    cells = [
        HeadCell(
            h.layer,
            h.head,
            h.score.value,
            f"layer {h.layer}, head {h.head}: drop {with_interval(h.score)}"
            + (", critical" if (h.layer, h.head) in critical else ""),
        )
        for h in result.heads
    ]
    name = f"heads-{slug(task)}"
    table = sheet(result.table(), name, f"{task}: every head, best first")
    caption = (
        f"Drop of {metric(result.metric_name)} when a head is replaced by the mean of its layer's other heads, on "
        f"{count(result.items, 'item')}. Orange: the metric falls; blue with a dash: it rises. Ringed: the "
        f"{count(len(critical), 'critical head')}."
    )
    return cell_map(name, f"{task}: heads", caption, table, cells, critical)


@mpl.rc_context(RC)
def cell_map(
    name: str, title: str, caption: str, table: Sheet, cells: Sequence[HeadCell], ringed: Collection[tuple[int, int]]
) -> Chart:
    """Layers by heads, shaded by value with zero blank; negative cells carry a dash, `ringed` ones a ring."""
    layers = 1 + max(c.layer for c in cells)
    heads = 1 + max(c.head for c in cells)
    side = min(0.4, max(0.15, 3.4 / max(heads, 8)))
    figure = new_figure(heads * side + 1.35, layers * side + 0.62)
    axes, bar = figure.subplots(1, 2, width_ratios=(heads * side, 0.12))
    strongest = max(abs(c.value) for c in cells) or 1.0
    marks = Marks()
    for c in sorted(cells, key=lambda c: (c.layer, c.head)):
        marks.add(shaded(axes, c.head, c.layer, c.value / strongest), c.label)
        if c.value < -0.02 * strongest:
            axes.plot([c.head - 0.2, c.head + 0.2], [c.layer, c.layer], color=INK, linewidth=0.9, solid_capstyle="butt")
    for layer, head in sorted(ringed):
        axes.plot(head, layer, "o", mfc="none", mec=INK, mew=1.1, markersize=side * 36, clip_on=False)
    axes.set(xlim=(-0.5, heads - 0.5), ylim=(layers - 0.5, -0.5), xlabel="head", ylabel="layer")
    for n, place in ((heads, axes.axvline), (layers, axes.axhline)):
        for edge in range(n + 1):
            place(edge - 0.5, color=LINE, linewidth=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 4, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 4, 5, 10]))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _shade_bar(bar, min(0.0, min(c.value for c in cells)), max(0.0, max(c.value for c in cells)), strongest)
    return Chart(name, title, caption, table, figure, marks.labels)


def shaded(axes: Axes, x: int, y: int, share: float, most: float = 1.0) -> Rectangle:
    """A cell whose colour is the sign of `share` and whose strength is its size; transparent at zero."""
    colour = WARM if share >= 0 else COOL
    cell = Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=most * min(1.0, abs(share)), linewidth=0)
    cell.set_clip_on(False)
    axes.add_patch(cell)
    return cell


def _shade_bar(axes: Axes, low: float, high: float, strongest: float) -> None:
    steps = 24
    low, high = (low, high) if high > low else (0.0, strongest)
    height = (high - low) / steps
    for step in range(steps):
        middle = low + (step + 0.5) * height
        colour = WARM if middle >= 0 else COOL
        alpha = min(1.0, abs(middle) / strongest)
        axes.add_patch(Rectangle((0, middle - height / 2), 1, height, facecolor=colour, alpha=alpha, linewidth=0))
    axes.set(xlim=(0, 1), ylim=(low, high), xticks=[])
    axes.yaxis.tick_right()
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.spines[:].set_visible(True)


@mpl.rc_context(RC)
def layer_curves(per_layer: Mapping[str, Sequence[int]]) -> Chart:
    """Neurons per layer for each task: the layout of the paper's first figure."""
    figure = new_figure(WIDTH, 2.6)
    marks = Marks()
    axes = figure.subplots()
    for i, (task, counts) in enumerate(per_layer.items()):
        total = sum(counts) or 1
        points = [
            (layer, n, f"{task}, layer {layer}: {count(n, 'neuron')}, {n / total:.0%} of its set")
            for layer, n in enumerate(counts)
        ]
        curve(axes, marks, points, task, (CATEGORIES[i % 8], MARKERS[i % 8], DASHES[i % 8]), 1.6)
    axes.set(xlabel="layer", ylabel="selected neurons")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    legend_above(figure, len(per_layer))
    layers = max(len(counts) for counts in per_layer.values())
    columns = [[*counts, *[0] * (layers - len(counts))] for counts in per_layer.values()]
    rows = tuple(zip(range(layers), *columns, strict=True))
    table = Sheet("layers", "Selected neurons per layer", ("layer", *per_layer), rows)
    caption = "Where the selected neurons of each task lie."
    return Chart("layers", "Neurons per layer", caption, table, figure, marks.labels)


@mpl.rc_context(RC)
def level_chart(title: str, caption: str, table: Table, arms: Mapping[str, str]) -> Chart:
    """The metric of each row of a table under several arms, with intervals.

    Args:
        arms: columns of the table, and what the legend calls them.
    """
    figure = new_figure(WIDTH, 0.55 * len(table.rows) + 0.85)
    marks = Marks()
    axes = figure.subplots()
    for i, (arm, name) in enumerate(arms.items()):
        colour, marker = ((INK, "o"), (WARM, "D"), (COOL, "s"))[i]
        shift = (i - (len(arms) - 1) / 2) * 0.2
        for n, row in enumerate(table.rows):
            level = row[arm]
            axes.plot([level.low, level.high], [n + shift] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
            (point,) = axes.plot(level.value, n + shift, marker, color=colour, markersize=6)
            marks.add(point, f"{row['task']}, {name}: {metric(row['metric_name'])} {with_interval(level)}")
        axes.plot([], [], marker, color=colour, label=name)
    category_rows(axes, [f"{row['task']} · {metric(row['metric_name'])}" for row in table.rows])
    levels = [x for row in table.rows for arm in arms for x in (row[arm].value, row[arm].high)]
    axes.set_xlim(0, 1.02 * max(0.1, *(x for x in levels if not math.isnan(x))))
    axes.grid(axis="x")
    legend_above(figure, len(arms))
    return Chart(table.name, title, caption, sheet(table), figure, marks.labels)


@mpl.rc_context(RC)
def comparison_chart(comparison: Comparison) -> Chart:
    """The absolute drop that each method's neurons cause, largest first."""
    methods = sorted(comparison.methods, key=lambda m: -m.absolute_drop.value)
    m_name = metric(comparison.metric_name)
    figure = new_figure(WIDTH, 0.27 * len(methods) + 0.65)
    marks = Marks()
    axes = figure.subplots()
    for row, m in enumerate(methods):
        looks: dict[str, Any] = {"facecolor": WARM} if m.method == HONES else {"facecolor": COOL, "alpha": 0.55}
        if "random" in m.method:
            looks = {"facecolor": LINE, "hatch": "////"}
        (bar,) = axes.barh(row, m.absolute_drop.value, height=0.66, linewidth=0, **looks)
        marks.add(bar, f"{m.method}: drop {with_interval(m.absolute_drop)}, {count(m.neurons, 'neuron')}")
        axes.plot([m.absolute_drop.low, m.absolute_drop.high], [row, row], color=INK, linewidth=1.1)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    category_rows(axes, [m.method for m in methods])
    axes.set_xlabel(f"drop of {m_name} when masked")
    axes.grid(axis="x")
    caption = (
        f"Each method's neurons ({100 * comparison.ratio:.3g} % of all) masked on "
        f"{count(comparison.items, 'test item')}; {m_name} without masking {with_interval(comparison.baseline)}. "
        "Lines: 95 % intervals. Orange: HONES; hatched: random controls."
    )
    name = f"comparison-{slug(comparison.task)}"
    table = sheet(comparison.table(), name, f"{comparison.task}: methods, largest drop first")
    return Chart(name, f"{comparison.task}: methods", caption, table, figure, marks.labels)


@mpl.rc_context(RC)
def budget_curves(comparison: Comparison) -> Chart:
    """The metric of each method along budgets."""
    figure = new_figure(WIDTH, 3.4)
    marks = Marks()
    axes = figure.subplots()
    others = iter(range(len(comparison.curves)))
    m_name = metric(comparison.metric_name)
    for c in comparison.curves:
        points = []
        for ratio, neurons, level in zip(c.ratios, c.neurons, c.masked, strict=True):
            label = f"{c.method} at {100 * ratio:.3g} % ({count(neurons, 'neuron')}): {m_name} {with_interval(level)}"
            points.append((100 * ratio, level.value, label))
        if c.method != HONES:
            curve(axes, marks, points, c.method, look(next(others)))
            continue
        curve(axes, marks, points, c.method, HONES_LOOK, 2.4)
        shares = [100 * ratio for ratio in c.ratios]
        lows = [level.low for level in c.masked]
        highs = [level.high for level in c.masked]
        axes.fill_between(shares, lows, highs, color=WARM, alpha=0.14, linewidth=0)
    axes.axhline(comparison.baseline.value, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    budgets = sorted({100 * r for c in comparison.curves for r in c.ratios})
    axes.set_xticks(budgets, [f"{b:.3g}" for b in budgets])
    axes.minorticks_off()
    axes.set(xlabel="neurons masked, % of all (log scale)", ylabel=m_name)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    legend_above(figure, 3)
    caption = (
        f"The lower, the more a method's neurons matter. Dotted: nothing masked ({number(comparison.baseline.value)}). "
        "Shaded: HONES's 95 % intervals; those of the others are in the data."
    )
    name = f"budgets-{slug(comparison.task)}"
    table = sheet(comparison.table("curves"), name, f"{comparison.task}: the metric along budgets")
    return Chart(name, f"{comparison.task}: budgets", caption, table, figure, marks.labels)
