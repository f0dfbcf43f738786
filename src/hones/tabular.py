"""A result as tables: what every medium draws from, and how a notebook shows it.

A result says `tables()`: titles, rows of plain values, and columns whose kind says how a value reads. Terminals, pages
and markdown have a renderer each in `hones.views`; HTML for notebooks and data frames for pandas are here, because
notebooks ask the object itself. pandas is imported only where it is asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from math import isnan
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.palette import shade
from hones.stats import Interval

Kind = Literal["name", "text", "number", "count", "interval", "p", "metric", "tasks", "layers", "tokens", "list"]
Row = Mapping[str, Any]
MOST_ROWS = 60


@dataclass(frozen=True)
class Column:
    """One value of every row.

    Args:
        name: of the value in a row, and of the column of a data frame.
        heading: what people read above it; "": data frames and notebooks only.
        full: the heading where there is room for more.
        kind: name (or an index; never broken), text (that wraps), number, count (of things), interval (an `Interval`,
            or a float without one), p, metric (its name), tasks (of a group), layers (a count per layer), tokens (their
            texts), list (of texts).
        form: format specification of its numbers. unit: follows them.
        beside, below: another value of the row that belongs to this one and stands with it where space is scarce.
        bold: the interval of the row that makes a cell stand out where it lies above zero.
        terse: of an interval, only its value where space is scarce. detail: left out there.
        missing: what stands for None.
    """

    name: str
    heading: str = ""
    kind: Kind = "name"
    form: str = ""
    unit: str = ""
    beside: str = ""
    below: str = ""
    bold: str = ""
    terse: bool = False
    detail: bool = False
    full: str = ""
    missing: str = ""

    def text(self, value: Any) -> str:
        """The value in the form of the column, as text on one line."""
        if value is None:
            return self.missing
        if self.kind == "p":
            return "p<.001" if value < 0.001 else f"p={value:.3f}".replace("0.", ".", 1)
        if self.kind == "tasks":
            return "+".join(value)
        if self.kind == "tokens":
            return " ".join(map(repr, value))
        if self.kind in ("layers", "list"):
            return ", ".join(map(str, value))
        if isinstance(value, Interval):
            return f"{value:{self.form or '.3f'}}{self.unit}" if not isnan(value.low) else self.text(value.value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:{self.form or '.3f'}}{self.unit}"
        return f"{value:,}{self.unit}" if self.kind == "count" else str(value)

    def frame(self, value: Any) -> dict[str, Any]:
        """The value as the columns of a data frame: three of an interval, one per layer, text for lists."""
        if self.kind == "interval":
            return dict(zip((self.name, f"{self.name}_low", f"{self.name}_high"), ends(value), strict=True))
        if self.kind == "layers":
            return {f"layer {layer}": count for layer, count in enumerate(value)}
        return {self.name: self.text(value) if self.kind in ("tasks", "tokens", "list") else value}


@dataclass(frozen=True)
class Table:
    """Rows under columns; a row may hold values that no column shows on its own.

    name: by which to ask for it, and of files. shown: how many rows suffice where space is scarce; None: all.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Row]
    caption: str = ""
    shown: int | None = None

    @property
    def headed(self) -> tuple[Column, ...]:
        """The columns that people read."""
        return tuple(column for column in self.columns if column.heading)


