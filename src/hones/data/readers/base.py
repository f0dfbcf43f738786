"""What a reader is: it recognises the content of one published format and turns its rows into unified ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hones.data.sources import Content, Source
from hones.data.unified import UNREADABLE, Item, LeftOut

Pictures = Callable[[Sequence[Item]], Path]


@dataclass(frozen=True)
class Reading:
    """A source's rows in the unified format, to be validated.

    rows: dicts, or what is left out. also: SHA-256 of further files that were read. sha256: of the data, where it is
    not of the source's files. file: what is read again instead of the source. pictures: puts the pictures of the items
    it is given into a folder, where the source holds them itself.
    """

    rows: Iterable[Any]
    also: tuple[str, ...] = ()
    file: Path | None = None
    sha256: str | None = None
    pictures: Pictures | None = field(default=None, repr=False)


class Reader(ABC):
    """One format. options: the names it understands after `?`."""

    name: ClassVar[str]
    about: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def claims(self, content: Content, source: Source) -> bool:
        """Whether the content has this format's fields."""

    @abstractmethod
    def read(self, content: Content, source: Source) -> Reading:
        """The rows in file order.

        Raises:
            HonesError: the content lacks what the format consists of, or an option has no such value.
        """


def rows_of(content: Content, key: str) -> list[Any]:
    """The list under `key` of a JSON object, empty where there is none."""
    found = content.value.get(key) if content.kind == "json" and isinstance(content.value, dict) else None
    return found if isinstance(found, list) else []


def any_has(rows: Iterable[Any], *keys: str) -> bool:
    """Whether some row is an object with all these keys."""
    return any(isinstance(row, dict) and all(key in row for key in keys) for row in rows)


def unreadable(name: Any, reason: str) -> LeftOut:
    """A row of a source that lacks what its format says, by name."""
    return LeftOut(str(name), reason, UNREADABLE)


def most_common(answers: Sequence[str]) -> str:
    """The answer given most often, the first such in order."""
    return max(answers, key=answers.count)


def name_of(row: Any, position: int, *keys: str) -> str:
    """The first of these fields that a row has, else its number in the file."""
    found = next((row[key] for key in keys if isinstance(row.get(key), str | int)), None) if is_object(row) else None
    return f"#{position}" if found is None else str(found)


def is_object(row: Any) -> bool:
    """Whether a row is a JSON object."""
    return isinstance(row, dict)


def texts(value: Any) -> list[str] | None:
    """The value if it is a list of texts that is not empty."""
    good = isinstance(value, list) and value and all(isinstance(one, str) for one in value)
    return value if good else None
