"""The ways in which things go wrong: a stop with one clear line, a bad item that is named and left out, a warning."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

if TYPE_CHECKING:
    import pydantic
    from pydantic.fields import FieldInfo

NOT_ANNOTATED = "not annotated for the task"
_MOST_OF_A_CAUSE = 300


class HonesError(Exception):
    """Stops a command with one line that says what was expected, what was found and what to do (exit code 2).

    argument: the name of an argument whose value is what was found. The line then names it, in Python as it is
    (top_k 0), on the command line as the option (--top-k 0).
    """

    def __init__(
        self, found: str, *, expected: str | None = None, do: str | None = None, argument: str | None = None
    ) -> None:
        self.argument = argument
        parts = [(found if argument is None else f"{argument} {found}").rstrip(".")]
        if expected is not None:
            parts.append(f"expected {expected}")
        if do is not None:
            parts.append(do)
        super().__init__(" ".join("; ".join(parts).splitlines()))

    def on_command_line(self) -> str:
        """The line for who typed a command."""
        if self.argument is None:
            return str(self)
        return f"--{self.argument.replace('_', '-')}{str(self).removeprefix(self.argument)}"


class HonesWarning(UserWarning):
    """What goes on although something is other than it should be; on the command line one line."""


class TaskStops(HonesError):
    """A task cannot go on, for reasons of its own items or results; other tasks of a run can."""


class NothingGuides(TaskStops):
    """No critical head lowers the task's metric, so the heads guide to no neurons."""


class BadItem(Exception):
    """An item that a task cannot use. It is reported by name and left out of every arm of a comparison.

    kind: the reason without what is particular to this item, by which such items are counted. Items of the kind
    NOT_ANNOTATED are not mistakes: one file may serve several tasks.
    """

    def __init__(self, reason: str, *, kind: str = "") -> None:
        super().__init__(reason)
        self.kind = kind or reason


@contextmanager
def seam(action: str, *, expected: str | None = None, do: str | None = None) -> Iterator[None]:
    """Around a library that reads, loads or decodes what others wrote: whatever it raises becomes one line.

    No list of exception types decides that: a library may raise anything for what it was not made for. Our own errors
    and interrupts pass. The cause stays chained, and its traceback goes to the log (`hones.log`). Nothing but the
    library's own work belongs inside, as a mistake of ours would be said in the same way.

    Args:
        action: what was being done, "load the model of PLACE"; the line reads `cannot load the model of PLACE (cause)`.

    Raises:
        HonesError: the library raised something.
    """
    try:
        yield
    except (HonesError, BadItem, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # also the panics of libraries in Rust, which are no Exception
        logging.getLogger("hones").info("cannot %s", action, exc_info=True)
        raise HonesError(f"cannot {action} ({cause(error)})", expected=expected, do=do) from error


def cause(error: BaseException) -> str:
    """What a library's error says, on one line; with its type where the text alone is no sentence, and with what it
    was raised from, which often says more ("An error occurred").
    """
    said = _said(error)
    first = error
    while first.__cause__ is not None:
        first = first.__cause__
    if first is not error and _said(first) not in said:
        said = f"{said.rstrip('.')}: {_said(first)}"
    return shortened(said, _MOST_OF_A_CAUSE)


def _said(error: BaseException) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory: {said}" if said else "out of memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if " " not in said or isinstance(error, LookupError | AttributeError | TypeError):  # KeyError: 'weight_map'
        return f"{type(error).__name__}: {said}" if said else type(error).__name__
    return said


def shortened(text: str, most: int = 60) -> str:
    """A text in at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


class Invalid(NamedTuple):
    """What pydantic finds wrong first: where in the content, what is wrong there, and the value that is."""

    where: tuple[int | str, ...]
    problem: str
    value: Any

    def __str__(self) -> str:
        return ": ".join(filter(None, (".".join(map(str, self.where)), self.problem)))


def first_invalid(error: "pydantic.ValidationError") -> Invalid:
    """The first of pydantic's errors."""
    first = error.errors()[0]
    return Invalid(first["loc"], first["msg"].removeprefix("Value error, "), first["input"])


def keys_inside(field: "FieldInfo") -> "type[pydantic.BaseModel] | None":
    """The keys inside a key; None where there are none."""
    kinds: list[Any] = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if hasattr(kind, "model_fields")), None)


def _keys_at(keys: "type[pydantic.BaseModel] | None", sections: Iterable[str]) -> list[str]:
    """The keys inside these nested sections."""
    for name in sections:
        field = keys.model_fields.get(name) if keys is not None else None
        keys = keys_inside(field) if field is not None else None
    return [] if keys is None else [*keys.model_fields]


def from_validation(
    error: "pydantic.ValidationError",
    what: str,
    *,
    keys: "type[pydantic.BaseModel] | None" = None,
    expected: str | None = None,
    do: str | None = None,
) -> HonesError:
    """The line for content that pydantic refuses.

    Args:
        what: the file, or whatever else holds it.
        keys: of the content; a key that is none of them is said with the nearest and all others.
    """
    kind = error.errors()[0]["type"]
    where = [*map(str, first_invalid(error).where)]
    if keys is not None and kind == "model_type" and (known := _keys_at(keys, where)):
        found = f"{what}: {'.'.join(where)} is {shortened(repr(first_invalid(error).value))}"
        return HonesError(found, expected=f"keys under it: {', '.join(known)}", do=do)
    if keys is not None and kind == "extra_forbidden":
        *sections, key = where
        known = _keys_at(keys, sections)
        near = "".join(f", perhaps {name}" for name in get_close_matches(key, known, 1))
        found = f"{what}: no key {'.'.join((*sections, key))}{near}"
        return HonesError(found, expected=f"some of {', '.join(known)}", do=do)
    value = first_invalid(error).value
    if kind.endswith(("_type", "_parsing")):
        what_it_is = shortened(repr(value))
        if kind == "string_type" and isinstance(value, bool | int | float):  # no, on, 1.0: YAML reads no text there
            expected = expected or "a text: in quotes"
        if kind in ("tuple_type", "list_type") and isinstance(value, str):
            expected = expected or f"a list: [{shortened(value)}]"
        return HonesError(f"{what}: {first_invalid(error)}, found {what_it_is}", expected=expected, do=do)
    return HonesError(f"{what}: {first_invalid(error)}", expected=expected, do=do)


def joined(names: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
