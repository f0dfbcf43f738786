"""A picture cut into rows and columns, and which of its tokens stands for each cell."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in shares of the picture's width and height; beyond 0 and 1 where it was padded."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """One look at the picture, or at part of it, cut into rows and columns.

    tokens: which of the picture's tokens, counted from 0, stands for each cell. box: what the cells cover.
    """

    tokens: Int[np.ndarray, "rows columns"]
    box: Box = WHOLE

    def centres(self) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows columns"]]:
        """x and y of every cell's centre, in shares of the picture."""
        rows, columns = self.tokens.shape
        left, top, right, bottom = self.box
        x = left + (np.arange(columns) + 0.5) / columns * (right - left)
        y = top + (np.arange(rows) + 0.5) / rows * (bottom - top)
        return np.broadcast_to(x, self.tokens.shape), np.broadcast_to(y[:, None], self.tokens.shape)

    def in_picture(self) -> Bool[np.ndarray, "rows columns"]:
        """Which cells have their centre in the picture, not in what it was padded with."""
        x, y = self.centres()
        return (x > 0) & (x < 1) & (y > 0) & (y < 1)


def cells_of(pixels: int, start: float, end: float, parts: int) -> Int[np.ndarray, " pixels"]:
    """In which of so many parts between start and end, shares of all pixels, each pixel's centre lies; -1 outside."""
    cell = np.floor(((np.arange(pixels) + 0.5) / pixels - start) / (end - start) * parts).astype(int)
    return np.where((cell >= 0) & (cell < parts), cell, -1)
