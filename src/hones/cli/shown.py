"""How commands show what they did: results on standard output, remarks on standard error."""

from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from hones.runs.study import Study

OUT = Console(markup=False)
ERR = Console(stderr=True, markup=False)


def say(line: str) -> None:
    """One line, however long."""
    OUT.print(line, soft_wrap=True)


def warn(line: str) -> None:
    """One line that is no result."""
    ERR.print(line, style="yellow", soft_wrap=True)


def show(study: "Study", task: str | None, *parts: Any) -> None:
    """The items left out of a task (None: of all), to standard error; the tables, and last the file written."""
    from hones.runs.study import all_left_out
    from hones.views.terminal import left_out_list

    *tables, file = parts
    left_out = [row for row in all_left_out(study) if task is None or row[0].startswith(f"{task},")]
    ERR.print(left_out_list(left_out))
    OUT.print(*tables)
    say(f"written: {file}")
