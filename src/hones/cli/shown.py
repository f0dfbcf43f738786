"""How commands show what they did: results on standard output, remarks on standard error."""

import logging
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from hones.errors import HonesWarning
from hones.log import LOG, REMARK

if TYPE_CHECKING:
    from hones.data.unified import LeftOut
    from hones.runs.prepared import Prepared
    from hones.runs.study import Study
    from hones.tasks.base import Task

OUT = Console(markup=False)
ERR = Console(stderr=True, markup=False)


def write_what_can_be_written() -> None:
    """Let both streams replace what their encoding has no character for, in place of an end by UnicodeEncodeError.

    A console in another encoding than UTF-8, or half a character, must not cost what a command has computed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(line: str) -> None:
    """One line, however long."""
    OUT.print(line, soft_wrap=True)


def warn(line: str) -> None:
    """One line that is no result."""
    ERR.print(line, style="yellow", soft_wrap=True, highlight=False)


class _Remarks(logging.Handler):
    """Shows what the library remarks, each remark once."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """A line, if it is a remark."""
        line = record.getMessage()
        if hasattr(record, REMARK) and line not in self.said:
            self.said.add(line)
            warn(line)


@contextmanager
def what_is_noticed() -> Iterator[None]:
    """Show warnings and remarks of the library while a command runs, each on one line, once."""
    remarks, said = _Remarks(), set[str]()
    with warnings.catch_warnings():
        of_python = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            line = " ".join(str(message).split())
            if not issubclass(category, HonesWarning):
                of_python(message, category, *place, **options)
            elif line not in said:
                said.add(line)
                warn(f"hones: warning: {line}")

        warnings.showwarning = show
        level = LOG.level
        LOG.addHandler(remarks)
        LOG.setLevel(logging.INFO)
        try:
            yield
        finally:
            LOG.removeHandler(remarks)
            LOG.setLevel(level)


def fail(line: str) -> None:
    """The line that says why a command, or a task of it, did not come to its end."""
    ERR.print(f"hones: {line}", style="red", soft_wrap=True, highlight=False)


def counted(items: int) -> str:
    """So many items: 1 item, 20 items."""
    return f"{items} item" if items == 1 else f"{items} items"


def name_remarks(remarks: "Sequence[LeftOut]", of: str = "") -> None:
    """What of a file was read otherwise than it looks: a line for each kind, with the first; of: which file's."""
    for kind, count in Counter(remark.kind for remark in remarks).items():
        first = next(remark for remark in remarks if remark.kind == kind)
        more = f" and {count - 1} more" if count > 1 else ""
        warn(f"remark{f' on {of}' if of else ''}: {kind}: {first.id}{more}: {first.reason}")


def name_prepared(task: "Task", prepared: "Prepared") -> None:
    """The items of a file that a task cannot use, and what is remarked about the pictures of the others."""
    from hones.views.terminal import left_out_list

    ERR.print(left_out_list([(task.name, item) for item in prepared.left_out], ""))
    name_remarks(prepared.remarks)


def name_left_out(study: "Study", task: str | None, said: "set[LeftOut] | None" = None) -> None:
    """The items left out of a task, or of all, and what is remarked about their pictures, but for what was said."""
    from hones.runs.study import all_left_out
    from hones.views.terminal import left_out_list

    left_out = [row for row in all_left_out(study) if task is None or row[0].startswith(f"{task},")]
    ERR.print(left_out_list(left_out))
    of_task = [one for name, few in study.remarks.items() if task is None or name.startswith(f"{task},") for one in few]
    said = set() if said is None else said
    name_remarks([remark for remark in dict.fromkeys(of_task) if remark not in said])
    said.update(of_task)


def show(study: "Study", task: str | None, table: RenderableType, file: Path) -> None:
    """The items left out, what was found, and the file written."""
    name_left_out(study, task)
    OUT.print(table)
    say(f"written: {file}")
