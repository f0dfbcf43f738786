"""A benchmark as a page of markdown: leaderboards, the tasks of each model, one task in detail, and how to read it."""

from collections.abc import Sequence
from pathlib import Path

from hones.benchmark.chart import precision_curves
from hones.benchmark.results import FURTHER, SHARED, WHAT_INTERVALS_ARE, Benchmark, Row, best_first
from hones.benchmark.variants import REPORT
from hones.files import write_bytes
from hones.tabular import Column, Table
from hones.views.markdown import markdown
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
    first = benchmark.cells[0]
    parts = [
        "# Leaderboard: who finds the planted neurons?\n",
        f"Written by `{command}`; docs/benchmark.md says what the columns mean and what they cannot tell.",
        f"Neurons are found on {first.items} items per seed and masked on {first.test_items} others, the same for all.",
        f"{WHAT_INTERVALS_ARE}.\n",
    ]
    charts = []
    for board in benchmark.leaderboards:
        chart = file.with_name(f"{file.stem}-{board.role}.svg")
        write_bytes(chart, figure_svg(precision_curves(board, benchmark.budgets)))
        charts.append(chart)
        parts += [
            f"## {_HEADINGS[board.role]}\n",
            markdown(board.table()),
            f"{', '.join(board.models)}; {', '.join(board.tasks)}; seeds {', '.join(map(str, board.seeds))}. "
            f"Chance: precision {number(board.chance)}.",
        ]
        if refused := [f"{s.method}: {s.refused} of {s.cells}" for s in board.standings if s.refused]:
            parts.append(f"Cells without a ranking, scored as one without preference: {'; '.join(refused)}.")
        parts.append(f"\n![Precision against budget, models to {board.role} on]({chart.name})\n")
        for model in board.models:
            rows = [row for row in benchmark.rows if row.model == model]
            for task in dict.fromkeys(row.task for row in rows):
                parts.append(_details(benchmark, [row for row in rows if row.task == task]))
    write_bytes(file, "\n".join(parts).encode())
    return [file, *charts]


def _details(benchmark: Benchmark, rows: Sequence[Row]) -> str:
    """One task of one model; means over seeds, [smallest, largest]."""
    first = rows[0]
    sets = [*first.others]
    cells = [c for c in benchmark.cells if (c.model, c.task) == (first.model, first.task)]
    columns = (
        Column("method", "method"),
        Column("average_precision", "average precision", "interval"),
        Column("without_general", "without shared" if SHARED in sets else "", "interval"),
        Column("either", "either copy" if first.either is not None else "", "interval"),
        Column("precision", "precision at P", "interval"),
        Column("wide_recall", "recall at 10 P", "interval"),
        Column("drop", "drop", "interval"),
        *(column for name, column in FURTHER.items() if any(getattr(row, name) is not None for row in rows)),
        *(Column(name, name, "number", ".1f") for name in sets),
    )
    found = [vars(row) | row.others for row in best_first(rows)]
    planted = f"{cells[0].metric_name} {cells[0].baseline:.3f}, without P {cells[0].masked_planted:.3f}"
    title = f"### {first.model}, {first.task}: |P| = {first.planted}, {planted}\n"
    note = f"Mean [smallest, largest] over {first.seeds} seeds; drop: 95 % over test items and seeds."
    through = [cell.through for cell in cells if cell.through is not None]
    if through:
        share = sum(through) / len(through)
        note += f" P is read through heads of its own; {100 * share:.0f} % of them are critical heads."
    return "\n".join([title, markdown(Table("", "", columns, found)), f"{note}\n"])
