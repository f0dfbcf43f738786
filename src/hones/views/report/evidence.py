"""Evidence of steering as charts and words: every way's gain, out of domain, the other tasks, the learned scales."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator

from hones.errors import joined
from hones.method.steering.results import QUANTILES, Evidence, ScaleSpread, Tested
from hones.palette import COOL, INK, LINE, MUTED, WARM
from hones.stats import Interval
from hones.tabular import Column
from hones.views.charts import HONES, Chart
from hones.views.sheet import Cell, Sheet, sheet
from hones.views.style import RC, WIDTH, Marks, category_rows, new_figure
from hones.views.text import NO_CHANGE, count, includes_zero, metric, moves, number, one_line, slug, with_interval

_PLACES = tuple(f"quantile {100 * q:g} %" for q in QUANTILES)


def evidence_charts(evidences: Sequence[Evidence]) -> list[Chart]:
    """Each task's gains, on the test items and out of domain, and its scales; then the other tasks."""
    charts = []
    for evidence in evidences:
        charts.append(gain_chart(evidence, evidence.test))
        if evidence.out_of_domain is not None:
            charts.append(gain_chart(evidence, evidence.out_of_domain))
        charts.append(scales_chart(evidence))
    return [*charts, *([elsewhere_chart(evidences)] if any(e.elsewhere for e in evidences) else [])]


@dataclass(frozen=True)
class _Change:
    """A row: a change with its interval, what its mark says, and its colour."""

    name: str
    change: Interval
    label: str
    colour: str = COOL


@mpl.rc_context(RC)
def _changes(table: Sheet, caption: str, axis: str, rows: Sequence[_Change]) -> Chart:
    """Changes around zero, one row each, with intervals; named as their table is."""
    figure = new_figure(WIDTH, 0.27 * len(rows) + 0.65)
    marks = Marks()
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for row, r in enumerate(rows):
        axes.plot([r.change.low, r.change.high], [row, row], color=r.colour, linewidth=1.4, solid_capstyle="butt")
        (point,) = axes.plot(r.change.value, row, "D" if r.colour == WARM else "o", color=r.colour, markersize=6)
        marks.add(point, r.label)
    category_rows(axes, [r.name for r in rows])
    axes.set_xlabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    return Chart(table.name, table.caption, caption, table, figure, marks.labels)


def gain_chart(evidence: Evidence, tested: Tested) -> Chart:
    """What every way gains over the model itself."""
    outside = tested is not evidence.test
    name = f"{'domain' if outside else 'gains'}-{slug(evidence.task)}"
    title = f"{evidence.task}: {'out of domain' if outside else 'ways to steer'}"
    m = metric(tested.metric_name)
    rows = [
        _Change(
            w.method,
            w.gain,
            f"{w.method}: {m} {with_interval(w.steered)}, gain {with_interval(w.gain)}",
            WARM if w.method == HONES else COOL,
        )
        for w in tested.methods
    ]
    source = f"{count(tested.items, 'item')}" + (f" of {one_line(tested.file, 48)}" if tested.file else "")
    caption = (
        f"Gain of {m} over the model itself ({with_interval(tested.base)}) on {source}"
        f"{', where nothing was learned' if outside else ''}. Lines: 95 % intervals, paired; learned ways: mean over "
        f"{count(len(evidence.seeds), 'seed')}. Orange: HONES."
    )
    table = sheet(evidence.table("out of domain" if outside else "steering"), name, title)
    return _changes(table, caption, f"gain of {m}", rows)


def elsewhere_chart(evidences: Sequence[Evidence]) -> Chart:
    """What steering one task does to the others."""
    tables = [(e.task, e.table("other tasks")) for e in evidences if e.elsewhere]
    rows = [{"steered_task": task, **row} for task, table in tables for row in table.rows]
    changes = [
        _Change(
            f"{row['steered_task']} on {row['task']}",
            row["change"],
            f"scales of {row['steered_task']} on {row['task']}: change {with_interval(row['change'])}",
        )
        for row in rows
    ]
    first = tables[0][1]
    merged = replace(first, columns=(Column("steered_task", "scales of"), *first.columns), rows=rows)
    caption = "Each other task's metric with the scales that HONES learned for one task, minus without. 95 % intervals."
    table = sheet(merged, "elsewhere", "What steering costs elsewhere")
    return _changes(table, caption, "change of the metric", changes)


