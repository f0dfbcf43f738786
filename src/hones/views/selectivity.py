"""What masks cost other tasks and plain text: every set beside the others, as a table and as charts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import MaxNLocator

from hones.method.masking import MaskingResult
from hones.method.selectivity import PLAIN
from hones.palette import COOL, INK, LINE, MUTED, WARM
from hones.rivals.results import Comparison
from hones.tabular import Column, Table, pivot
from hones.views.charts import Chart
from hones.views.sheet import sheet
from hones.views.style import RC, WIDTH, Drawing, category_rows
from hones.views.text import count, metric, slug, with_change

Masked = Sequence[tuple[str, MaskingResult]]


def costs(masked: Masked) -> Table | None:
    """What the neurons of every task cost every task and plain text, a row each; None where no other was measured."""
    found = [(task, result, result.selectivity) for task, result in masked]
    measured = [(task, r.table("selectivity")) for task, r, x in found if x is not None and x.says_something]
    if not measured:
        return None
    rows = []
    for task, table in measured:
        own, *others = table.rows
        rows += [{**own, "set": task, "on": task}, *({**row, "set": task} for row in others)]
    columns = (Column("set", "neurons of"), *measured[0][-1].columns)
    return Table("selectivity", "What masking the neurons of each task costs", columns, rows)


def crossed(masked: Masked) -> list[Table]:
    """The same with a column per task; no table where no other task was measured."""
    table = costs(masked)
    if table is None:
        return []
    cell = Column("relative_drop", "", "interval", ".0f", missing="-")
    note = "selective: own share minus the largest of the other tasks; general: others lose as much"
    across = pivot(table, "What masking the neurons of each task costs, % of each baseline", "on", cell, "{on}", note)
    verdict = (Column("selective_drop", "selective", "interval", "+.2f", below="general"), Column("general"))
    return [replace(across, columns=(*across.columns, *verdict))]


@mpl.rc_context(RC)
def costs_chart(masked: Masked) -> Chart | None:
    """A panel for each task's neurons: the share that they take from it, from every other task and from plain text."""
    table = costs(masked)
    if table is None:
        return None
    sets = list(dict.fromkeys(row["set"] for row in table.rows))
    found_of = {task: result.selectivity for task, result in masked if result.selectivity is not None}
    drawn = {name: [row for row in table.rows if row["set"] == name and row["relative_drop"]] for name in sets}
    heights = [len(rows) + 1.2 for rows in drawn.values()]
    drawing = Drawing(WIDTH, 0.25 * sum(heights) + 0.4)
    panels = drawing.figure.subplots(len(sets), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, rows) in zip(panels, drawn.items(), strict=True):
        for place, row in enumerate(rows):
            lost = row["relative_drop"]
            looks = {"facecolor": WARM} if row["on"] == name else {"facecolor": COOL, "alpha": 0.55}
            if row["on"] == PLAIN:
                looks = {"facecolor": LINE, "hatch": "////"}
            (bar,) = axes.barh(place, lost.value, height=0.66, linewidth=0, **looks)
            drawing.mark(bar, f"neurons of {name} on {row['on']}: {with_change(lost, 1)} % of the baseline lost")
            axes.plot([lost.low, lost.high], [place, place], color=INK, linewidth=1.1)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        category_rows(axes, [row["on"] for row in rows])
        found = found_of[name]
        selective = "" if found.selective_drop is None else f": {with_change(found.selective_drop, 2)}"
        axes.set_title(f"neurons of {name}{' (general)' if found.general else ''}{selective}", loc="left", fontsize=8.5)
        axes.grid(axis="x")
    panels[-1].set_xlabel("% of the baseline lost when masked")
    panels[-1].xaxis.set_major_locator(MaxNLocator(5))
    caption = (
        "Orange: the task whose neurons are masked; blue: the other tasks; hatched: plain text, the share of a token's "
        "probability. In the headings: the selective drop. Lines: 95 % intervals."
    )
    return Chart("What the masks cost elsewhere", caption, sheet(table, "selectivity"), drawing)


@mpl.rc_context(RC)
def selective_chart(comparison: Comparison) -> Chart | None:
    """The selective drop of each method's neurons, in the order of their drops; None where no other task was asked."""
    methods = [
        (m.method, m.selectivity, m.selectivity.selective_drop)
        for m in sorted(comparison.methods, key=lambda m: -m.absolute_drop.value)
        if m.selectivity is not None and m.selectivity.selective_drop is not None
    ]
    if not methods:
        return None
    drawing = Drawing(WIDTH, 0.27 * len(methods) + 0.65)
    axes = drawing.figure.subplots()
    for row, (method, found, selective) in enumerate(methods):
        looks: dict[str, Any] = {"facecolor": LINE, "hatch": "////"} if found.general else {"facecolor": WARM}
        (bar,) = axes.barh(row, selective.value, height=0.66, linewidth=0, **looks)
        said = f"{method}: selective drop {with_change(selective)}{', general' if found.general else ''}"
        drawing.mark(bar, said)
        axes.plot([selective.low, selective.high], [row, row], color=INK, linewidth=1.1)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    category_rows(axes, [method for method, *_ in methods])
    axes.set_xlabel("selective drop")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    others = count(len(methods[0][1].others), "other task")
    caption = (
        f"The share of {metric(comparison.metric_name)} that each method's neurons take, minus the largest share that "
        f"they take from {others}. Hatched: general. Lines: 95 % intervals."
    )
    task = comparison.task
    table = sheet(comparison.table("selectivity"), f"selective-{slug(task)}", f"{task}: what the same masks cost")
    return Chart(f"{task}: selective drop", caption, table, drawing)
