"""Fields of an item by dotted path, and prompts with such fields in braces.

A path goes through objects by name (`pope.object`), through lists by position (`captions.0.caption`) or through all
their elements (`captions.caption`, `vqa.all_answers`). Its values are texts, numbers or yes and no; anything else, and
a field that is missing or null, is a problem of the item; an item that lacks the first part of a path altogether is not
annotated for the task. Only what the annotation file holds is looked up, never an
attribute of a Python object.
"""

import re
from collections.abc import Iterator
from string import Formatter
from typing import Any

from pydantic import BaseModel

from hones.data.unified import Item
from hones.errors import NOT_ANNOTATED, BadItem

PATH = re.compile(r"\w+(\.\w+)*")


def values_at(item: Item, path: str) -> list[str]:
    """Every value at the path, as text.

    Raises:
        BadItem: there is none, or one that is no text, number, yes or no.
    """
    return [_text(value, path) for value in _present(item, path)]


def numbers_at(item: Item, path: str) -> list[float]:
    """Every value at the path, as a number.

    Raises:
        BadItem: there is none, or one that is no number.
    """
    values = _present(item, path)
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in values):
        raise BadItem(f"its field {path} is no list of numbers")
    return [float(x) for x in values]


def text_at(item: Item, path: str) -> str:
    """The one value at the path, as text.

    Raises:
        BadItem: there is none, there are several, or it is empty or of another kind.
    """
    values = values_at(item, path)
    if len(values) != 1:
        raise BadItem(f"its field {path} has {len(values)} values, one is needed")
    if not values[0].strip():
        raise BadItem(f"its field {path} is empty")
    return values[0].strip()


def paths_in(template: str) -> list[str]:
    """The paths that a template names; braces that are meant as such are doubled.

    Raises:
        ValueError: a brace without its other, or one that holds no path.
    """
    paths = []
    for _, path, form, conversion in Formatter().parse(template):
        if path is None:
            continue
        if form or conversion or not PATH.fullmatch(path):
            raise ValueError(f"{{{path}}} is no field such as {{vqa.question}}; write {{{{ and }}}} for braces")
        paths.append(path)
    return paths


def fill(template: str, item: Item) -> str:
    """The template with the item's values.

    Raises:
        BadItem: a field is missing, empty, or not one value.
    """
    parts = Formatter().parse(template)
    return "".join(text + (text_at(item, path) if path is not None else "") for text, path, _, _ in parts)


def _present(item: Item, path: str) -> list[Any]:
    values = [value for value in _walk(item, path.split(".")) if value is not None]
    if not values:
        absent = not _fields(item).get(path.partition(".")[0])  # the whole annotation; in part it is a mistake
        raise BadItem(f"it has no field {path}", kind=NOT_ANNOTATED if absent else "")
    return values


def _walk(value: Any, path: list[str]) -> Iterator[Any]:
    """Every value that the rest of the path leads to."""
    if isinstance(value, list | tuple):
        if path and path[0].isdecimal():
            yield from _walk(value[int(path[0])], path[1:]) if int(path[0]) < len(value) else ()
        else:
            for element in value:
                yield from _walk(element, path)
    elif not path:
        yield value
    else:
        fields = _fields(value)
        if path[0] in fields:
            yield from _walk(fields[path[0]], path[1:])


def _fields(value: Any) -> dict[str, Any]:
    """What an object of the annotation file holds."""
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    return value if isinstance(value, dict) else {}


def _text(value: Any, path: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    raise BadItem(f"its field {path} is an object, not a text")
