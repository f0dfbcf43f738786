"""The command line: parse, call a stage, print a table.

Results go to standard output, progress and errors to standard error. Exit code 0: done; 2: a bad argument, file or
item, named in one line.
"""

import sys
from typing import NoReturn

from rich.console import Console

from hones.errors import HonesError
from hones.log import LOG, close_log

_err = Console(stderr=True, markup=False)


def main() -> NoReturn:
    """Entry point: one line and exit code 2 for what the user can mend, 1 for what they cannot.

    An exception in the user's own task or method is theirs to mend: the line names their file and line.

    The run's log, where the command has opened one, has the traceback of both.
    """
    code = 0
    try:
        from hones.cli.commands import app

        app()
    except HonesError as error:
        LOG.error(error.on_command_line(), exc_info=True)
        code = _fail(f"hones: {error.on_command_line()}", 2)
    except Exception as error:
        from hones.tasks.user_code import place_in_user_code

        LOG.exception("unexpected")
        log = close_log()
        what = f"{type(error).__name__}: {_first_line(error)}"
        details = "" if log is None else f"; details in {log}"
        place = place_in_user_code(error)
        if place is not None:
            code = _fail(f"hones: {place}: {what}{details}", 2)
        elif log is None:
            raise
        else:
            code = _fail(f"hones: unexpected {what}{details}", 1)
    finally:
        close_log()
    sys.exit(code)


def _fail(line: str, code: int) -> int:
    _err.print(line, style="red", soft_wrap=True, markup=False, highlight=False)
    return code


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
