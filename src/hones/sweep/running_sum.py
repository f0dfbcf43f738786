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
import torch
from jaxtyping import Float64

from hones.sweep.resume import DAMAGE, TensorFile


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
        self.done = 0
        self.plan = dict(plan)
        self.path = path
        self.file = None if path is None else TensorFile(path, "ranking", fingerprint or {})
        if self.file is not None:
            self._read(self.file)

    def add(self, part: Float64[np.ndarray, "..."], at: tuple[int, ...] = ()) -> None:
        """Add the next shard's part; with a path, it is on the disk when this returns.

        at: where in the total it belongs, the indices of its first axes.
        """
        self.total[at] += part
        self.done += 1
        if self.file is not None:
            header = json.dumps({"sum": self.file.fingerprint, "plan": self.plan, "done": self.done})
            lines = {"header": header, "crc32": str(_checksum(header, self.total))}
            self.file.write({"total": torch.from_numpy(self.total)}, lines)

    def _read(self, file: TensorFile) -> None:
        try:
            content = file.read()
            if content is None:
                return
            tensors, lines = content
            total = tensors["total"].numpy()
            # safetensors has no checksum of its own: a flipped bit of the total would go unseen
            if str(_checksum(lines["header"], total)) != lines["crc32"]:
                raise ValueError("checksum")
            header = json.loads(lines["header"])
            depends = dict(header["sum"])
            plan = header["plan"]
            done = header["done"]
        except DAMAGE as error:
            raise file.damaged(error) from error
        file.check(depends)
        if total.shape != self.total.shape:
            raise file.damaged(f"shape {total.shape}, not {self.total.shape}")
        self.total = total
        self.done = done
        self.plan = plan


def _checksum(header: str, total: Float64[np.ndarray, "..."]) -> int:
    return zlib.crc32(np.ascontiguousarray(total).data, zlib.crc32(header.encode()))