@mpl.rc_context(RC)
def scales_chart(evidence: Evidence) -> Chart:
    """The scales of HONES, layer by layer: from least to largest, the middle half, the median."""
    spread = next(s for s in evidence.scales if s.method == HONES)
    figure = new_figure(WIDTH, 0.2 * len(spread.layers) + 0.75)
    marks = Marks()
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    reach = max(abs(x) for x in (spread.quantiles[0], spread.quantiles[-1]))
    if reach > 0.8 * spread.max_scale:
        for bound in (-spread.max_scale, spread.max_scale):
            axes.axvline(bound, color=LINE, linewidth=0.8, linestyle=":")
    for row, layer in enumerate(spread.layers):
        least, low, first, median, third, high, most = layer.quantiles
        axes.plot([least, most], [row, row], color=LINE, linewidth=1.2, solid_capstyle="butt")
        axes.plot([low, high], [row, row], color=COOL, linewidth=1.2, solid_capstyle="butt")
        axes.plot([first, third], [row, row], color=COOL, linewidth=4.5, solid_capstyle="butt")
        (point,) = axes.plot(median, row, "o", color=INK, markersize=4)
        what = f"median {number(median)}, half within {number(first)} to {number(third)}"
        marks.add(point, f"layer {layer.layer}: {count(layer.count, 'scale')}, {what}")
    category_rows(axes, [f"{layer.layer}" for layer in spread.layers])
    axes.set(xlabel="scale s (neuron times 1 + s)", ylabel="layer")
    axes.grid(axis="x")
    name = f"scales-{slug(evidence.task)}"
    title = f"{evidence.task}: learned scales"
    caption = (
        f"{count(spread.count, 'scale')} that HONES learned with {count(len(evidence.seeds), 'seed')}: dot, median; "
        f"bar, middle half; blue line, 5 to 95 %; grey line, all. {number(100 * spread.clamped, 1)} % are at the bound "
        f"of {number(spread.max_scale, 2)}. The other ways' scales are in the data."
    )
    columns = ("way", "layer", "scales", "mean", *_PLACES, "at the bound, %")
    cells = tuple(row for s in evidence.scales for row in _scale_rows(s))
    return Chart(name, title, caption, Sheet(name, title, columns, cells), figure, marks.labels)


def _scale_rows(s: ScaleSpread) -> Iterator[tuple[Cell, ...]]:
    yield (s.method, "all", s.count, s.mean, *s.quantiles, 100 * s.clamped)
    for layer in s.layers:
        yield (s.method, str(layer.layer), layer.count, layer.mean, *layer.quantiles, None)


def evidence_sentences(e: Evidence) -> Iterator[str]:
    """What steering gains, against whom, out of domain, and what it costs; directions only beyond the interval."""
    yield f"Steering (HONES, mean over {count(len(e.seeds), 'seed')}) {_gains(e.task, e.test)}."
    if e.out_of_domain is not None:
        yield f"Out of domain, it {_gains(e.task, e.out_of_domain)}."
    if e.elsewhere:
        yield f"{_costs(e)}."


def _gains(task: str, tested: Tested) -> str:
    hones = next(way for way in tested.methods if way.method == HONES)
    on = f"{task} on {count(tested.items, 'item')}"
    return moves(on, tested.base, hones.steered, hones.gain, "gain") + _against(tested)


def _against(tested: Tested) -> str:
    pairs = [(w.method, w.hones_advantage) for w in tested.methods if w.hones_advantage is not None]
    if not pairs:
        return ""
    ahead = [name for name, x in pairs if x.low > 0]
    behind = [name for name, x in pairs if x.high < 0]
    open_ = len(pairs) - len(ahead) - len(behind)
    parts = [f"it is ahead of {joined(ahead)}"] if ahead else []
    parts += [f"it is behind {joined(behind)}"] if behind else []
    parts += [f"with {count(open_, 'other way')} the interval of the difference includes zero"] if open_ else []
    return f"; {', '.join(parts)}"


def _costs(e: Evidence) -> str:
    parts = [
        f"{'raise' if o.change.value > 0 else 'lower'} {o.task} (change {with_interval(o.change, 2)})"
        for o in e.elsewhere
        if not includes_zero(o.change)
    ]
    same = [o.task for o in e.elsewhere if includes_zero(o.change)]
    parts += [f"make {NO_CHANGE} to {joined(same)}"] if same else []
    return f"The scales of {e.task} {joined(parts)}"
