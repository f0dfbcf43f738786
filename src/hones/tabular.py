"""Results as a notebook shows them: tables of plain rows, and a map of heads, as escaped HTML or as pandas frames.

A result gives its tables as lists of plain dicts; an `Interval` in a cell becomes "value [low, high]" in HTML and three
columns (x, x_low, x_high) in a frame. pandas is imported only where it is asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from html import escape
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.stats import Interval

Rows = list[dict[str, Any]]
MOST_ROWS = 60


class Tabular(ABC):
    """A result that a notebook shows as tables, and that pandas can take."""

    @abstractmethod
    def tables(self) -> dict[str, Rows]:
        """The result's tables by name, the most important first."""

    def map_html(self) -> str:
        """HTML to show above the tables."""
        return ""

    def _repr_html_(self) -> str:
        return self.map_html() + "".join(table_html(rows, name) for name, rows in self.tables().items())

    def to_pandas(self, table: str | None = None) -> Any:
        """One of the tables as a DataFrame, by default the first.

        Raises:
            HonesError: pandas is not installed, or there is no such table.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError as error:
            raise HonesError("pandas is not installed", do="pip install pandas") from error
        tables = self.tables()
        name = next(iter(tables)) if table is None else table
        if name not in tables:
            raise HonesError(f"no table {name!r}", expected=f"one of {', '.join(tables)}")
        return pandas.DataFrame([flat(row) for row in tables[name]])


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with every interval as three columns, its value under the interval's own name."""
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Interval):
            columns |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            columns[name] = value
    return columns


def table_html(rows: Rows, caption: str, most: int = MOST_ROWS) -> str:
    """The first `most` rows as an HTML table; every text is escaped."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell(row.get(name)))}</td>" for name in columns) + "</tr>" for row in rows[:most]
    )
    more = f", the first {most} of {len(rows)}" if len(rows) > most else ""
    return (
        f"<table><caption>{escape(caption)}{more}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def cell(value: Any) -> str:
    """A value as text: four significant digits, intervals in brackets, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, Interval):
        return f"{value.value:.4g} [{value.low:.4g}, {value.high:.4g}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def heat_map_html(values: Float[np.ndarray, "layers heads"], marked: Collection[tuple[int, int]], caption: str) -> str:
    """Layers by heads as coloured cells; hovering gives the number, a dot stands for a marked head."""
    strongest = float(np.abs(values).max()) or 1.0
    head = "<th>layer</th>" + "".join(f"<th>{h}</th>" for h in range(values.shape[1]))
    lines = []
    for layer, row in enumerate(values):
        cells = "".join(
            f'<td title="layer {layer}, head {h}: {value:+.4g}" style="background:{heat(float(value) / strongest)};'
            f'color:black;text-align:center">{"●" if (layer, h) in marked else "&nbsp;"}</td>'
            for h, value in enumerate(row)
        )
        lines.append(f"<tr><th>{layer}</th>{cells}</tr>")
    return (
        f"<table><caption>{escape(caption)}; ● critical; darkest: {strongest:.4g}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def heat(share: float) -> str:
    """White at 0, red at 1, blue at -1."""
    fade = round(245 * (1 - min(1.0, abs(share))) + 10)
    return f"rgb(235,{fade},{fade})" if share >= 0 else f"rgb({fade},{fade},235)"
