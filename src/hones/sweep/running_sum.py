"""The sum over a stage's shards, on disk after each of them, so that a killed run goes on after the last one.

One safetensors file, replaced as a whole: the total of the shards done, and as metadata how many they are, what the
total depends on, the plan by which the shards were cut, and a checksum. Shards are added in their order in any case, so
a run that was killed ends in the bytes of one that was not, on any number of workers.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hones.errors import HonesError
from hones.files import write_bytes
from hones.sweep.journal import DAMAGE, flat, refuse_other


class RunningSum:
    """A total of float64, how many shards it is of, and the plan that cut them.

    Args:
        shape: of the total.
        plan: how the work is cut into shards and passes; that of an existing file is taken instead.
        path: where the sum is kept; None: nowhere.
        fingerprint: what the total depends on; a file of another is refused.

    Raises:
        HonesError: the file belongs to another sum (the difference is named), or is damaged.
    """

    def __init__(
        self,
        shape: Sequence[int],
        plan: Mapping[str, Any],
        path: Path | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.total = np.zeros(shape)
        self.done, self.plan, self.path = 0, dict(plan), path
        self.fingerprint = flat(json.loads(json.dumps(fingerprint or {})))
        if path is not None:
            for left in path.parent.glob(f".{path.name}.*.part"):
                left.unlink(missing_ok=True)
            if path.exists():
                self._read(path)

    def add(self, part: Float64[np.ndarray, "..."]) -> None:
        """Add the next shard's part; with a path, it is on the disk when this returns."""
        self.total += part
        self.done += 1
        if self.path is not None:
            header = json.dumps({"sum": self.fingerprint, "plan": self.plan, "done": self.done})
            checked = {"header": header, "crc32": str(_checksum(header, self.total))}
            write_bytes(self.path, save({"total": self.total}, checked))

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
            total, metadata = load(content)["total"], metadata_of(content)
            if str(_checksum(metadata["header"], total)) != metadata["crc32"]:
                raise ValueError("checksum")
            header = json.loads(metadata["header"])
            depends, plan, done = header["sum"], header["plan"], header["done"]
        except (SafetensorError, OSError, *DAMAGE) as error:
            raise self._damaged(path, error) from error
        refuse_other(path, "ranking", depends, self.fingerprint)
        if total.shape != self.total.shape:
            raise self._damaged(path, f"shape {total.shape}, not {self.total.shape}")
        self.total, self.done, self.plan = total, done, plan

    def _damaged(self, path: Path, why: object) -> HonesError:
        return HonesError(f"{path} is not a whole checkpoint ({why})", do="remove it, or --fresh to start again")


def _checksum(header: str, total: Float64[np.ndarray, "..."]) -> int:
    return zlib.crc32(np.ascontiguousarray(total).data, zlib.crc32(header.encode()))


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: its JSON header follows eight bytes with its length."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__", {})
