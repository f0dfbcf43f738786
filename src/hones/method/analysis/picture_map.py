"""A map over a picture's patches, as explanation.json holds it."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import PlainSerializer, PlainValidator

from hones.models.view import WHOLE, Box

STRONGEST = 3


def _as_lists(values: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(x) else float(x) for x in row] for row in values]


def _as_array(values: Any) -> np.ndarray:
    return np.asarray([[np.nan if x is None else x for x in row] for row in values], dtype=np.float64)


Values = Annotated[np.ndarray, PlainValidator(_as_array), PlainSerializer(_as_lists)]
"""[rows, columns], float64, as lists in a file; NaN, there null, where no picture token stands."""


@dataclass(frozen=True, eq=False)
class PictureMap:
    """A value for every patch of a picture, rows from the top, columns from the left.

    kind: attention, activation, lens or drop. unit: of the values. box: left, top, right and bottom of what the map
    covers, in shares of the picture's width and height; beyond 0 and 1 where the picture was padded.
    """

    kind: str
    title: str
    values: Values
    unit: str
    box: Box = WHOLE

    def strongest(self, count: int = STRONGEST) -> list[tuple[int, int, float]]:
        """Row, column and value of the patches whose value is farthest from 0, the farthest first; 0 is none."""
        size = np.nan_to_num(np.abs(self.values))
        order = np.argsort(-size.ravel(), kind="stable")[:count]
        places = [divmod(int(place), self.values.shape[1]) for place in order]
        return [(row, column, float(self.values[row, column])) for row, column in places if size[row, column] > 0]

    def words(self, count: int = STRONGEST) -> str:
        """The strongest patches as a sentence; rows and columns are counted from 0, at the top left."""
        rows, columns = self.values.shape
        said = [f"row {row}, column {column}: {value:.3g}" for row, column, value in self.strongest(count)]
        return f"{'; '.join(said) or '0 everywhere'} ({rows} x {columns} patches, {self.unit})"
