"""Finished groups of a sweep, appended to a file as they come, so that a killed run goes on where it was.

The first line says what the sweep depends on; each further line holds one group: its number, the statistics of its
members as float32, the answers that are kept, and a checksum. A last line that was cut off by a kill is dropped;
anything else that does not fit is refused.
"""

import base64
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hones.errors import HonesError
from hones.sweep.answers import Answered
from hones.sweep.resume import DAMAGE, ResumeFile


def sweep_of(path: Path) -> dict[str, Any]:
    """What an existing journal's sweep depends on, flat; nothing where there is none, or not a whole line of one."""
    try:
        with path.open("rb") as file:
            return dict(json.loads(file.readline())["sweep"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


class Journal(ResumeFile):
    """The journal of one sweep, a context that has it for this process alone.

    Args:
        fingerprint: what the results depend on; a journal of another is refused.
        plan: how the sweep is cut into groups and passes; that of an existing journal is taken instead.

    Raises:
        HonesError: on entering, the file belongs to another sweep (the difference is named), is damaged, cannot be
            written, or is held by another process.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        super().__init__(path, "sweep", fingerprint)
        self.plan = dict(plan)
        self.groups: dict[int, list[Answered]] = {}

    def __enter__(self) -> "Journal":
        """Take what the file holds, without a last line that was cut off, or begin it."""
        super().__enter__()
        path = self.path
        try:
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            if whole:
                self._replay(whole.splitlines())
                if len(whole) < len(content):
                    with path.open("r+b") as file:
                        file.truncate(len(whole))
            else:
                path.unlink(missing_ok=True)
                self._write({"sweep": self.fingerprint, "plan": self.plan})
        except HonesError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            raise HonesError(f"cannot read {path} ({error.strerror})", do="choose another --out") from error
        return self

    def read(self, group: int) -> list[Answered] | None:
        """The members of a finished group, which the journal then forgets; None if it has not finished."""
        return self.groups.pop(group, None)

    def append(self, group: int, answered: Sequence[Answered]) -> None:
        """Record a finished group; it is on the disk when this returns."""
        arrays = [np.ascontiguousarray(x.statistics, dtype="<f4") for x in answered]
        data = b"".join(a.tobytes() for a in arrays)
        answers = [[x.tolist() if isinstance(x, np.ndarray) else x for x in of.answers] for of in answered]
        said = {"answers": answers} if any(answers) else {}
        self._write(
            {
                "group": group,
                "shapes": [a.shape for a in arrays],
                "crc32": _checksum(data, said),
                "float32": base64.b64encode(data).decode(),
                **said,
            }
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise HonesError(f"cannot write {self.path} ({error.strerror})", do="free space, then run again") from error

    def _replay(self, lines: Sequence[bytes]) -> None:
        number = 1
        try:
            header = json.loads(lines[0])
            depends, plan = dict(header["sweep"]), dict(header["plan"])
            if {key: type(x) for key, x in plan.items()} != {key: type(x) for key, x in self.plan.items()}:
                raise ValueError("plan")
            self.plan = plan
            self.check(depends)
            for line in lines[1:]:
                number += 1
                record = json.loads(line)
                data = base64.b64decode(record["float32"], validate=True)
                said = {"answers": record["answers"]} if "answers" in record else {}
                if _checksum(data, said) != record["crc32"]:
                    raise ValueError("checksum")
                sizes = [int(np.prod(shape)) for shape in record["shapes"]]
                flat = np.frombuffer(data, dtype="<f4")
                if sum(sizes) != flat.size:
                    raise ValueError("shapes")
                parts = np.split(flat, np.cumsum(sizes)[:-1])
                arrays = [part.reshape(shape) for part, shape in zip(parts, record["shapes"], strict=True)]
                answers = [
                    [np.array(x) if isinstance(x, list) else x for x in of_member]
                    for of_member in said.get("answers", [[]] * len(arrays))
                ]
                members = [Answered(given, array) for given, array in zip(answers, arrays, strict=True)]
                self.groups[int(record["group"])] = members
        except DAMAGE as error:
            raise HonesError(f"{self.path} is damaged at line {number}", do="--fresh to start again") from error


def _checksum(statistics: bytes, said: Mapping[str, Any]) -> int:
    """Of the statistics alone where no answers are kept."""
    return zlib.crc32(json.dumps(said).encode(), zlib.crc32(statistics)) if said else zlib.crc32(statistics)
