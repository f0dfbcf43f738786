"""Rows of a table, as cells or values, in the unified format.

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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hones.data.readers.base import most_common, unreadable
from hones.data.unified import LeftOut, Row
from hones.errors import HonesError

COLUMNS = (
    "image",
    "id",
    "question",
    "answer",
    "answers",
    "caption",
    "captions",
    "text",
    "bbox",
    "width",
    "height",
)
_ANNOTATIONS = ("question", "caption", "captions", "text")
_OF_ITEMS = frozenset(("image_id", "item_id", "image_info", "vqa", "captions", "ocr", "retrieval"))
_NUMBER = re.compile(r"[\s,;]+")


def columns_of(options: Mapping[str, str], present: Sequence[str], what: str) -> dict[str, str]:
    """The column that stands for each name.

    Raises:
        HonesError: a column named in an option is not there, or there is a picture without an annotation.
    """
    chosen = {name: options.get(name, name) for name in COLUMNS}
    listed = f"it has {', '.join(map(repr, present))}" if present else "it has none"
    for name in COLUMNS:
        if name in options and options[name] not in present:
            raise HonesError(f"{what} has no column {options[name]!r}", expected=f"a column for {name}", do=listed)
    found = {name: column for name, column in chosen.items() if column in present}
    if "image" not in found and not present:
        raise HonesError(f"{what} has no columns", expected="some with annotations")
    if "image" in found and not any(name in found for name in _ANNOTATIONS):
        wanted = "one of question, caption, captions and text, or ?question=COLUMN"
        raise HonesError(f"{what} has no column with annotations", expected=wanted, do=listed)
    return found


def has_columns(options: Mapping[str, str], present: Iterable[str]) -> bool:
    """Whether these columns hold a picture and an annotation, or a question and its answer."""
    names = set(present)
    if options.get("image", "image") not in names:
        asked = options.get("question", "question") in names
        return asked and any(options.get(x, x) in names for x in ("answer", "answers"))
    return options.get("image", "image") in names and any(options.get(x, x) in names for x in _ANNOTATIONS)


def unified_rows(rows: Iterable[Mapping[str, Any] | LeftOut], columns: Mapping[str, str]) -> Iterable[Row]:
    """Every row of a table as a unified row; those that cannot be read are named."""
    times: Counter[str] = Counter()
    for position, row in enumerate(rows):
        if isinstance(row, LeftOut):
            yield row
            continue
        cells = {name: row.get(column) for name, column in columns.items()}
        cells = {name: value for name, value in cells.items() if value is not None and value != ""}
        if "image" not in columns:
            yield _text_row(row, cells, f"#{position}")
            continue
        picture = cells.get("image")
        if not isinstance(picture, str):
            yield unreadable(cells.get("id", f"#{position}"), "no picture")
            continue
        times[picture] += 1
        repeated = f"{picture}#{times[picture]}" if times[picture] > 1 else picture
        try:
            fields = _fields(cells)
        except ValueError as error:
            yield unreadable(cells.get("id", repeated), str(error))
            continue
        size = {name: cells[name] for name in ("width", "height") if name in cells}
        info = {"file_name": picture, **size}
        yield {"image_id": picture, "item_id": cells.get("id", repeated), "image_info": info, **fields}


def _text_row(row: Mapping[str, Any], cells: Mapping[str, Any], number: str) -> Row:
    """A row without a picture: its annotations, and every column under its own name but those of items."""
    name = str(cells.get("id", number))
    try:
        fields = _fields(cells)
    except ValueError as error:
        return unreadable(name, str(error))
    return {key: value for key, value in row.items() if key not in _OF_ITEMS} | {"item_id": name, **fields}


def _fields(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations of one row.

    Raises:
        ValueError: a cell is not what its column's name says.
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
            raise ValueError("text without bbox" if "text" in cells else "bbox without text")
        fields["ocr"] = {"text": cells["text"], "bbox": _box(cells["bbox"])}
    return fields


def _texts(cells: Mapping[str, Any], name: str, field: str) -> list[str]:
    """The list in a cell: texts, or objects with the text in `field`.

    Raises:
        ValueError: it is none.
    """
    if name not in cells:
        return []
    value = _list(cells[name])
    if value is None:
        raise ValueError(f"{name} is no list")
    found: list[Any] = [one.get(field) if isinstance(one, Mapping) else one for one in value]
    if not all(isinstance(one, str) for one in found):
        raise ValueError(f"{name} is no list of texts")
    return found


def _box(value: Any) -> Any:
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [part for part in _NUMBER.split(value.strip()) if part]
    box = _list(value)
    if box is None:
        raise ValueError("bbox is no list")
    return box


def _list(value: Any) -> list[Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None
