"""Progress bars with time left, on standard error, shown in terminals only."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress_bar(what: str, total: int, unit: str = "it") -> tqdm:
    """A bar named `what` that the caller updates."""
    return tqdm(desc=what, total=total, unit=unit, leave=False, file=sys.stderr, disable=not sys.stderr.isatty())


def track(things: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar named `what`."""
    length = total if total is not None else len(things) if isinstance(things, Sized) else None
    yield from tqdm(things, desc=what, total=length, leave=False, file=sys.stderr, disable=not sys.stderr.isatty())
