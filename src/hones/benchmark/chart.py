"""Precision against budget: how much of what a method ranks first was planted."""

import matplotlib as mpl

from hones.benchmark.results import HONES, Leaderboard
from hones.views.charts import Chart
from hones.views.style import MUTED, RC, WARM, WIDTH, Marks, legend_above, look, new_figure
from hones.views.table import Table
from hones.views.text import number, one_line


@mpl.rc_context(RC)
def precision_curves(board: Leaderboard, budgets: tuple[float, ...]) -> Chart:
    """Mean precision over cells at multiples of |P|, one curve per method, best first in the legend."""
    figure, marks = new_figure(WIDTH, 3.9), Marks()
    axes = figure.subplots()
    others = iter(range(len(board.standings)))
    for s in board.standings:
        ours = s.method == HONES
        colour, marker, dash = (WARM, "o", "-") if ours else look(next(others))
        axes.plot(budgets, s.curve, color=colour, linestyle=dash, linewidth=2.4 if ours else 1.2, zorder=2 + ours)
        for x, y in zip(budgets, s.curve, strict=True):
            (point,) = axes.plot(x, y, marker=marker, color=colour, linestyle="none", zorder=4)
            marks.add(point, f"{s.method} at {x:g} |P|: precision {number(y)}")
        axes.plot([], [], color=colour, marker=marker, linestyle=dash, label=one_line(s.method, 20))
    axes.axhline(board.chance, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{b:g}" for b in budgets])
    axes.minorticks_off()
    axes.set(xlabel="neurons taken, multiples of |P| (log scale)", ylabel="precision", ylim=(0, 1.02))
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    legend_above(figure, 3)
    rows = tuple((s.method, x, y) for s in board.standings for x, y in zip(budgets, s.curve, strict=True))
    name = f"precision-{board.role}"
    table = Table(name, "Precision along budgets", ("method", "neurons over |P|", "precision"), rows)
    caption = "Share of planted neurons among a method's first ones; mean over cells. Dotted: chance "
    caption += f"({number(board.chance)})."
    return Chart(name, f"Precision against budget, models to {board.role} on", caption, table, figure, marks.labels)
