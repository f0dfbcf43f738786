"""The charts: each is drawn once and serves the page (inline SVG) and papers (PDF, SVG), with its data as a table."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hones.method.found import HeadResult
from hones.method.head_ways import StepsTaken, SubsetFit
from hones.palette import CATEGORIES, COOL, INK, LINE, MUTED, WARM
from hones.rivals.compare import HONES
from hones.rivals.results import Comparison
from hones.tabular import Table
from hones.views.sheet import Sheet, sheet
from hones.views.style import DASHES, MARKERS, RC, WIDTH, Drawing, category_rows
from hones.views.text import count, metric, number, slug, with_change, with_interval


@dataclass(frozen=True)
class Chart:
    """A drawing and its data, which names it: in files and anchors."""

    title: str
    caption: str
    table: Sheet
    drawing: Drawing

    @property
    def name(self) -> str:
        return self.table.name


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
    cells = []
    for h in result.heads:
        label = f"layer {h.layer}, head {h.head}: drop {with_change(h.score)}"
        label += ", critical" if (h.layer, h.head) in critical else ""
        cells.append(HeadCell(h.layer, h.head, h.score.value, label))
    table = sheet(result.table(), f"heads-{slug(task)}", f"{task}: every head, best first")
    how = ""
    if isinstance(result.found_by, SubsetFit):
        how = f" among others, by a linear model ({result.found_by})"
    elif isinstance(result.found_by, StepsTaken):
        how = " beside those that were chosen in the steps before"
    caption = (
        f"Drop of {metric(result.metric_name)} when a head is replaced by the mean of its layer's other heads{how}, on "
        f"{count(result.items, 'item')}. Orange: the metric falls; blue with a dash: it rises. Ringed: the "
        f"{count(len(critical), 'critical head')}."
    )
    caption += f" {result.without_heads}." if result.headless else ""
    return cell_map(f"{task}: heads", caption, table, cells, critical, result.shape[0])


@mpl.rc_context(RC)
def cell_map(
    title: str,
    caption: str,
    table: Sheet,
    cells: Sequence[HeadCell],
    ringed: Collection[tuple[int, int]],
    layers: int | None = None,
) -> Chart:
    """Layers by heads, shaded by value with zero blank; negative cells carry a dash, `ringed` ones a ring.

    A cell that is not given is no head: it is crossed out, and the caption says so. layers: where the last have none.
    """
    layers = max(layers or 0, 1 + max(c.layer for c in cells))
    heads = 1 + max(c.head for c in cells)
    side = min(0.4, max(0.15, 2.6 / heads))
    drawing = Drawing(heads * side + 1.35, layers * side + 0.62)
    axes, bar = drawing.figure.subplots(1, 2, width_ratios=(heads * side, 0.12))
    strongest = max(abs(c.value) for c in cells) or 1.0
    for c in sorted(cells, key=lambda c: (c.layer, c.head)):
        drawing.mark(shaded(axes, c.head, c.layer, c.value / strongest), c.label)
        if c.value < -0.02 * strongest:
            axes.plot([c.head - 0.2, c.head + 0.2], [c.layer, c.layer], color=INK, linewidth=0.9, solid_capstyle="butt")
    absent = {*product(range(layers), range(heads))} - {(c.layer, c.head) for c in cells}
    for layer, head in sorted(absent):
        axes.plot([head - 0.3, head + 0.3], [layer + 0.3, layer - 0.3], color=MUTED, linewidth=0.6)
    caption += " Crossed out: no such head." if absent else ""
    for layer, head in sorted(ringed):
        axes.plot(head, layer, "o", mfc="none", mec=INK, mew=1.1, markersize=side * 36, clip_on=False)
    axes.set(xlim=(-0.5, heads - 0.5), ylim=(layers - 0.5, -0.5), xlabel="head", ylabel="layer")
    for n, place in ((heads, axes.axvline), (layers, axes.axhline)):
        for edge in range(n + 1):
            place(edge - 0.5, color=LINE, linewidth=0.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 4, 5, 10]))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _shade_bar(bar, min(0.0, min(c.value for c in cells)), max(0.0, max(c.value for c in cells)), strongest)
    return Chart(title, caption, table, drawing)


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
    """Neurons per layer for each task, all of as many layers: the layout of the paper's first figure."""
    drawing = Drawing(WIDTH, 2.6)
    axes = drawing.figure.subplots()
    for i, (task, counts) in enumerate(per_layer.items()):
        total = sum(counts) or 1
        points = [
            (layer, n, f"{task}, layer {layer}: {count(n, 'neuron')}, {n / total:.0%} of its set")
            for layer, n in enumerate(counts)
        ]
        drawing.curve(axes, points, task, (CATEGORIES[i % 8], MARKERS[i % 8], DASHES[i % 8]), 1.6)
    axes.set(xlabel="layer", ylabel="selected neurons")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    drawing.legend(len(per_layer))
    rows = tuple((layer, *counts) for layer, counts in enumerate(zip(*per_layer.values(), strict=True)))
    table = Sheet("layers", "Selected neurons per layer", ("layer", *per_layer), rows)
    return Chart("Neurons per layer", "Where the selected neurons of each task lie.", table, drawing)


