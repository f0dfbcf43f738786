"""Precision against budget: how much of what a method ranks first was planted."""

import matplotlib as mpl

from hones.benchmark.results import Leaderboard
from hones.views.charts import Chart
from hones.views.sheet import Sheet
from hones.views.style import RC, Drawing
from hones.views.text import number


@mpl.rc_context(RC)
def precision_curves(board: Leaderboard, budgets: tuple[float, ...]) -> Chart:
    """Mean precision over cells at multiples of |P|, one curve per method, best first in the legend."""
    drawing = Drawing(4.4, 3.9)
    curves = {
        s.method: [
            (budget, precision, f"{s.method} at {budget:g} |P|: precision {number(precision)}")
            for budget, precision in zip(budgets, s.curve, strict=True)
        ]
        for s in board.standings
    }
    axes = drawing.budget_curves(curves, budgets, board.chance)
    axes.set(xlabel="neurons taken, multiples of |P| (log scale)", ylabel="precision", ylim=(0, 1.02))
    rows = tuple((s.method, x, y) for s in board.standings for x, y in zip(budgets, s.curve, strict=True))
    table = Sheet(
        f"precision-{board.role}", "Precision along budgets", ("method", "neurons over |P|", "precision"), rows
    )
    caption = "Share of planted neurons among a method's first ones; mean over cells. Dotted: chance "
    caption += f"({number(board.chance)})."
    return Chart(f"Precision against budget, models to {board.role} on", caption, table, drawing)
