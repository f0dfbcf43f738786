"""A table on a page: shown with rounded numbers, downloaded as CSV with all their digits."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hones.runs.answer_table import Answers
from hones.tabular import Column, Table, ends
from hones.views.text import clean, group_name, metric, token_text

Cell = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Sheet:
    """Rows under named columns; the first cell of a row names it. name: of the CSV file."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def csv(self) -> str:
        """RFC 4180. Text that a spreadsheet would take for a formula is preceded by an apostrophe."""
        file = io.StringIO()
        csv.writer(file).writerows([[_csv_cell(cell) for cell in row] for row in (self.columns, *self.rows)])
        return file.getvalue()

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return bool(self.rows) and not any(isinstance(row[column], str) for row in self.rows)

    @property
    def download(self) -> str:
        """The CSV as the address of a download link."""
        return f"data:text/csv;charset=utf-8,{quote(self.csv())}"


def _csv_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        text = clean(cell)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return "" if cell is None else repr(cell)


def sheet(table: Table, name: str = "", caption: str = "") -> Sheet:
    """The columns of a table that people read, an interval as three; under another name and caption where given."""
    headings: list[str] = []
    for column in table.headed:
        heading = column.full or column.heading
        headings += [heading, f"{heading} low", f"{heading} high"] if column.kind == "interval" else [heading]
    rows = tuple(
        tuple(cell for column in table.headed for cell in _cells(column, row.get(column.name))) for row in table.rows
    )
    return Sheet(name or table.name, caption or table.title, tuple(headings), rows)


def answers_csv(several: Sequence[Answers]) -> str:
    """The answers of some tasks, a row per item, two columns per arm: what was said, and its score."""
    arms = dict.fromkeys(arm for answers in several for item in answers.items for arm in item.answers)
    heading = ("task", "split", "item", "picture", "prompt", "target", "references")
    columns = (*heading, *(name for arm in arms for name in (arm, f"{arm} score")))
    rows: list[tuple[Cell, ...]] = []
    for answers in several:
        for item in answers.ordered:
            asked = (item.picture, item.prompt, item.wanted, " | ".join(item.references))
            given = [item.answers.get(arm) for arm in arms]
            cells = [cell for x in given for cell in ((None, None) if x is None else (x.answer, x.score))]
            rows.append((answers.task, item.split, item.id, *asked, *cells))
    return Sheet("answers", "", columns, tuple(rows)).csv()


def _cells(column: Column, value: Any) -> tuple[Cell, ...]:
    match column.kind:
        case "interval":
            return ends(value)
        case "tasks":
            return (group_name(value),)
        case "metric":
            return (metric(value),)
        case "tokens":
            return ("  ".join(map(token_text, value)),)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value if value is None or number else column.text(value),)
