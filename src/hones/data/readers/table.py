"""A table: CSV, JSON lines, or a JSON list of objects, alone or in the folder of its pictures.

Columns by these names, whatever their case; `?question=query` says that the column `query` stands for `question`, and
for nothing else:

    image             the picture: a file name in the picture folder
    id                the item's id; else the picture's name, from its second row on with #2, #3, ..., or of a text the
                      row's number
    question, answer, answers       vqa; answers: all annotators', a list
    caption, captions               caption and retrieval; captions: a list
    text, bbox                      ocr; bbox: x, y, width, height in stored pixels; in a table with text alone a
                      picture shows one word, and is its own box
    width, height                   of the stored picture: what bbox was measured on

A table without a column `image` holds items of text alone, for custom tasks; it needs `question` with `answer` or
`answers`, or to be asked for by `?format=table`. Such an item also has all further columns, under their own names.

Every row is one item. A list in a CSV cell is a JSON list, `["a cat", "cat"]`, or one as programs write it; a bbox may
also be four numbers with spaces or commas. An empty cell is no annotation (`hones.data.readers.cells`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.delimited import is_picture_name
from hones.data.readers.base import Reader, Reading, Unreadable, most_common
from hones.data.readers.cells import as_box, as_text, as_texts, is_marked_missing, is_missing, is_truth, whole_with_gaps
from hones.data.sources import Source, is_picture_in_base64
from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError, shortened

COLUMNS = ("image", "id", "question", "answer", "answers", "caption", "captions", "text", "bbox", "width", "height")
_ANNOTATIONS = ("question", "caption", "captions", "text")
_OF_ITEMS = frozenset(("image_id", "item_id", "image_info", "vqa", "captions", "ocr", "retrieval"))
_MAY_BE_NUMBERS = ("id", "answer", "text")


class Table(Reader):
    """A table in a file; the rows of a dataset are read by the same columns (`hones.data.readers.hub`)."""

    name: ClassVar[str] = "table"
    about: ClassVar[str] = "a CSV or JSON lines file with the columns image and question, caption or text"
    options: ClassVar[tuple[str, ...]] = COLUMNS

    def claims(self, content: Content, source: Source) -> bool:
        """Whether the columns hold a picture and an annotation, or a question and its answer."""
        columns = _present(source.options, keys_of(content))
        if "image" in columns:
            return any(name in columns for name in _ANNOTATIONS)
        return "question" in columns and ("answer" in columns or "answers" in columns)

    def read(self, content: Content, source: Source) -> Reading:
        rows = objects_of(content)
        if rows is None:
            raise HonesError(f"{content.path} is no table", expected=self.about)
        columns = columns_of(source.options, keys_of(content), str(content.path))
        pictures = [row.get(columns["image"]) for row in rows if isinstance(row, dict)] if "image" in columns else []
        if any(isinstance(picture, str) and is_picture_in_base64(picture) for picture in pictures):
            raise HonesError(
                f"{content.path} holds its pictures itself, in base64 under {columns['image']!r}",
                expected="file names there",
                do="write the pictures into a folder first (docs/data.md has the lines)",
            )
        if "image" not in columns and source.format == "auto":
            _refuse_unclaimed_pictures(rows, content)
        remarks: list[LeftOut] = []
        if content.kind == "csv":
            rows = _as_meant(rows, columns, remarks)
        return Reading(unified_rows(rows, columns), remarks=remarks)


def _refuse_unclaimed_pictures(rows: Sequence[Any], content: Content) -> None:
    """Raises HonesError for a table that names pictures in a column which is not called `image`."""
    for column in keys_of(content):
        cells = [_alone(row[column]) for row in rows if isinstance(row, dict) and row.get(column)]
        if cells and all(isinstance(cell, str) and is_picture_name(cell) for cell in cells):
            raise HonesError(
                f"{content.path} holds pictures in {column!r}, and no column 'image'",
                do=f"write ?image={column}, or ?format=table for items of text alone",
            )


def _alone(cell: Any) -> Any:
    """The one picture of a list of one."""
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def objects_of(content: Content) -> list[Any] | None:
    """The rows of a table, a list of objects, or one object alone (a file of one line); None: it is none of them.

    An object of nothing but lists and objects is no row: rows lie in it, or columns.
    """
    if isinstance(content.value, list):
        return content.value
    is_object = isinstance(content.value, dict)
    alone = is_object and not all(isinstance(value, dict | list) for value in content.value.values())
    return [content.value] if alone else None


def keys_of(content: Content) -> list[str]:
    """The columns that a table has; of objects, all keys that one of them has."""
    if content.kind == "csv":
        return list(content.columns)
    return list(dict.fromkeys(key for row in objects_of(content) or () if isinstance(row, dict) for key in row))


def columns_of(options: Mapping[str, str], present: Sequence[str], what: str) -> dict[str, str]:
    """The column that stands for each name.

    Raises:
        HonesError: a column named in an option is not there, or there is a picture without an annotation.
    """
    if not present:
        raise HonesError(f"{what} has no columns", expected="some with annotations")
    listed = f"it has {', '.join(map(repr, present))}"
    columns = _present(options, present)
    missing = missing_column(options, present)
    if missing is not None:
        wanted = f"a column for {missing}"
        raise HonesError(f"{what} has no column {options[missing]!r}", expected=wanted, do=listed)
    if "image" in columns and not any(name in columns for name in _ANNOTATIONS):
        wanted = "one of question, caption, captions and text, or ?question=COLUMN"
        raise HonesError(f"{what} has no column with annotations", expected=wanted, do=listed)
    return columns


def missing_column(options: Mapping[str, str], present: Sequence[str]) -> str | None:
    """The first name that an option gives a column which is not there."""
    return next((name for name in COLUMNS if name in options and _called(options[name], present) is None), None)


def _present(options: Mapping[str, str], present: Sequence[str]) -> dict[str, str]:
    """The columns by what they stand for: as options say, and the others by their own names."""
    claimed = {name: column for name in options if name in COLUMNS if (column := _called(options[name], present))}
    own = {name: _called(name, present) for name in COLUMNS if name not in options}
    return {name: column for name in COLUMNS if (column := claimed.get(name) or _unclaimed(own.get(name), claimed))}


def _unclaimed(column: str | None, claimed: Mapping[str, str]) -> str | None:
    return column if column not in claimed.values() else None


def _called(name: str, present: Sequence[str]) -> str | None:
    """The column of that name, if need be in other case and with blanks around it."""
    if name in present:
        return name
    alike = [column for column in present if column.strip().lower() == name.strip().lower()]
    return alike[0] if len(alike) == 1 else None


def unified_rows(rows: Iterable[Any], columns: Mapping[str, str]) -> Iterator[Row]:
    """Every row of a table as a unified row; those that cannot be read are named."""
    words = not {"bbox", *_ANNOTATIONS} & {*columns} - {"text"}
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
            cells = {key: value for key, value in values.items() if not is_missing(value)}
            picture = _alone(cells.get("image"))
            if isinstance(picture, str):
                times[picture] += 1
                name = f"{picture}#{times[picture]}" if times[picture] > 1 else picture
            name = cells.get("id", name)
            fields = _fields(cells, words)
            if "image" not in columns:
                own = {key: value for key, value in row.items() if key not in _OF_ITEMS}
                yield own | {"item_id": str(name), **fields}
            elif isinstance(picture, str):
                size = {key: cells[key] for key in ("width", "height") if key in cells}
                info = {"file_name": picture, **size}
                yield {"image_id": picture, "item_id": name, "image_info": info, **fields}
            else:
                raise Unreadable("no picture" if picture is None else "its picture is no file name")
        except Unreadable as error:
            yield LeftOut(shortened(str(name)), str(error), UNREADABLE)


def _fields(cells: Mapping[str, Any], words: bool) -> dict[str, Any]:
    """The annotations of one row; words: whether the table is one of pictures of one word each.

    Raises:
        Unreadable: a cell is not what its column's name says.
    """
    fields: dict[str, Any] = {}
    plain = {name: as_text(cells[name], name) for name in ("question", "answer", "caption", "text") if name in cells}
    if "question" in plain:
        answers = as_texts(cells["answers"], "answers", "answer") if "answers" in cells else []
        answer = plain.get("answer", most_common(answers) if answers else "")
        fields["vqa"] = {"question": plain["question"], "answer": answer, "all_answers": answers or [answer]}
    captions = as_texts(cells["captions"], "captions", "caption") if "captions" in cells else []
    captions = [*([plain["caption"]] if "caption" in plain else []), *captions]
    if captions:
        fields["captions"] = [{"caption": caption} for caption in captions]
    if "bbox" in cells and "text" not in plain:
        raise Unreadable("bbox without text")
    if "bbox" in cells:
        fields["ocr"] = {"text": plain["text"], "bbox": as_box(cells["bbox"])}
    elif "text" in plain and "image" in cells:
        if not words:
            raise Unreadable("text without bbox")
        fields["ocr"] = {"text": plain["text"], "whole_picture": True}
    return fields


def _as_meant(rows: Sequence[Any], columns: Mapping[str, str], remarks: list[LeftOut]) -> list[Any]:
    """The rows of a CSV file without marks for nothing, and whole numbers as such; what that changed is remarked."""
    changed: dict[str, dict[str, str]] = {}
    for name, column in columns.items():
        cells = [row[column] for row in rows if isinstance(row, Mapping)]
        marks = [cell for cell in cells if is_marked_missing(name, cell)]
        changed[column] = dict.fromkeys(marks, "")
        if marks:
            remarks.append(
                LeftOut(f"column {column}", f"{len(marks)} cells are {marks[0]}, nothing", "mark for nothing")
            )
        if name == "answer" and is_truth(cells):
            reason = "all are True or False, and are read as these words; where yes and no are meant, write these"
            remarks.append(LeftOut(f"column {column}", reason, "truth values"))
        if name in _MAY_BE_NUMBERS and whole_with_gaps(cells):
            changed[column] |= {cell: cell.removesuffix(".0") for cell in cells if cell.endswith(".0")}
            reason = "whole numbers with .0, as pandas writes them where some are missing; read without"
            remarks.append(LeftOut(f"column {column}", reason, "whole numbers with .0"))
    if not any(changed.values()):
        return list(rows)
    return [
        row | {c: to[row[c]] for c, to in changed.items() if row[c] in to} if isinstance(row, dict) else row
        for row in rows
    ]