class Tabular(ABC):
    """A result that shows itself as tables, and that pandas can take."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """The result's tables, the most important first."""

    def table(self, name: str | None = None) -> Table:
        """One of the tables, by default the first.

        Raises:
            HonesError: there is no such table.
        """
        tables = {table.name: table for table in self.tables()}
        chosen = next(iter(tables)) if name is None else name
        if chosen not in tables:
            raise HonesError(f"no table {chosen!r}", expected=f"one of {', '.join(tables)}")
        return tables[chosen]

    def map_html(self) -> str:
        """HTML to show above the tables."""
        return ""

    def _repr_html_(self) -> str:
        return self.map_html() + "".join(table_html(table) for table in self.tables())

    def to_pandas(self, table: str | None = None) -> Any:
        """One of the tables as a DataFrame, by default the first.

        Raises:
            HonesError: pandas is not installed, or there is no such table.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError as error:
            raise HonesError("pandas is not installed", do="pip install pandas") from error
        return pandas.DataFrame(frame_rows(self.table(table)))


def frame_rows(table: Table) -> list[dict[str, Any]]:
    """The rows of a data frame."""
    return [
        {name: value for column in table.columns for name, value in column.frame(row.get(column.name)).items()}
        for row in table.rows
    ]


def ends(value: Interval | float | None) -> tuple[float | None, float | None, float | None]:
    """A value, its low and its high end; None for what is not known."""
    if not isinstance(value, Interval):
        return value, None, None
    low, high = (None if isnan(end) else end for end in (value.low, value.high))
    return value.value, low, high


def pivot(table: Table, title: str, across: str, cell: Column, heading: str, caption: str = "") -> Table:
    """Row values of the column `across` become columns that show `cell`; rows are told apart by the first column.

    Args:
        heading: of each new column, a format of a row's values.
    """
    first = table.columns[0]
    columns: dict[Any, Column] = {}
    rows: dict[Any, dict[str, Any]] = {}
    for row in table.rows:
        key = row[across]
        names = {part: f"{part} of {key}" for part in row}
        changed = {part: names[x] for part in ("name", "beside", "below", "bold") if (x := getattr(cell, part))}
        columns[key] = replace(cell, heading=heading.format(**row), **changed)
        rows.setdefault(row[first.name], dict(row)).update({names[part]: value for part, value in row.items()})
    return Table(table.name, title, (first, *columns.values()), [*rows.values()], caption)


def together(results: Iterable[tuple[str, Tabular]]) -> Table:
    """The first tables of a result of several tasks as one, whose rows name the task."""
    tables = [(task, result.table()) for task, result in results]
    rows = [{**row, "task": task} for task, table in tables for row in table.rows]
    items = sorted({row["items"] for row in rows})
    several = " to ".join(str(count) for count in dict.fromkeys((items[0], items[-1])))
    for row in rows:
        row["metric"] = row["metric_name"].removeprefix(f"{row['task']}_")
    first = tables[0][1]
    columns = (Column("task", "task", below="metric"), *first.columns)
    captions = dict.fromkeys(table.caption for _, table in tables)
    caption = first.caption if len(captions) == 1 else "\n".join(f"{task}: {table.caption}" for task, table in tables)
    return replace(first, title=f"{first.title}, {several} test items", columns=columns, rows=rows, caption=caption)


def table_html(table: Table, most: int = MOST_ROWS) -> str:
    """The first `most` rows as an HTML table; every text is escaped."""
    signed = [(column, "+" if column.form.startswith("+") else "") for column in table.columns]
    columns = [replace(column, form=f"{sign}.4g", unit="", missing="") for column, sign in signed]
    head = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(column.text(row.get(column.name)))}</td>" for column in columns) + "</tr>"
        for row in table.rows[:most]
    )
    more = f", the first {most} of {len(table.rows)}" if len(table.rows) > most else ""
    return (
        f"<table><caption>{escape(table.name)}{more}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def heat_map_html(values: Float[np.ndarray, "layers heads"], marked: Collection[tuple[int, int]], caption: str) -> str:
    """Layers by heads as coloured cells; hovering gives the number, a dot stands for a marked head.

    A cross is for NaN: no head.
    """
    strongest = float(np.nanmax(np.abs(values))) or 1.0
    head = "<th>layer</th>" + "".join(f"<th>{h}</th>" for h in range(values.shape[1]))
    lines = []
    for layer, row in enumerate(values):
        cells = "".join(
            f'<td title="layer {layer}, head {h}: {value:+.4g}" style="background:{shade(float(value) / strongest)};'
            f'color:black;text-align:center">{"●" if (layer, h) in marked else "&nbsp;"}</td>'
            if not np.isnan(value)
            else f'<td title="layer {layer} has no head {h}" style="text-align:center">×</td>'
            for h, value in enumerate(row)
        )
        lines.append(f"<tr><th>{layer}</th>{cells}</tr>")
    return (
        f"<table><caption>{escape(caption)}; ● critical; darkest: {strongest:.4g}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
