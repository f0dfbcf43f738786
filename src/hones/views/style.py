"""How charts look, on the page and on paper.

Categories differ in colour, marker and dash, so that grey print works. In the page, each colour becomes a CSS variable
that follows light and dark mode.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hones.palette import CATEGORIES, COOL, INK, LINE, MUTED, WARM
from hones.rivals.compare import HONES
from hones.stats import Interval
from hones.views.text import clean, one_line

WIDTH = 3.9  # inches, of charts that fill a column or a phone: at 400 pixels their text has 10 or more
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1)), "-", "--", ":")
Point = tuple[int | float, int | float, str]
"""x, y, and what the mark says."""
Look = tuple[str, str, Any]
"""Colour, marker and dashes."""
HONES_LOOK: Look = (WARM, "o", "-")

CSS_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    WARM: "var(--warm)",
    COOL: "var(--cool)",
    **{colour: f"var(--c{i})" for i, colour in enumerate(CATEGORIES)},
}

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "hatch.color": MUTED,
    "svg.fonttype": "none",
    "svg.hashsalt": "hones",
    "pdf.fonttype": 42,
}


class Drawing:
    """A figure of so many inches whose axes make room for their labels, and what each of its marks says."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.labels: dict[str, str] = {}

    def mark(self, artist: Artist, label: str) -> None:
        """Let an artist say something when it is pointed at."""
        gid = f"mark{len(self.labels)}"
        artist.set_gid(gid)
        artist.set_in_layout(False)  # inside the axes: measuring thousands of cells takes seconds
        self.labels[gid] = clean(label)

    def interval(self, axes: Axes, row: int | float, x: Interval, look: tuple[str, str], label: str) -> None:
        """A value with its interval in a row, of this colour and marker."""
        colour, marker = look
        axes.plot([x.low, x.high], [row, row], color=colour, linewidth=1.4, solid_capstyle="butt")
        (point,) = axes.plot(x.value, row, marker, color=colour, markersize=6)
        self.mark(point, label)

    def curve(self, axes: Axes, points: Sequence[Point], name: str, look: Look, width: float = 1.2) -> None:
        """One line with a mark at each of its points, and its entry in the legend."""
        colour, marker, dash = look
        xs, ys, _ = zip(*points, strict=True) if points else ((), (), ())
        axes.plot(xs, ys, color=colour, linestyle=dash, linewidth=width, zorder=2 + (look == HONES_LOOK))
        for x, y, label in points:
            (point,) = axes.plot(x, y, marker=marker, color=colour, linestyle="none", zorder=4)
            self.mark(point, label)
        axes.plot([], [], color=colour, marker=marker, linestyle=dash, label=one_line(name, 20))

    def budget_curves(self, curves: Mapping[str, Sequence[Point]], budgets: Sequence[float], level: float) -> Axes:
        """A curve for each method along budgets on a log scale, that of HONES apart; a dotted line at a level."""
        axes = self.figure.subplots()
        others = count()
        for method, points in curves.items():
            if method == HONES:
                self.curve(axes, points, method, HONES_LOOK, 2.4)
            else:
                self.curve(axes, points, method, look(next(others)))
        axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{b:.3g}" for b in budgets])
        axes.minorticks_off()
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        self.legend(3)
        return axes

    def legend(self, columns: int) -> None:
        """The legend in rows above the axes."""
        self.figure.legend(loc="outside upper left", ncols=min(columns, 4), handletextpad=0.4, columnspacing=1.4)


def category_rows(axes: Axes, names: Sequence[str]) -> None:
    """A horizontal chart's rows, first on top."""
    axes.set_yticks(range(len(names)), [one_line(name, 28) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)


def look(i: int) -> Look:
    """Colour, marker and dashes of the i-th of up to 64 curves, no two alike."""
    turn, place = divmod(i, 8)
    return CATEGORIES[place], MARKERS[(place + turn) % 8], DASHES[(place + turn + 1) % 8]
