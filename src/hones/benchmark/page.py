"""A benchmark as a page of markdown: leaderboards, the tasks of each model, one task in detail, and how to read it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hones.benchmark.aggregate import value_of
from hones.benchmark.chart import precision_curves
from hones.benchmark.results import HONES, SHARED, Benchmark, Leaderboard, Row, Spread, Standing
from hones.benchmark.tables import WHAT_INTERVALS_ARE, in_order
from hones.benchmark.variants import REPORT
from hones.files import write_bytes
from hones.stats import Interval
from hones.views.svg import figure_svg
from hones.views.text import number

_HEADINGS = {
    REPORT: "Models kept aside to report on",
    "select": "Models on which methods may be chosen",
}


def write_page(file: Path, benchmark: Benchmark, command: str) -> list[Path]:
    """Write the page and, beside it, a chart per leaderboard (SVG); returns the files.

    Args:
        command: what was called, for whoever wants to do it again.
    """
    written = [file]
    for board in benchmark.leaderboards:
        written.append(_chart_file(file, board))
        write_bytes(written[-1], figure_svg(precision_curves(board, benchmark.budgets)))
    write_bytes(file, page(file, benchmark, command).encode())
    return written


def _chart_file(file: Path, board: Leaderboard) -> Path:
    return file.with_name(f"{file.stem}-{board.role}.svg")


def page(file: Path, benchmark: Benchmark, command: str) -> str:
    """The page's text."""
    first = benchmark.cells[0]
    parts = [
        "# Leaderboard: who finds the planted neurons?\n",
        f"Written by `{command}`; docs/benchmark.md says what the columns mean and what they cannot tell.",
        f"Neurons are found on {first.items} items per seed and masked on {first.test_items} others, the same for all.",
        f"{WHAT_INTERVALS_ARE}.\n",
    ]
    for board in benchmark.leaderboards:
        parts += [f"## {_HEADINGS[board.role]}\n", _leaderboard(board), _picture(file, board)]
        for model in board.models:
            rows = [row for row in benchmark.rows if row.model == model]
            for task in dict.fromkeys(row.task for row in rows):
                parts.append(_details(benchmark, [row for row in rows if row.task == task]))
    return "\n".join(parts)


def _leaderboard(board: Leaderboard) -> str:
    columns = ("method", "average precision", "precision at P", "recall at 10 P", "drop per neuron, of P's")
    lines = [_line(s) for s in board.standings]
    refused = [f"{s.method}: {s.refused} of {s.cells}" for s in board.standings if s.refused]
    notes = [
        f"{', '.join(board.models)}; {', '.join(board.tasks)}; seeds {', '.join(map(str, board.seeds))}. "
        f"Chance: precision {number(board.chance)}."
    ]
    if refused:
        notes.append(f"Cells without a ranking, scored as one without preference: {'; '.join(refused)}.")
    return _table((*columns, f"average precision ahead of {HONES}", "p", "seconds", "of heads"), lines) + "\n".join(
        ["", *notes, ""]
    )


def _line(s: Standing) -> tuple[str, ...]:
    p = "" if s.p_value is None else "<.001" if s.p_value < 0.001 else f"{s.p_value:.3f}"
    shown = (_shown(x) for x in (s.average_precision, s.precision, s.wide_recall, s.relative))
    ahead = "" if s.ahead is None else _shown(s.ahead)
    return (s.method, *shown, ahead, p, f"{s.seconds:.1f}", f"{s.head_seconds:.1f}" if s.head_seconds else "")


def _picture(file: Path, board: Leaderboard) -> str:
    return f"![Precision against budget, models to {board.role} on]({_chart_file(file, board).name})\n"


def _details(benchmark: Benchmark, rows: Sequence[Row]) -> str:
    """One task of one model; means over seeds, [smallest, largest]."""
    first, sets = rows[0], [*rows[0].others]
    cell = next(c for c in benchmark.cells if (c.model, c.task) == (first.model, first.task))
    planted = f"{cell.metric_name} {cell.baseline:.3f}, without P {cell.masked_planted:.3f}"
    without = ("without shared",) if SHARED in sets else ()
    columns = ("method", "average precision", *without, "precision at P", "recall at 10 P", "drop")
    lines = []
    for row in (next(r for r in rows if r.method == method) for method in in_order(rows)):
        also = (row.without_general,) if without else ()
        shown = (_spread(x) for x in (row.average_precision, *also, row.precision, row.wide_recall))
        lines.append((row.method, *shown, _shown(row.drop), *(f"{row.others[name]:.1f}" for name in sets)))
    heads = ""
    found = [
        c.through for c in benchmark.cells if (c.model, c.task) == (first.model, first.task) and c.through is not None
    ]
    if found:
        heads = (
            f" P is read through heads of its own; {100 * sum(found) / len(found):.0f} % of them are critical heads."
        )
    title = f"### {first.model}, {first.task}: |P| = {first.planted}, {planted}\n"
    note = f"Mean [smallest, largest] over {first.seeds} seeds; drop: 95 % over test items and seeds.{heads}\n"
    return "\n".join([title, _table((*columns, *sets), lines), note])


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *lines)]
    return "\n".join(rows) + "\n"


def _shown(x: Interval | float | None) -> str:
    if x is None:
        return "–"
    return number(value_of(x)) + (f" [{number(x.low, 2)}, {number(x.high, 2)}]" if isinstance(x, Interval) else "")


def _spread(x: Spread) -> str:
    return f"{x.value:.3f} [{x.low:.2f}, {x.high:.2f}]"
