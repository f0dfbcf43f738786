"""A map over the patches of a picture, laid over the picture.

The picture becomes grey and pale, so that all colour is the map's: COOL below zero, white at zero, WARM above, in steps
that look equal (`hones.palette.perceived`), multiplied with the picture, which shows through. The scale reaches as far
below zero as above. Patches are crisp, the strongest is outlined, and what no patch covers is paler still.
"""

import numpy as np
from PIL import Image, ImageDraw

from hones.errors import HonesError
from hones.method.analysis.picture_map import PictureMap
from hones.models.view import WHOLE, Box, cells_of
from hones.palette import INK, perceived

SIDE = 480  # pixels of the longer side, at least: patches of a small picture stay crisp where a page enlarges it
DARKEST = 0.55  # of black under the map, which would hide its colours
UNCOVERED = 0.25


def overlay(picture: Image.Image, values: np.ndarray, box: Box = WHOLE, largest: float | None = None) -> Image.Image:
    """The picture with the map over it, RGB, at least 480 pixels on its longer side.

    Args:
        values: of the patches, [rows, columns], rows from the top; NaN where none stands.
        box: left, top, right and bottom of what they cover, in shares of the picture (`PictureMap.box`).
        largest: the value, above or below zero, of the full colour; None: the largest in the map.

    Raises:
        HonesError: the values are no map, or not finite, or `largest` is not above 0.
    """
    if values.ndim != 2 or values.size == 0 or np.isinf(values).any():
        raise HonesError(
            f"a map of shape {list(values.shape)}", expected="finite values [rows, columns], NaN for no patch"
        )
    if largest is None:
        largest = float(np.nanmax(np.abs(values), initial=0)) or 1.0
    if not largest > 0:
        raise HonesError(f"a scale up to {largest:g}", expected="a value above 0")
    larger = max(1.0, SIDE / max(picture.size))
    size = (round(picture.width * larger), round(picture.height * larger))
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BICUBIC)) / 255
    row = cells_of(size[1], box[1], box[3], values.shape[0])
    column = cells_of(size[0], box[0], box[2], values.shape[1])
    covered = (row >= 0)[:, None] & (column >= 0)
    of_pixel = np.where(covered, values[row[:, None], column], np.nan)
    covered = ~np.isnan(of_pixel)
    colours = perceived(np.where(covered, of_pixel, 0) / largest) / 255
    dark = np.where(covered, DARKEST, UNCOVERED)
    pale = 1 - dark * (1 - grey)
    shown = Image.fromarray(np.round(255 * pale[..., None] * colours).astype(np.uint8))
    if covered.any() and np.nanmax(np.abs(values)) > 0:
        strongest = divmod(int(np.nanargmax(np.abs(values))), values.shape[1])
        _outline(shown, row == strongest[0], column == strongest[1])
    return shown


def overlay_map(picture: Image.Image, of: PictureMap) -> Image.Image:
    """The picture with one of its maps over it."""
    return overlay(picture, of.values, of.box)


def _outline(shown: Image.Image, rows: np.ndarray, columns: np.ndarray) -> None:
    """Draw a line around a patch, of which part may lie outside the picture."""
    if rows.any() and columns.any():
        y = np.flatnonzero(rows)
        x = np.flatnonzero(columns)
        ImageDraw.Draw(shown).rectangle((int(x[0]), int(y[0]), int(x[-1]), int(y[-1])), outline=INK, width=2)
