"""One process at a time writes a part of a run folder.

RUN/.locks/PART.lock is locked for as long as a stage of PART (a task, or the analysis) is computed and written, so two
processes may work on two tasks of one run, not on the same. The operating system lets go of the lock when its process
ends, however it ends; PART.json beside it says whose it is, for the line that a second process is refused with. Who has
the lock may remove the unfinished files (`.NAME.PID.part`) that a killed process left there.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hones.errors import HonesError


@contextmanager
def alone(run: Path, parts: Sequence[str]) -> Iterator[None]:
    """Hold the locks of these parts of a run folder; a thread may hold one several times.

    Raises:
        HonesError: another process holds one of them, which the line names, or the folder cannot be written.
    """
    folder = run / ".locks"
    with ExitStack() as stack:
        for part in sorted(set(parts)):
            lock, holder = FileLock(folder / f"{part}.lock", is_singleton=True), folder / f"{part}.json"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock.acquire(timeout=0))
                if lock.lock_counter == 1:
                    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
                    this_process = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
                    holder.write_text(json.dumps(this_process))
                    stack.callback(holder.unlink, missing_ok=True)
                    for unfinished in (run / part).rglob(".*.part"):
                        unfinished.unlink(missing_ok=True)
            except Timeout as error:
                raise HonesError(
                    f"{_named(holder)} is working on {part} in {run}", do="wait for it, or use another --out"
                ) from error
            except OSError as error:
                raise HonesError(f"cannot write to {folder} ({error.strerror})", do="choose another --out") from error
        yield


def _named(holder: Path) -> str:
    """The process that a lock's file names; it may be gone or half written while the process comes or goes."""
    try:
        content = json.loads(holder.read_text())
        return f"process {int(content['pid'])} on {content['host']} ({str(content['command'])[:100]})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
