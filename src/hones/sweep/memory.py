"""How much of a sweep runs at once: bounded by the device's memory, and on a CPU by what its caches like.

A group of pictures keeps, per position and layer, the residual, the heads' outputs and keys and values. A pass keeps
keys and values of its rows. Both are a share of the memory that is free at the start; nothing grows with the number of
items or of interventions.
"""

import math
import os
from dataclasses import dataclass, replace

import torch

from hones.errors import HonesError
from hones.models.vlm import VLM

GIB = 2**30
MOST_PICTURES = 16
POSITIONS = {"cpu": 4096, "cuda": 32768}
"""Through the decoder at once: with more, a CPU's caches miss; a GPU is busy with so many."""
SHARE_OF_BASELINE = 0.3
SHARE_OF_ROWS = 0.15


@dataclass(frozen=True)
class MemoryPlan:
    """pictures: in a group; positions: through the decoder at once; row_bytes: keys and values of a pass."""

    pictures: int
    positions: int
    row_bytes: int

    def rows_at_once(self, width: int, bytes_per_row: int) -> int:
        """How many rows of `width` new positions fit into one pass, at least one."""
        return max(1, min(self.positions // max(1, width), self.row_bytes // max(1, bytes_per_row)))

    def for_rows(self, per_picture: int) -> "MemoryPlan":
        """With fewer pictures in a group where each has so many rows: a group is what a killed sweep loses.

        A row decodes one position at a time; more of them than half of `positions` make no pass cheaper.
        """
        return replace(self, pictures=min(self.pictures, math.ceil(self.positions / (2 * max(1, per_picture)))))

    def halved(self, *, last: bool) -> "MemoryPlan":
        """The plan after the device ran out of memory; `last`: with a single member of a group.

        Raises:
            HonesError: there is nothing left to halve.
        """
        if last and self.positions <= 64:
            raise HonesError(
                "out of device memory with the smallest passes", do="use a smaller dtype, or --batch-size 1"
            )
        return replace(self, positions=max(32, self.positions // 2), row_bytes=self.row_bytes // 2)


def make_plan(
    vlm: VLM, positions_per_picture: int, batch_size: int | None, free: int | None = None, most: int | None = None
) -> MemoryPlan:
    """A plan for pictures with so many positions each, all prompts included.

    Args:
        free: bytes, by default those free now.
        most: bytes that may be taken, where not all that are free may be.
    """
    kept = positions_per_picture * len(vlm.anatomy.layers) * bytes_per_position(vlm)
    free = free_memory(vlm.device) if free is None else free
    return plan_for(kept, free if most is None else min(free, most), vlm.device.type, batch_size)


def plan_for(bytes_per_picture: int, free: int, device: str, batch_size: int | None) -> MemoryPlan:
    """A plan for so much free memory on a kind of device; bytes_per_picture: keys and values of all its positions."""
    fitting = max(1, int(SHARE_OF_BASELINE * free / (3 * bytes_per_picture)))  # the residual and heads' outputs too
    return MemoryPlan(
        pictures=batch_size or min(MOST_PICTURES, fitting),
        positions=POSITIONS["cpu" if device == "cpu" else "cuda"],
        row_bytes=int(SHARE_OF_ROWS * free),
    )


def rows_at_once(vlm: VLM, plan: MemoryPlan, width: int, past: int) -> int:
    """How many rows of `width` new positions on `past` others fit into one pass."""
    layers = len(vlm.anatomy.layers)
    return plan.rows_at_once(width, layers * (past + width) * bytes_per_position(vlm))


def bytes_per_position(vlm: VLM) -> int:
    """Keys and values of one position in one layer, at most: as many key-value heads as query heads."""
    return 2 * vlm.anatomy.inner * vlm.model.dtype.itemsize


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device, or in the machine for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def halved_batch(batch_size: int, error: Exception, device: torch.device) -> int:
    """How many prompts at once after memory ran out.

    Raises:
        HonesError: it was one prompt. The error itself, if it is about something else.
    """
    if not is_out_of_memory(error):
        raise error
    if batch_size == 1:
        raise HonesError("out of device memory with one prompt at a time", do="use a smaller dtype") from error
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return batch_size // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)  # torch has no class for a CPU's
