"""Sets kept alone along budgets, as a chart."""

import matplotlib as mpl

from hones.palette import WARM
from hones.rivals.both_results import BothDirections
from hones.rivals.compare import HONES
from hones.views.charts import Chart
from hones.views.sheet import sheet
from hones.views.style import RC, WIDTH, Drawing
from hones.views.text import count, metric, slug, with_interval


@mpl.rc_context(RC)
def kept_curves(both: BothDirections) -> Chart:
    """The faithfulness of each method's set, kept alone, along budgets."""
    drawing = Drawing(WIDTH, 3.4)
    curves = {}
    for c in both.curves:
        points = zip(c.ratios, c.neurons, c.faithfulness, strict=True)
        curves[c.method] = [
            (
                100 * ratio,
                share.value,
                f"{c.method} at {100 * ratio:.3g} % ({count(neurons, 'neuron')}): {with_interval(share, 2)}",
            )
            for ratio, neurons, share in points
            if share is not None
        ]
    budgets = sorted({100 * ratio for c in both.curves for ratio in c.ratios})
    axes = drawing.budget_curves(curves, budgets, 1.0)
    for c in both.curves:
        if c.method == HONES:
            known = [(100 * x, s.low, s.high) for x, s in zip(c.ratios, c.faithfulness, strict=True) if s is not None]
            places, lows, highs = zip(*known, strict=True)
            axes.fill_between(places, lows, highs, color=WARM, alpha=0.14, linewidth=0)
    axes.set(xlabel="neurons kept, % of all (log scale)", ylabel="faithfulness")
    others = "zero" if both.rest == "zero" else "at their means"
    caption = (
        f"The share of {metric(both.metric_name)} that a method's neurons bring back alone, all others {others}: 0 "
        f"with nothing kept ({with_interval(both.empty)}), 1 dotted, the whole model ({with_interval(both.whole)}). "
        "Shaded: HONES's 95 % intervals; those of the others are in the data, with CPR and CMD."
    )
    table = sheet(both.table("both"), f"kept-{slug(both.task)}", f"{both.task}: sets kept alone, and replaced")
    return Chart(f"{both.task}: kept alone", caption, table, drawing)
