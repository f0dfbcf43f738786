"""Keys and values of the rows of a pass: one layer's past, computed elsewhere, and what the pass adds to it."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin


class PassEnds(Exception):
    """The rest of a pass is not needed: what it was run for is known, as the last layer's keys and values."""


class LayerRows(CacheLayerMixin):
    """Keys and values of one layer for R rows: a past that was computed elsewhere, and what a pass adds.

    keys, values [R, heads, positions, d_h]: buffers that are filled up to `length` and hold what is added from there
    on; where they are not given, the first pass makes them, with `room` for more. length: past positions, also of a
    layer that the pass does not run. last: stop the pass once this layer's keys and values are known.
    """

    is_sliding = False

    def __init__(
        self,
        length: int,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        *,
        room: int = 0,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.length = length
        self.room = room
        self.last = last
        self.is_initialized = True  # see lazy_initialization
        self.keys = keys
        self.values = values

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the shapes are known from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[2]
        if self.keys is None or self.values is None:
            self.keys = with_room(key_states, self.room)
            self.values = with_room(value_states, self.room)
        else:
            self.keys[:, :, self.length : end] = key_states
            self.values[:, :, self.length : end] = value_states
        self.length = end
        if self.last:  # attention and FFN of the last layer are read nowhere in a prefix: its suffixes need this alone
            raise PassEnds
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drop all rows but these."""
        if self.keys is not None and self.values is not None:
            kept = rows.to(self.keys.device)
            self.keys = self.keys[kept]
            self.values = self.values[kept]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1  # no limit


class SharedPast(LayerRows):
    """Pasts that are read by several rows each, consecutive ones; gradients flow through them and what a pass adds.

    Nothing is written in place, and what a pass adds is not kept. rows: how many rows read each past.
    """

    def __init__(self, length: int, keys: Tensor | None, values: Tensor | None, rows: Sequence[int]) -> None:
        super().__init__(length, keys, values)
        self.rows = rows

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return self._joined(self.keys, key_states), self._joined(self.values, value_states)

    def _joined(
        self, past: Float[Tensor, "pasts heads p d_h"], new: Float[Tensor, "rows heads t d_h"]
    ) -> Float[Tensor, "rows heads p_and_t d_h"]:
        # not past[of], whose gradient several threads add up in an order of their own
        for_rows = [x.expand(count, -1, -1, -1) for x, count in zip(past.split(1), self.rows, strict=True)]
        return torch.cat([torch.cat(for_rows), new], 2)


def with_room(states: Float[Tensor, "*rows p d"], room: int) -> Float[Tensor, "*rows p_and_room d"]:
    """Room for more positions after these; what it holds is not meant to be read."""
    if room == 0:
        return states
    *rows, length, width = states.shape
    buffer = states.new_empty((*rows, length + room, width))  # not zeros: it is never read before it is written
    buffer[..., :length, :] = states
    return buffer
