"""Precision against budget: how much of what a method ranks first was planted."""

import matplotlib as mpl

from hones.benchmark.results import HONES, Leaderboard
from hones.palette import MUTED
from hones.views.charts import Chart
from hones.views.sheet import Sheet
from hones.views.style import HONES_LOOK, RC, WIDTH, Marks, curve, legend_above, look, new_figure
from hones.views.text import number


@mpl.rc_context(RC)
def precision_curves(board: Leaderboard, budgets: tuple[float, ...]) -> Chart:
    """Mean precision over cells at multiples of |P|, one curve per method, best first in the legend."""
    figure = new_figure(WIDTH, 3.9)
    marks = Marks()
    axes = figure.subplots()
    others = iter(range(len(board.standings)))
    for s in board.standings:
        points = [
            (budget, precision, f"{s.method} at {budget:g} |P|: precision {number(precision)}")
            for budget, precision in zip(budgets, s.curve, strict=True)
        ]
        if s.method == HONES:
            curve(axes, marks, points, s.method, HONES_LOOK, 2.4)
        else:
            curve(axes, marks, points, s.method, look(next(others)))
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
    table = Sheet(name, "Precision along budgets", ("method", "neurons over |P|", "precision"), rows)
    caption = "Share of planted neurons among a method's first ones; mean over cells. Dotted: chance "
    caption += f"({number(board.chance)})."
    return Chart(name, f"Precision against budget, models to {board.role} on", caption, table, figure, marks.labels)
