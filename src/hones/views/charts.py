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
from hones.rivals.results import Comparison, MethodResult
from hones.stats import Interval
from hones.views.style import (
    CATEGORIES,
    COOL,
    DASHES,
    INK,
    LINE,
    MARKERS,
    MUTED,
    RC,
    WARM,
    WIDTH,
    Marks,
    category_rows,
    legend_above,
    look,
    new_figure,
)
from hones.views.table import Table
from hones.views.text import count, metric, number, one_line, slug, with_interval

HONES = "hones"


@dataclass(frozen=True)
class Chart:
    """A figure, what its marks say, and its data. name: of files and anchors."""

    name: str
    title: str
    caption: str
    table: Table
    figure: Figure
    marks: Mapping[str, str]


@dataclass(frozen=True)
class HeadCell:
    """One cell of a head map: its value, and the label of the mark."""

    layer: int
    head: int
    value: float
    label: str


@dataclass(frozen=True)
class Arm:
    """One arm of a level chart: its name, and a level with interval per task."""

    name: str
    levels: tuple[Interval, ...]


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
    rows = tuple(
        (h.layer, h.head, h.score.value, h.score.low, h.score.high, h.intervened, "yes" if n < result.top_k else "no")
        for n, h in enumerate(result.heads)
    )
    columns = ("layer", "head", "drop", "low", "high", f"{metric(result.metric_name)} without it", "critical")
    table = Table(f"heads-{slug(task)}", f"{task}: every head, best first", columns, rows)
    caption = (
        f"Drop of {metric(result.metric_name)} when a head is replaced by the mean of its layer's other heads, on "
        f"{count(result.items, 'item')}. Orange: the metric falls; blue with a dash: it rises. Ringed: the "
        f"{count(result.top_k, 'critical head')}."
    )
    return cell_map(f"heads-{slug(task)}", f"{task}: heads", caption, table, cells, critical)


@mpl.rc_context(RC)
def cell_map(
    name: str, title: str, caption: str, table: Table, cells: Sequence[HeadCell], ringed: Collection[tuple[int, int]]
) -> Chart:
    """Layers by heads, shaded by value with zero blank; negative cells carry a dash, `ringed` ones a ring."""
    layers, heads = 1 + max(c.layer for c in cells), 1 + max(c.head for c in cells)
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
    figure, marks = new_figure(WIDTH, 2.6), Marks()
    axes = figure.subplots()
    for i, (task, counts) in enumerate(per_layer.items()):
        colour, marker, dash = CATEGORIES[i % 8], MARKERS[i % 8], DASHES[i % 8]
        total = sum(counts) or 1
        axes.plot(range(len(counts)), counts, color=colour, linestyle=dash)
        for layer, n in enumerate(counts):
            (point,) = axes.plot(layer, n, marker=marker, color=colour, linestyle="none")
            marks.add(point, f"{task}, layer {layer}: {count(n, 'neuron')}, {n / total:.0%} of its set")
        axes.plot([], [], color=colour, marker=marker, linestyle=dash, label=one_line(task, 16))
    axes.set(xlabel="layer", ylabel="selected neurons")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    legend_above(figure, len(per_layer))
    layers = max(len(counts) for counts in per_layer.values())
    columns = {task: [*counts, *[0] * (layers - len(counts))] for task, counts in per_layer.items()}
    rows = tuple((layer, *(column[layer] for column in columns.values())) for layer in range(layers))
    table = Table("layers", "Selected neurons per layer", ("layer", *per_layer), rows)
    caption = "Where the selected neurons of each task lie."
    return Chart("layers", "Neurons per layer", caption, table, figure, marks.labels)


@mpl.rc_context(RC)
def level_chart(
    name: str, title: str, caption: str, tasks: Sequence[str], metrics: Sequence[str], arms: Sequence[Arm]
) -> Chart:
    """The metric of each task under several arms, with intervals."""
    figure, marks = new_figure(WIDTH, 0.55 * len(tasks) + 0.85), Marks()
    axes = figure.subplots()
    colours, markers = (INK, WARM, COOL), ("o", "D", "s")
    for i, arm in enumerate(arms):
        shift = (i - (len(arms) - 1) / 2) * 0.2
        for row, (task, level) in enumerate(zip(tasks, arm.levels, strict=True)):
            y = row + shift
            axes.plot([level.low, level.high], [y, y], color=colours[i], linewidth=1.4, solid_capstyle="butt")
            (point,) = axes.plot(level.value, y, markers[i], color=colours[i], markersize=6)
            marks.add(point, f"{task}, {arm.name}: {metric(metrics[row])} {with_interval(level)}")
        axes.plot([], [], markers[i], color=colours[i], label=arm.name)
    category_rows(axes, [f"{task} · {metric(m)}" for task, m in zip(tasks, metrics, strict=True)])
    axes.set_xlim(0, 1.02 * max([0.1, *(x for arm in arms for i in arm.levels for x in (i.value, i.high) if x == x)]))
    axes.grid(axis="x")
    legend_above(figure, len(arms))
    columns = tuple(f"{arm.name}{end}" for arm in arms for end in ("", " low", " high"))
    rows = tuple(
        (task, metric(m), *(x for arm in arms for x in ends(arm.levels[row])))
        for row, (task, m) in enumerate(zip(tasks, metrics, strict=True))
    )
    return Chart(name, title, caption, Table(name, title, ("task", "metric", *columns), rows), figure, marks.labels)


