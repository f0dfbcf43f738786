"""A file that an unfinished stage goes on from: what all of them have in common.

A resume file says what its content depends on, and is refused for anything else with the difference named. One process
at a time has it. It is written so that a kill leaves it whole, and what is damaged otherwise is said to be so, never
guessed. Its kinds: the journal of a sweep (`hones.sweep.journal`), lines that are appended; the running sum of a
ranking (`hones.sweep.running_sum`) and the checkpoint of a training (`hones.method.steering.checkpoint`), safetensors
that are replaced as a whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hones.errors import HonesError
from hones.files import write_bytes

DAMAGE = (SafetensorError, OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, AttributeError)
"""What reading a file raises that is not as it was written."""


class ResumeFile:
    """One resume file, as a context that keeps other processes out; the file stays.

    Args:
        what: that goes on: "sweep", "ranking", "training".
        fingerprint: what the content depends on.

    Raises:
        HonesError: on entering, another process has the file, or it cannot be written.
    """

    def __init__(self, path: Path, what: str, fingerprint: Mapping[str, Any]) -> None:
        self.path = path
        self.what = what
        self.fingerprint = flat(json.loads(json.dumps(fingerprint)))
        self._lock = FileLock(path.with_suffix(".lock"))

    def __enter__(self) -> "ResumeFile":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise HonesError(
                f"another process is writing {self.path}", do="wait for it, or use another --out"
            ) from error
        except OSError as error:
            raise HonesError(f"cannot write {self.path} ({error.strerror})", do="choose another --out") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Let other processes have the file."""
        self._lock.release()

    def check(self, depends: Mapping[str, Any]) -> None:
        """Raises HonesError, which names the first difference, unless what the file says it depends on is so now."""
        keys = depends.keys() | self.fingerprint.keys()
        for key in sorted(keys, key=lambda key: (key.rpartition(".")[2] != "model", key)):  # it decides the others
            old = depends.get(key)
            new = self.fingerprint.get(key)
            if old != new and key.rpartition(".")[2] == "asked":
                raise HonesError(
                    f"{self.path} belongs to a {self.what} of other items or prompts",
                    expected="the same --limit, --ids, data and task to go on from",
                    do="use a new --out, or --fresh to start again",
                )
            if old != new:
                raise HonesError(
                    f"{self.path} belongs to a {self.what} with {key} = {old!r}, now {new!r}",
                    expected="the same model, data and settings to go on from",
                    do="use a new --out, or --fresh to start again",
                )


class TensorFile(ResumeFile):
    """A resume file of tensors and a few lines about them."""

    def read(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The tensors and the lines; None where there is no file. What a killed process had begun to write is removed.

        Raises:
            Whatever of DAMAGE a file causes that is not whole.
        """
        for part in self.path.parent.glob(f".{self.path.name}.*.part"):
            part.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        tensors = load(content)
        # the JSON header follows eight bytes with its length
        length = int.from_bytes(content[:8], "little")
        return tensors, json.loads(content[8 : 8 + length]).get("__metadata__", {})

    def write(self, tensors: dict[str, Tensor], lines: dict[str, str]) -> None:
        """Replace the file; it is on the disk when this returns."""
        write_bytes(self.path, save(tensors, lines))

    def damaged(self, why: object) -> HonesError:
        """The error for a file that is not whole."""
        return HonesError(f"{self.path} is not a whole checkpoint ({why})", do="remove it, or --fresh to start again")


def refuse_other_batches(path: Path, what: str, pictures: int, batch_size: int | None) -> None:
    """Raises HonesError where --batch-size asks for other groups than those of a file; None asks for nothing."""
    if batch_size not in (None, pictures):
        raise HonesError(
            f"{path} belongs to a {what} of {pictures} pictures at once, now {batch_size}",
            do="leave --batch-size out to go on (groups that do not fit are halved), or --fresh to start again",
        )


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}, so that a difference can be named."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": x for inner, x in flat(value).items()}
        else:
            found[key] = value
    return found
