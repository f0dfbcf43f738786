"""RUN/hones.log: what a run did, a line each with the time: commands, stages, items left out, errors with traceback.

The library writes to the logger `hones`; whoever uses it from Python sends that where they like. The command line opens
the file of its run folder and closes it when the command ends. A command without run folder writes to the file that
$HONES_LOG names, if it does; a mistake of ours is kept in a file of its own all the same.
"""

import logging
import os
import shlex
import sys
import traceback
from pathlib import Path
from tempfile import NamedTemporaryFile

LOG = logging.getLogger("hones")
LOG.addHandler(logging.NullHandler())
FILE = "hones.log"
REMARK = "remark"
"""The attribute of a record by which the command line knows a remark."""
VARIABLE = "HONES_LOG"
"""The environment variable that names the log of commands without a run folder."""


class _RunLog(logging.FileHandler):
    """Appends to the run's log. A log that cannot be written is said once and stops nothing."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace", delay=True)
        self.path, self.failed = file, False
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Opening the file is the first thing that may fail."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """One line instead of a traceback."""
        if not self.failed:
            self.failed = True
            print(f"hones: cannot write {self.path} ({sys.exception()})", file=sys.stderr)


def remark(line: str) -> None:
    """Log what is worth knowing and no warning; the command line shows it too."""
    LOG.info(line, extra={REMARK: True})


def log_to(run: Path) -> None:
    """Append this command and what the library says to RUN/hones.log, until `close_log`."""
    _append_to(run / FILE)


def log_where_asked() -> None:
    """Append to the file that $HONES_LOG names, if it does, until `log_to` or `close_log`."""
    if os.environ.get(VARIABLE):
        _append_to(Path(os.environ[VARIABLE]).expanduser())


def _append_to(file: Path) -> None:
    close_log()
    LOG.addHandler(_RunLog(file))
    LOG.setLevel(logging.INFO)
    LOG.info("hones %s", shlex.join(sys.argv[1:]))


def keep_traceback() -> Path | None:
    """Write the traceback of what is being handled into a new file; None where no file can be written."""
    try:
        with NamedTemporaryFile("w", prefix="hones-", suffix=".log", encoding="utf-8", delete=False) as file:
            file.write(f"hones {shlex.join(sys.argv[1:])}\n{traceback.format_exc()}")
    except (OSError, UnicodeEncodeError):
        return None
    return Path(file.name)


def close_log() -> Path | None:
    """Close the open log; returns its path, None where none was open."""
    closed = None
    for handler in [h for h in LOG.handlers if isinstance(h, _RunLog)]:
        LOG.removeHandler(handler)
        handler.close()
        closed = handler.path
    return closed
