"""A benchmark in the terminal: a leaderboard per role, average precision per task, and one task in detail."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hones.benchmark.aggregate import value_of
from hones.benchmark.results import HONES, Benchmark, Leaderboard, Row, Standing
from hones.stats import Interval

WHAT_INTERVALS_ARE = (
    "95 % intervals over (model, task) pairs and, within each, seeds: for plants of this kind, not for models at large"
)


def leaderboard_table(board: Leaderboard) -> Table:
    """One row per method, best average precision first."""
    where = f"{len(board.models)} models x {len(board.tasks)} tasks x {len(board.seeds)} seeds"
    table = Table(title=f"Leaderboard, models to {board.role} on: {where}", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("avg. precision", "P at |P|", "recall at 10|P|", "drop/neuron", f"ahead of {HONES}"):
        table.add_column(heading, no_wrap=True)
    table.add_column("sec", no_wrap=True, justify="right")
    for s in board.standings:
        table.add_row(
            Text.assemble(s.method, (f"\n{s.refused} of {s.cells} refused" if s.refused else "", "dim")),
            *(_stacked(x) for x in (s.average_precision, s.precision, s.wide_recall, s.relative)),
            _ahead(s),
            Text.assemble(_seconds(s.seconds), (f"\n+{_seconds(s.head_seconds)}" if s.head_seconds else "", "dim")),
        )
    table.caption = (
        f"{WHAT_INTERVALS_ARE}. P, recall: of the planted set P, at |P| the same number; chance {board.chance:.3f}. "
        "drop/neuron: over that of P. sec: of the ranking, + of the heads it needs"
    )
    return table


def task_table(benchmark: Benchmark, model: str) -> Table:
    """Average precision, and precision at |P|, of every method on each task of a model, mean over seeds."""
    rows = [row for row in benchmark.rows if row.model == model]
    tasks = [*dict.fromkeys(row.task for row in rows)]
    table = Table(title=f"{model}: average precision, precision at |P|", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    planted = {row.task: row.planted for row in rows}
    for task in tasks:
        table.add_column(f"{task}, |P| = {planted[task]}", no_wrap=True)
    for method in in_order(rows):
        cells = {row.task: row for row in rows if row.method == method}
        shown = (f"{cells[t].average_precision.value:.3f}  {cells[t].precision.value:.2f}" for t in tasks)
        table.add_row(method, *shown)
    table.caption = "mean over seeds"
    return table


def in_order(rows: Sequence[Row]) -> list[str]:
    """The methods of some rows, best mean average precision first."""
    methods = [*dict.fromkeys(row.method for row in rows)]
    mean = {m: [r.average_precision.value for r in rows if r.method == m] for m in methods}
    return sorted(methods, key=lambda m: -sum(mean[m]) / len(mean[m]))


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:.1f}"


def _stacked(x: Interval | float | None) -> str:
    if x is None:
        return "-"
    return f"{value_of(x):.3f}" + (f"\n[{x.low:.2f}, {x.high:.2f}]" if isinstance(x, Interval) else "")


def _ahead(s: Standing) -> Text:
    if s.ahead is None or s.p_value is None:
        return Text("")
    p = "p<.001" if s.p_value < 0.001 else f"p={s.p_value:.3f}".replace("0.", ".", 1)
    bold = s.ahead.low > 0
    text = f"{s.ahead.value:+.3f} {p}\n[{s.ahead.low:+.2f}, {s.ahead.high:+.2f}]"
    return Text(text, style="bold" if bold else "")
