"""A table: CSV, JSON lines, or a JSON list of objects, alone or in the folder of its pictures.

Columns by these names; `?question=query` says that another name stands for `question`:

    image             the picture: a file name in the picture folder
    id                the item's id; else the picture's name, from its second row on with #2, #3, ..., or of a text the
                      row's number
    question, answer, answers       vqa; answers: all annotators', a list
    caption, captions               caption and retrieval; captions: a list
    text, bbox                      ocr; bbox: x, y, width, height in stored pixels
    width, height                   of the stored picture: what bbox was measured on

A table without a column `image` holds items of text alone, for custom tasks; it needs `question` with `answer` or
`answers`, or to be asked for by `?format=table`. Such an item also has all further columns, under their own names.

Every row is one item. A list in a CSV cell is a JSON list, `["a cat", "cat"]`; a bbox may also be four numbers with
spaces or commas. An empty cell is no annotation.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading, Unreadable, most_common
from hones.data.sources import Source
from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError

COLUMNS = ("image", "id", "question", "answer", "answers", "caption", "captions", "text", "bbox", "width", "height")
_ANNOTATIONS = ("question", "caption", "captions", "text")
_OF_ITEMS = frozenset(("image_id", "item_id", "image_info", "vqa", "captions", "ocr", "retrieval"))
_BETWEEN_NUMBERS = re.compile(r"[\s,;]+")


class Table(Reader):
    """A table in a file; the rows of a dataset are read by the same columns (`hones.data.readers.hub`)."""

    name: ClassVar[str] = "table"
    about: ClassVar[str] = "a CSV or JSON lines file with the columns image and question, caption or text"
    options: ClassVar[tuple[str, ...]] = COLUMNS

    def claims(self, content: Content, source: Source) -> bool:
        """Whether the columns hold a picture and an annotation, or a question and its answer."""
        if not isinstance(content.value, list):
            return False
        columns = _present(source.options, set(_columns(content)))
        if "image" in columns:
            return any(name in columns for name in _ANNOTATIONS)
        return "question" in columns and ("answer" in columns or "answers" in columns)

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


def columns_of(options: Mapping[str, str], present: Sequence[str], what: str) -> dict[str, str]:
    """The column that stands for each name.

    Raises:
        HonesError: a column named in an option is not there, or there is a picture without an annotation.
    """
    if not present:
        raise HonesError(f"{what} has no columns", expected="some with annotations")
    listed = f"it has {', '.join(map(repr, present))}"
    for name in COLUMNS:
        if name in options and options[name] not in present:
            raise HonesError(f"{what} has no column {options[name]!r}", expected=f"a column for {name}", do=listed)
    columns = _present(options, present)
    if "image" in columns and not any(name in columns for name in _ANNOTATIONS):
        wanted = "one of question, caption, captions and text, or ?question=COLUMN"
        raise HonesError(f"{what} has no column with annotations", expected=wanted, do=listed)
    return columns


def _present(options: Mapping[str, str], present: Iterable[str]) -> dict[str, str]:
    chosen = {name: options.get(name, name) for name in COLUMNS}
    return {name: column for name, column in chosen.items() if column in present}


def unified_rows(rows: Iterable[Any], columns: Mapping[str, str]) -> Iterator[Row]:
    """Every row of a table as a unified row; those that cannot be read are named."""
    times: Counter[str] = Counter()
    for position, row in enumerate(rows):
        if isinstance(row, LeftOut):
            yield row
            continue
        name = f"#{position}"
        try:
            if not isinstance(row, Mapping):
                raise Unreadable("no object")
            values = {key: row.get(column) for key, column in columns.items()}
            cells = {key: value for key, value in values.items() if value is not None and value != ""}
            picture = cells.get("image")
            if isinstance(picture, str):
                times[picture] += 1
                name = f"{picture}#{times[picture]}" if times[picture] > 1 else picture
            name = cells.get("id", name)
            if "image" not in columns:
                own = {key: value for key, value in row.items() if key not in _OF_ITEMS}
                yield own | {"item_id": str(name), **_fields(cells)}
            elif isinstance(picture, str):
                size = {key: cells[key] for key in ("width", "height") if key in cells}
                info = {"file_name": picture, **size}
                yield {"image_id": picture, "item_id": name, "image_info": info, **_fields(cells)}
            else:
                raise Unreadable("no picture")
        except Unreadable as error:
            yield LeftOut(str(name), str(error), UNREADABLE)


def _fields(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of one row.

    Raises:
        Unreadable: a cell is not what its column's name says.
    """
    fields: dict[str, Any] = {}
    if "question" in cells:
        answers = _texts(cells, "answers", "answer")
        answer = cells.get("answer", most_common(answers) if answers else "")
        fields["vqa"] = {"question": cells["question"], "answer": answer, "all_answers": answers or [answer]}
    captions = [*([cells["caption"]] if "caption" in cells else []), *_texts(cells, "captions", "caption")]
    if captions:
        fields["captions"] = [{"caption": caption} for caption in captions]
    if "text" in cells or "bbox" in cells:
        if "text" not in cells or "bbox" not in cells:
            raise Unreadable("text without bbox" if "text" in cells else "bbox without text")
        fields["ocr"] = {"text": cells["text"], "bbox": _box(cells["bbox"])}
    return fields


def _texts(cells: Mapping[str, Any], name: str, field: str) -> list[str]:
    """The list in a cell: texts, or objects with the text in `field`.

    Raises:
        Unreadable: it is none.
    """
    if name not in cells:
        return []
    texts: list[Any] = [x.get(field) if isinstance(x, Mapping) else x for x in _list(cells[name], name)]
    if not all(isinstance(text, str) for text in texts):
        raise Unreadable(f"{name} is no list of texts")
    return texts


def _box(value: Any) -> list[Any]:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [part for part in _BETWEEN_NUMBERS.split(value.strip()) if part]
    return _list(value, "bbox")


def _list(value: Any, name: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list):
        raise Unreadable(f"{name} is no list")
    return value
