"""A table of pictures: CSV, JSON lines, or a JSON list of objects, alone or in the folder of its pictures."""

from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading
from hones.data.readers.columns import COLUMNS, columns_of, has_columns, unified_rows
from hones.data.sources import Source
from hones.errors import HonesError


class Table(Reader):
    """Columns and their names: `hones.data.readers.columns`."""

    name: ClassVar[str] = "table"
    about: ClassVar[str] = "a CSV or JSON lines file with the columns image and question, caption or text"
    options: ClassVar[tuple[str, ...]] = COLUMNS

    def claims(self, content: Content, source: Source) -> bool:
        return isinstance(content.value, list) and has_columns(source.options, _columns(content))

    def read(self, content: Content, source: Source) -> Reading:
        if not isinstance(content.value, list):
            raise HonesError(f"{content.path} is no table", expected=self.about)
        return Reading(unified_rows(content.value, columns_of(source.options, _columns(content), str(content.path))))


def _columns(content: Content) -> list[str]:
    """The columns that a table has; of objects, all keys that one of them has."""
    if content.kind == "csv":
        return list(content.columns)
    rows: list[Any] = content.value
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
