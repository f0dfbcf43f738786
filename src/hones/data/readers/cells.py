"""What programs write into cells: lists in three spellings, numbers and truth values as answers, marks for nothing.

a list          JSON ["a cat", "cat"], Python's ['a cat', 'cat'] (pandas), numpy's ['a cat' 'cat']
a number        as JSON has it, a whole one without its ".0": 3.0 is 3
true, false     yes, no: the answers that vqa files have
nothing         null, NaN, and in a CSV file the marks of `MISSING`
"""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from hones.data.readers.base import Unreadable

MISSING = frozenset(("nan", "NaN", "<NA>", "null", "NULL", "#N/A", "None"))
MAY_BE_WORDS = frozenset(("None", "null", "NULL"))  # in an answer, say: these are kept there
WORDED = frozenset(("answer", "text", "caption", "question"))
_BETWEEN_NUMBERS = re.compile(r"[\s,;]+")
_WHOLE = re.compile(r"-?\d+\.0")


def is_missing(value: Any) -> bool:
    """Whether a cell of any file holds nothing: null, NaN, no text."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def is_marked_missing(name: str, cell: Any) -> bool:
    """Whether a cell of a CSV file, in the column of that name, has a mark for nothing."""
    return cell in MISSING and not (name in WORDED and cell in MAY_BE_WORDS)


def whole_with_gaps(cells: Sequence[str]) -> bool:
    """Whether a column holds whole numbers as pandas writes them where some are missing: all with `.0`, and gaps."""
    filled = [cell for cell in cells if cell and cell not in MISSING]
    return 0 < len(filled) < len(cells) and all(_WHOLE.fullmatch(cell) for cell in filled)


def is_truth(cells: Sequence[str]) -> bool:
    """Whether a column holds truth values as pandas and Excel write them."""
    filled = {cell for cell in cells if cell and cell not in MISSING}
    return bool(filled) and (filled <= {"True", "False"} or filled <= {"TRUE", "FALSE"})


def as_text(value: Any, name: str) -> str:
    """A text; a number or truth value as the text that people would write.

    Raises:
        Unreadable: it is none of them.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, list) and name in ("answer", "caption"):
        raise Unreadable(f"{name} is a list: ?{name}s=COLUMN reads lists")
    raise Unreadable(f"{name} is {'a list' if isinstance(value, list) else 'no text or number'}")


def texts(value: Any) -> list[str] | None:
    """The value as texts if it is a list of texts, numbers and truth values that is not empty."""
    if not isinstance(value, list) or not value:
        return None
    try:
        return [as_text(one, "one of them") for one in value]
    except Unreadable:
        return None


def answers_of(row: Any) -> list[str]:
    """The answers of a published question.

    Raises:
        Unreadable: there are none, as in test sets, or they are no list of texts.
    """
    given = row.get("answers") if isinstance(row, Mapping) else None
    if is_missing(given) or given == []:
        raise Unreadable("no answers")
    answers = texts(given)
    if answers is None:
        raise Unreadable("its answers are no list of texts")
    return answers


def as_texts(cell: Any, name: str, field: str) -> list[str]:
    """The list in a cell: texts, objects with the text in `field`, or one object with a list there, as `datasets` has
    lists of objects; nothing among them is passed over.

    Raises:
        Unreadable: it is none.
    """
    cell = cell.get(field, cell.get("text")) if isinstance(cell, Mapping) else cell
    listed = as_list(cell, name)
    if any(isinstance(row, Mapping) and not {field, "text"} & {*row} for row in listed):
        raise Unreadable(f"an object among its {name} has no {field!r}")
    inner = [row.get(field, row.get("text")) if isinstance(row, Mapping) else row for row in listed]
    try:
        return [as_text(value, name) for value in inner if not is_missing(value)]
    except Unreadable as error:
        raise Unreadable(f"{name} is no list of texts") from error


def as_box(value: Any) -> list[Any]:
    """x, y, width, height: a list, or four numbers with spaces or commas."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [part for part in _BETWEEN_NUMBERS.split(value.strip("() ")) if part]
    return as_list(value, "bbox")


def as_list(value: Any, name: str) -> list[Any]:
    """The list in a cell, in any of the three spellings.

    Raises:
        Unreadable: it is none.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = _python_list(value)
    if not isinstance(value, list):
        raise Unreadable(f'{name} is no list: write it as JSON, ["a cat", "cat"]')
    return value


def _python_list(text: str) -> Any:
    """A list as Python or numpy prints it; None where it is neither.

    Texts with nothing between them are numpy's way to print two; Python would take them for one.
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        tokens = [*tokenize.generate_tokens(io.StringIO(" ".join(text.split("\n"))).readline)]
        texts = ["None" if token.string in ("nan", "NaN") else token.string.strip() for token in tokens]
        is_value = [token.type in (tokenize.STRING, tokenize.NUMBER) for token in tokens]
        if any(first and second for first, second in pairwise(is_value)):
            inner = [text for text, value in zip(texts, is_value, strict=True) if value]
            flat = ["[", *inner, "]"] == [text for text in texts if text]
            return ast.literal_eval(f"[{', '.join(inner)}]") if flat else None
        return ast.literal_eval(" ".join(texts).strip())
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, MemoryError, RecursionError):
        return None
