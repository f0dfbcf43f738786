"""Progress with time left, on standard error: a bar in a terminal, a line a minute in a file or a pipe."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
SECONDS = 60.0
"""Between two lines."""


class Bar(tqdm):
    """Parts of a unit count, and are not shown."""

    @property
    def format_dict(self) -> dict[str, Any]:
        """What a bar is written from."""
        return {**super().format_dict, "n": int(self.n)}


class Lines(Bar):
    """What cannot be drawn over is written line by line; work of less than a minute leaves none."""

    monitor_interval = 0  # no thread that wakes the bar up

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.written = time.monotonic()
        super().__init__(*arguments, **options, mininterval=1, miniters=1, ncols=100, ascii=True)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """The line, if one is due; there is nothing to clear (msg) and no place to move to (pos)."""
        now = time.monotonic()
        if msg is None and now - self.written >= SECONDS:
            self.written = now
            self.fp.write(f"{self}\n")
            self.fp.flush()


def progress_bar(what: str, total: int, unit: str = "it") -> tqdm:
    """A bar named `what` that the caller updates."""
    return _kind()(desc=what, total=total, unit=unit, leave=False, file=sys.stderr)


def track(things: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar named `what`."""
    length = total if total is not None else len(things) if isinstance(things, Sized) else None
    yield from _kind()(things, desc=what, total=length, leave=False, file=sys.stderr)


def _kind() -> type[tqdm]:
    return Bar if sys.stderr.isatty() else Lines
