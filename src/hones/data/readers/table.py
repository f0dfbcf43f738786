"""A table of pictures: CSV, JSON lines, or a JSON list of objects, alone or in the folder of its pictures."""

from typing import Any, ClassVar

from hones.data.readers.base import Reader, Reading, is_object, unreadable
from hones.data.readers.columns import COLUMNS, columns_of, has_columns, unified_rows
from hones.data.sources import Content, Source
from hones.data.unified import LeftOut
from hones.errors import HonesError


class Table(Reader):
    """Columns and their names: `hones.data.readers.columns`."""

    name: ClassVar[str] = "table"
    about: ClassVar[str] = "a CSV or JSON lines file with the columns image and question, caption or text"
    options: ClassVar[tuple[str, ...]] = COLUMNS

    def claims(self, content: Content, source: Source) -> bool:
        rows = _objects(content)
        return rows is not None and has_columns(source.options, _present(content, rows))

    def read(self, content: Content, source: Source) -> Reading:
        rows = _objects(content)
        if rows is None:
            raise HonesError(f"{content.path} is no table", expected=self.about)
        columns = columns_of(source.options, _present(content, rows), str(content.path))
        named = [
            row if is_object(row) or isinstance(row, LeftOut) else unreadable(f"#{position}", "no object")
            for position, row in enumerate(rows)
        ]
        return Reading(unified_rows(named, columns))


def _objects(content: Content) -> list[Any] | None:
    return content.value if content.kind in ("csv", "lines", "json") and isinstance(content.value, list) else None


def _present(content: Content, rows: list[Any]) -> list[str]:
    """The columns that a table has; of objects, all keys that one of them has."""
    if content.kind == "csv":
        return list(content.columns)
    return list(dict.fromkeys(key for row in rows if is_object(row) for key in row))
