"""What a reader is: it recognises the content of one published format and turns its rows into unified ones.

A reader gives `each` the rows of its file by name and a function that makes one unified row of one of them. Where that
raises Unreadable, the row is left out with its reason: none is lost without a word.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.sources import Source
from hones.data.unified import UNREADABLE, Item, LeftOut, Row

Pictures = Callable[[Sequence[Item]], Path]


@dataclass(frozen=True)
class Reading:
    """A source's rows in the unified format, to be validated.

    rows: dicts, or what is left out. also: SHA-256 of further files that were read. sha256: of the data, where it is
    not of the source's files. file: what is read again instead of the source. pictures: puts the pictures of the items
    it is given into a folder, where the source holds them itself. remarks: what was read otherwise than it looks, once
    all rows were.
    """

    rows: Iterable[Any]
    also: tuple[str, ...] = ()
    file: Path | None = None
    sha256: str | None = None
    pictures: Pictures | None = field(default=None, repr=False)
    remarks: Sequence[LeftOut] = ()


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


class Unreadable(ValueError):
    """A row of a source that lacks what its format says."""


def each(rows: Iterable[tuple[str, Any]], unified: Callable[[str, Any], Row]) -> Iterator[Row]:
    """Every row, given by its name, in the unified format; or its name with the reason why it is none."""
    for name, row in rows:
        try:
            yield row if isinstance(row, LeftOut) else unified(name, row)
        except Unreadable as error:
            yield LeftOut(name, str(error), UNREADABLE)


def named(rows: Iterable[Any], *keys: str) -> Iterator[tuple[str, Any]]:
    """Every row by the first of these fields that it has, else by its number in the file."""
    for position, row in enumerate(rows):
        names = (row[key] for key in keys if isinstance(row.get(key), str | int)) if isinstance(row, dict) else ()
        yield str(next(iter(names), f"#{position}")), row


def value_of(row: Any, key: str) -> Any:
    """The value of a row's field.

    Raises:
        Unreadable: it has none.
    """
    if not isinstance(row, dict) or key not in row:
        raise Unreadable(f"no {key}")
    return row[key]


def rows_of(content: Content, key: str) -> list[Any]:
    """The list under `key` of a JSON object, empty where there is none."""
    rows = content.value.get(key) if content.kind == "json" and isinstance(content.value, dict) else None
    return rows if isinstance(rows, list) else []


def any_has(rows: Iterable[Any], *keys: str) -> bool:
    """Whether some row is an object with all these keys."""
    return any(isinstance(row, dict) and all(key in row for key in keys) for row in rows)


def most_common(answers: Sequence[str]) -> str:
    """The answer given most often, the first such in order."""
    return max(answers, key=answers.count)


def question_about(question: Any, answers: list[str]) -> dict[str, Any]:
    """The fields of a question that is answered by reading: for vqa, and for ocr in place of a box."""
    answer = most_common(answers)
    return {
        "vqa": {"question": question, "answer": answer, "all_answers": answers},
        "ocr": {"question": question, "text": answer, "all_texts": answers},
    }