@mpl.rc_context(RC)
def level_chart(title: str, caption: str, table: Table, arms: Mapping[str, str]) -> Chart:
    """The metric of each row of a table under several arms, with intervals.

    Args:
        arms: columns of the table, and what the legend calls them.
    """
    drawing = Drawing(WIDTH, 0.55 * len(table.rows) + 0.85)
    axes = drawing.figure.subplots()
    for i, (arm, name) in enumerate(arms.items()):
        colour, marker = ((INK, "o"), (WARM, "D"), (COOL, "s"))[i]
        shift = (i - (len(arms) - 1) / 2) * 0.2
        for n, row in enumerate(table.rows):
            label = f"{row['task']}, {name}: {metric(row['metric_name'])} {with_interval(row[arm])}"
            drawing.interval(axes, n + shift, row[arm], (colour, marker), label)
        axes.plot([], [], marker, color=colour, label=name)
    category_rows(axes, [f"{row['task']} · {metric(row['metric_name'])}" for row in table.rows])
    levels = [x for row in table.rows for arm in arms for x in (row[arm].value, row[arm].high)]
    axes.set_xlim(0, 1.02 * max(0.1, *(x for x in levels if not math.isnan(x))))
    axes.grid(axis="x")
    drawing.legend(len(arms))
    return Chart(title, caption, sheet(table), drawing)


@mpl.rc_context(RC)
def comparison_chart(comparison: Comparison) -> Chart:
    """The absolute drop that each method's neurons cause, largest first."""
    methods = sorted(comparison.methods, key=lambda m: -m.absolute_drop.value)
    m_name = metric(comparison.metric_name)
    drawing = Drawing(WIDTH, 0.27 * len(methods) + 0.65)
    axes = drawing.figure.subplots()
    for row, m in enumerate(methods):
        looks: dict[str, Any] = {"facecolor": WARM} if m.method == HONES else {"facecolor": COOL, "alpha": 0.55}
        if "random" in m.method:
            looks = {"facecolor": LINE, "hatch": "////"}
        (bar,) = axes.barh(row, m.absolute_drop.value, height=0.66, linewidth=0, **looks)
        drawing.mark(bar, f"{m.method}: drop {with_change(m.absolute_drop)}, {count(m.neurons, 'neuron')}")
        axes.plot([m.absolute_drop.low, m.absolute_drop.high], [row, row], color=INK, linewidth=1.1)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    category_rows(axes, [m.method for m in methods])
    axes.set_xlabel(f"drop of {m_name} when masked")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    caption = (
        f"Each method's neurons ({100 * comparison.ratio:.3g} % of all) masked on "
        f"{count(comparison.items, 'test item')}; {m_name} without masking {with_interval(comparison.baseline)}. "
        "Lines: 95 % intervals. Orange: HONES; hatched: random controls."
    )
    task = comparison.task
    table = sheet(comparison.table(), f"comparison-{slug(task)}", f"{task}: methods, largest drop first")
    return Chart(f"{task}: methods", caption, table, drawing)


@mpl.rc_context(RC)
def budget_curves(comparison: Comparison) -> Chart:
    """The metric of each method along budgets."""
    drawing = Drawing(WIDTH, 3.4)
    m_name = metric(comparison.metric_name)
    curves = {
        c.method: [
            (
                100 * ratio,
                level.value,
                f"{c.method} at {100 * ratio:.3g} % ({count(neurons, 'neuron')}): {m_name} {with_interval(level)}",
            )
            for ratio, neurons, level in zip(c.ratios, c.neurons, c.masked, strict=True)
        ]
        for c in comparison.curves
    }
    budgets = sorted({100 * ratio for c in comparison.curves for ratio in c.ratios})
    axes = drawing.budget_curves(curves, budgets, comparison.baseline.value)
    for c in comparison.curves:
        if c.method == HONES:
            lows = [level.low for level in c.masked]
            highs = [level.high for level in c.masked]
            axes.fill_between([100 * x for x in c.ratios], lows, highs, color=WARM, alpha=0.14, linewidth=0)
    axes.set(xlabel="neurons masked, % of all (log scale)", ylabel=m_name)
    caption = (
        f"The lower, the more a method's neurons matter. Dotted: nothing masked ({number(comparison.baseline.value)}). "
        "Shaded: HONES's 95 % intervals; those of the others are in the data."
    )
    task = comparison.task
    table = sheet(comparison.table("curves"), f"budgets-{slug(task)}", f"{task}: the metric along budgets")
    return Chart(f"{task}: budgets", caption, table, drawing)
