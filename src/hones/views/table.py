"""A table: shown in the page with rounded numbers, downloaded as CSV with all their digits."""

import csv
import io
from dataclasses import dataclass
from urllib.parse import quote

from hones.views.text import clean

Cell = str | int | float | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Table:
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
