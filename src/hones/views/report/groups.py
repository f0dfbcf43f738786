"""Charts of the exclusive groups of the tasks' neuron sets: how many neurons, and what masking each group costs."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from hones.method.analysis.results import Ablation, Analysis, ExclusiveGroup
from hones.palette import COOL, INK, LINE
from hones.views.charts import Chart, shaded
from hones.views.sheet import Sheet, sheet
from hones.views.style import RC, WIDTH, Drawing
from hones.views.text import count, group_name, number, one_line, with_change

_NEURONS = "Neurons that exactly the marked tasks selected."
_DROPS = (
    "Drop of each task's metric when a group is masked, as a share of the largest. Framed: larger than that of random "
    "neurons of the same layers, the interval of the difference excluding zero."
)


def group_chart(analysis: Analysis) -> Chart:
    """Rows: groups; dots: which tasks selected them; bars: how many neurons."""
    groups = analysis.table("groups")
    place = {group.tasks: i for i, group in enumerate(ordered(analysis.groups))}
    table = sheet(replace(groups, rows=sorted(groups.rows, key=lambda row: place[row["group"]])))
    return _chart(analysis, table, "Groups of neurons", _NEURONS, WIDTH, sizes=2.6)


def ablation_chart(analysis: Analysis) -> Chart:
    """Rows: groups; columns: tasks; cells: the drop of the task when the group is masked."""
    table = sheet(analysis.table("ablations"), "ablation")
    width = 0.8 * len(analysis.tasks) + 0.7
    return _chart(analysis, table, "Masking each group", _DROPS, width, drops=0.65)


def groups_with_drops(analysis: Analysis) -> Chart:
    """Both side by side: the layout of the paper's second figure."""
    table = sheet(analysis.table("ablations"), "groups-drops")
    return _chart(analysis, table, "Groups", f"{_NEURONS} {_DROPS}", 7.4, sizes=2.4, drops=0.75)


@mpl.rc_context(RC)
def _chart(
    analysis: Analysis, table: Sheet, title: str, caption: str, width: float, sizes: float = 0.0, drops: float = 0.0
) -> Chart:
    """A row per group. sizes, drops: the share of the bars and of a task's cells, 0 where they are left out."""
    tasks = [t.task for t in analysis.tasks]
    groups = ordered(analysis.groups)
    if not sizes:
        masked = {ablation.group for ablation in analysis.ablations}
        groups = [group for group in groups if group.tasks in masked]
    widths = [0.3 * len(tasks), *([sizes] if sizes else []), *([drops * len(tasks)] if drops else [])]
    drawing = Drawing(width, 0.29 * len(groups) + 0.75)
    matrix, *others = drawing.figure.subplots(1, len(widths), width_ratios=widths, sharey=True)
    _memberships(matrix, tasks, [group.tasks for group in groups])
    if sizes:
        _sizes(drawing, others[0], groups)
    if drops:
        _drops(drawing, others[-1], tasks, [group.tasks for group in groups], analysis.ablations)
    return Chart(title, caption, table, drawing)


def ordered(groups: Sequence[ExclusiveGroup]) -> list[ExclusiveGroup]:
    """One task, pairs, triples, all; larger first."""
    return sorted(groups, key=lambda g: (len(g.tasks), -g.neurons, g.tasks))


def _memberships(axes: Axes, tasks: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
    for row, group in enumerate(groups):
        inside = [i for i, task in enumerate(tasks) if task in group]
        axes.plot(range(len(tasks)), [row] * len(tasks), "o", color=LINE, markersize=6.5)
        axes.plot(inside, [row] * len(inside), "-o", color=INK, markersize=6.5)
    axes.set(xlim=(-0.6, len(tasks) - 0.4), ylim=(len(groups) - 0.5, -0.5), yticks=[])
    axes.xaxis.tick_top()
    axes.set_xticks(
        range(len(tasks)), [one_line(task, 12) for task in tasks], rotation=35, ha="left", rotation_mode="anchor"
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _sizes(drawing: Drawing, axes: Axes, groups: Sequence[ExclusiveGroup]) -> None:
    most = max([1, *(g.neurons for g in groups)])
    for row, group in enumerate(groups):
        (bar,) = axes.barh(row, group.neurons, height=0.62, color=COOL, linewidth=0)
        drawing.mark(bar, f"{group_name(group.tasks)}: {count(group.neurons, 'neuron')}")
        axes.text(group.neurons + 0.015 * most, row, f"{group.neurons:,}", va="center")
    axes.set(xlim=(0, 1.15 * most), xticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("neurons", loc="left", fontsize=8.5)


def _drops(
    drawing: Drawing,
    axes: Axes,
    tasks: Sequence[str],
    groups: Sequence[tuple[str, ...]],
    ablations: Sequence[Ablation],
) -> None:
    by_cell = {(a.group, a.task): a for a in ablations}
    strongest = max((abs(a.drop.value) for a in ablations), default=0.0) or 1.0
    for row, group in enumerate(groups):
        for column, task in enumerate(tasks):
            if (a := by_cell.get((group, task))) is None:
                continue
            drops = f"drop {with_change(a.drop)}, random {number(a.random_drop.value)}"
            cell = shaded(axes, column, row, a.drop.value / strongest, most=0.7)
            drawing.mark(cell, f"{group_name(group)} masked, {task}: {drops}")
            axes.text(column, row, number(a.drop.value, 2), ha="center", va="center")
            if a.advantage.low > 0:
                frame = Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, fill=False, edgecolor=INK, linewidth=1.1)
                axes.add_patch(frame)
    axes.set(xlim=(-0.5, len(tasks) - 0.5))
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(tasks)), [one_line(task, 12) for task in tasks])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