@mpl.rc_context(RC)
def comparison_chart(comparison: Comparison) -> Chart:
    """The absolute drop that each method's neurons cause, largest first."""
    methods = sorted(comparison.methods, key=lambda m: -m.absolute_drop.value)
    name, m_name = f"comparison-{slug(comparison.task)}", metric(comparison.metric_name)
    figure, marks = new_figure(WIDTH, 0.27 * len(methods) + 0.65), Marks()
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
    table = Table(name, f"{comparison.task}: methods, largest drop first", _COLUMNS, tuple(map(_method_row, methods)))
    return Chart(name, f"{comparison.task}: methods", caption, table, figure, marks.labels)


_COLUMNS = (
    *("method", "neurons", "masked", "drop", "drop low", "drop high", "drop %", "drop % low", "drop % high"),
    *("HONES beats it by", "low", "high", "p", "overlap with HONES", "rank correlation", "recall", "seconds"),
)


def _method_row(m: MethodResult) -> tuple[str | int | float | None, ...]:
    return (
        *(m.method, m.neurons, m.masked.value, *ends(m.absolute_drop), *ends(m.relative_drop)),
        *(*ends(m.hones_advantage), m.p_value, m.overlap, m.rank_correlation, m.recall, m.seconds),
    )


def ends(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    if interval is None:
        return None, None, None
    low, high = (None if math.isnan(x) else x for x in (interval.low, interval.high))
    return interval.value, low, high


@mpl.rc_context(RC)
def budget_curves(comparison: Comparison) -> Chart:
    """The metric of each method along budgets."""
    figure, marks = new_figure(WIDTH, 3.4), Marks()
    axes = figure.subplots()
    others = iter(range(len(comparison.curves)))
    for curve in comparison.curves:
        first = curve.method == HONES
        i = -1 if first else next(others)
        colour, marker, dash = (WARM, "o", "-") if first else look(i)
        values, shares = [level.value for level in curve.masked], [100 * r for r in curve.ratios]
        axes.plot(
            shares, values, color=colour, linestyle=dash, linewidth=2.4 if first else 1.2, zorder=3 if first else 2
        )
        for share, neurons, level in zip(shares, curve.neurons, curve.masked, strict=True):
            (point,) = axes.plot(share, level.value, marker=marker, color=colour, linestyle="none", zorder=4)
            where = f"{curve.method} at {share:.3g} % ({count(neurons, 'neuron')})"
            marks.add(point, f"{where}: {metric(comparison.metric_name)} {with_interval(level)}")
        if first:
            lows, highs = [level.low for level in curve.masked], [level.high for level in curve.masked]
            axes.fill_between(shares, lows, highs, color=colour, alpha=0.14, linewidth=0)
        axes.plot([], [], color=colour, marker=marker, linestyle=dash, label=one_line(curve.method, 16))
    axes.axhline(comparison.baseline.value, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    budgets = sorted({100 * r for curve in comparison.curves for r in curve.ratios})
    axes.set_xticks(budgets, [f"{b:.3g}" for b in budgets])
    axes.minorticks_off()
    axes.set(xlabel="neurons masked, % of all (log scale)", ylabel=metric(comparison.metric_name))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    legend_above(figure, 3)
    rows = tuple(
        (curve.method, ratio, neurons, *ends(level))
        for curve in comparison.curves
        for ratio, neurons, level in zip(curve.ratios, curve.neurons, curve.masked, strict=True)
    )
    name = f"budgets-{slug(comparison.task)}"
    columns = ("method", "share of neurons", "neurons", metric(comparison.metric_name), "low", "high")
    table = Table(name, f"{comparison.task}: the metric along budgets", columns, rows)
    base = number(comparison.baseline.value)
    caption = (
        f"The lower, the more a method's neurons matter. Dotted: nothing masked ({base}). Shaded: HONES's 95 % "
        "intervals; those of the others are in the data."
    )
    return Chart(name, f"{comparison.task}: budgets", caption, table, figure, marks.labels)
