"""The two ways in which things go wrong: a stop with one clear line, and a bad item that is named and left out."""

from collections.abc import Iterable

NOT_ANNOTATED = "not annotated for the task"


class HonesError(Exception):
    """Stops a command with one line that says what was expected, what was found and what to do (exit code 2)."""

    def __init__(self, found: str, *, expected: str | None = None, do: str | None = None) -> None:
        parts = [found.rstrip(".")]
        if expected is not None:
            parts.append(f"expected {expected}")
        if do is not None:
            parts.append(do)
        super().__init__(" ".join("; ".join(parts).splitlines()))


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


def joined(names: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
