"""The command line: parse, call a stage, print a table.

Results go to standard output, progress and errors to standard error. Exit code 0: done; 2: a bad argument, file or
item, named in one line.
"""

import sys
from errno import ENOSPC
from typing import NoReturn

from hones.cli.shown import fail, what_is_noticed, write_what_can_be_written
from hones.errors import BadItem, HonesError
from hones.log import LOG, close_log, keep_traceback, log_where_asked


def main() -> NoReturn:
    """Entry point: one line and exit code 2 for what the user can mend, 1 for what they cannot.

    An exception in the user's own task or method is theirs to mend: the line names their file and line.

    The log has the traceback of both: the run's, else that of $HONES_LOG. Without either an unexpected one is kept in a
    file of its own.
    """
    code = 0
    write_what_can_be_written()
    log_where_asked()
    try:
        from hones.cli.commands import app

        with what_is_noticed():
            app()
    except (HonesError, BadItem) as error:  # an item that was good when it was checked, such as a picture now gone
        line = error.on_command_line() if isinstance(error, HonesError) else " ".join(str(error).split())
        LOG.error(line, exc_info=True)
        fail(line)
        code = 2
    except Exception as error:
        from hones.tasks.user_code import place_in_user_code

        LOG.exception("unexpected")
        log = close_log()
        place = place_in_user_code(error)
        if isinstance(error, OSError) and error.errno == ENOSPC and error.filename is None:
            fail(f"cannot write to standard output ({error.strerror})")
            sys.exit(2)
        if place is None and log is None:
            log = keep_traceback()
        if place is None and log is None:
            raise
        first_line = next((f": {line}" for line in str(error).splitlines()), "")
        details = "" if log is None else f"; details in {log}"
        said = f"{type(error).__name__}{first_line}{details}"
        fail(f"{place}: {said}" if place else f"unexpected {said}")
        code = 2 if place else 1
    finally:
        close_log()
    sys.exit(code)
