"""A user's Python file as a module: the only way in which code that is not installed is run, and only when named."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from hones.errors import HonesError, seam
from hones.files import digest, read_bytes

USER_MODULES: set[str] = set()
"""The names of the modules that the user has named as a task or a method."""


def module_of_file(file: Path, what: str, option: str) -> tuple[ModuleType, bytes]:
    """The module that a file makes, once per content, and the file's content.

    Args:
        what, option: for the error's line: "the task", "--task".

    Raises:
        HonesError: it cannot be read, or does not import.
    """
    source = read_bytes(file, f"check {option}", what=f"{what} ")
    name = f"hones_user_{digest(str(file.resolve()).encode())}_{digest(source)}"
    if name in sys.modules:
        return sys.modules[name], source
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    USER_MODULES.add(name)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        with user_code(f"import {file}", do=f"check {option}"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]  # so that it is tried again once it is mended
        raise
    return module, source


@contextmanager
def user_code(action: str, *, expected: str | None = None, do: str | None = None) -> Iterator[None]:
    """As `seam`, around code of the user's own: the line also names its file and line.

    Raises:
        HonesError: it raised something.
    """
    try:
        with seam(action, expected=expected, do=do):
            yield
    except HonesError as error:
        problem = error.__cause__
        place = None if problem is None else place_in_user_code(problem)
        if problem is None or place is None:
            raise
        found = f"cannot {action} ({place}: {type(problem).__name__}: {' '.join(str(problem).split())})"
        raise HonesError(found, expected=expected, do=do) from problem


def place_in_user_code(error: BaseException) -> str | None:
    """FILE:LINE where an exception was raised in, or last came through, code that the user has named; None: nowhere."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") in USER_MODULES:
            place = f"{frame.f_code.co_filename}:{line}"
    return place
