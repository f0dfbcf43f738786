"""Evidence of steering as charts: every way's gain, out of domain, the other tasks, the learned scales."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator

from hones.method.steering.results import QUANTILES, Evidence, ScaleSpread, Tested
from hones.palette import COOL, INK, LINE, MUTED, WARM
from hones.rivals.compare import HONES
from hones.stats import Interval
from hones.tabular import Column
from hones.views.charts import Chart
from hones.views.sheet import Cell, Sheet, sheet
from hones.views.style import RC, WIDTH, Drawing, category_rows
from hones.views.text import count, metric, number, one_line, slug, with_change, with_interval


def evidence_charts(evidences: Sequence[Evidence]) -> list[Chart]:
    """Each task's gains, on the test items and out of domain, and its scales; then the other tasks."""
    charts = []
    for evidence in evidences:
        charts.append(gain_chart(evidence, evidence.test))
        if evidence.out_of_domain is not None:
            charts.append(gain_chart(evidence, evidence.out_of_domain))
        charts.append(scales_chart(evidence))
    if any(evidence.elsewhere for evidence in evidences):
        charts.append(elsewhere_chart(evidences))
    return charts


@dataclass(frozen=True)
class _Change:
    """A row: a change with its interval, what its mark says, and whether it is of HONES."""

    name: str
    change: Interval
    label: str
    hones: bool = False


@mpl.rc_context(RC)
def _changes(table: Sheet, caption: str, axis: str, rows: Sequence[_Change]) -> Chart:
    """Changes around zero, one row each, with intervals; named as their table is."""
    drawing = Drawing(WIDTH, 0.27 * len(rows) + 0.65)
    axes = drawing.figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for row, r in enumerate(rows):
        drawing.interval(axes, row, r.change, (WARM, "D") if r.hones else (COOL, "o"), r.label)
    category_rows(axes, [r.name for r in rows])
    axes.set_xlabel(axis)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    return Chart(table.caption, caption, table, drawing)


def gain_chart(evidence: Evidence, tested: Tested) -> Chart:
    """What every way gains over the model itself."""
    outside = tested is not evidence.test
    name = f"{'domain' if outside else 'gains'}-{slug(evidence.task)}"
    title = f"{evidence.task}: {'out of domain' if outside else 'ways to steer'}"
    m = metric(tested.metric_name)
    rows = []
    for w in tested.methods:
        label = f"{w.method}: {m} {with_interval(w.steered)}, gain {with_change(w.gain)}"
        rows.append(_Change(w.method, w.gain, label, w.method == HONES))
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
    changes = []
    for row in rows:
        steered, other = row["steered_task"], row["task"]
        label = f"scales of {steered} on {other}: change {with_change(row['change'])}"
        changes.append(_Change(f"{steered} on {other}", row["change"], label))
    first = tables[0][1]
    merged = replace(first, columns=(Column("steered_task", "scales of"), *first.columns), rows=rows)
    caption = "Each other task's metric with the scales that HONES learned for one task, minus without. 95 % intervals."
    table = sheet(merged, "elsewhere", "What steering costs elsewhere")
    return _changes(table, caption, "change of the metric", changes)


@mpl.rc_context(RC)
def scales_chart(evidence: Evidence) -> Chart:
    """The scales of HONES, layer by layer: from least to largest, the middle half, the median."""
    spread = next(s for s in evidence.scales if s.method == HONES)
    drawing = Drawing(WIDTH, 0.2 * len(spread.layers) + 0.75)
    axes = drawing.figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    reach = max(abs(x) for x in (spread.quantiles[0], spread.quantiles[-1]))
    if reach > 0.8 * spread.max_scale:
        for bound in (-spread.max_scale, spread.max_scale):
            axes.axvline(bound, color=LINE, linewidth=0.8, linestyle=":")
    for row, layer in enumerate(spread.layers):
        least, low, first, median, third, high, most = layer.quantiles
        for ends, colour, width in (((least, most), LINE, 1.2), ((low, high), COOL, 1.2), ((first, third), COOL, 4.5)):
            axes.plot(ends, [row, row], color=colour, linewidth=width, solid_capstyle="butt")
        (point,) = axes.plot(median, row, "o", color=INK, markersize=4)
        what = f"median {number(median)}, half within {number(first)} to {number(third)}"
        drawing.mark(point, f"layer {layer.layer}: {count(layer.count, 'scale')}, {what}")
    category_rows(axes, [f"{layer.layer}" for layer in spread.layers])
    axes.set(xlabel="scale s (neuron times 1 + s)", ylabel="layer")
    axes.grid(axis="x")
    caption = (
        f"{count(spread.count, 'scale')} that HONES learned with {count(len(evidence.seeds), 'seed')}: dot, median; "
        f"bar, middle half; blue line, 5 to 95 %; grey line, all. {number(100 * spread.clamped, 1)} % are at the bound "
        f"of {number(spread.max_scale, 2)}. The other ways' scales are in the data."
    )
    title = f"{evidence.task}: learned scales"
    places = (f"quantile {100 * q:g} %" for q in QUANTILES)
    columns = ("way", "layer", "scales", "mean", *places, "at the bound, %")
    cells = tuple(row for s in evidence.scales for row in _scale_rows(s))
    return Chart(title, caption, Sheet(f"scales-{slug(evidence.task)}", title, columns, cells), drawing)


def _scale_rows(s: ScaleSpread) -> Iterator[tuple[Cell, ...]]:
    yield (s.method, "all", s.count, s.mean, *s.quantiles, 100 * s.clamped)
    for layer in s.layers:
        yield (s.method, str(layer.layer), layer.count, layer.mean, *layer.quantiles, None)
