"""Pictures: opening them lazily and drawing the blue box of the ocr task."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from hones.errors import BadItem

BOX_COLOUR = (0, 0, 255)


def open_picture(path: Path, box: Sequence[int | float] | None = None) -> Image.Image:
    """The picture as RGB, EXIF rotation applied, with `box` = [x, y, width, height] outlined in blue if given.

    Raises:
        BadItem: the file is missing, truncated or not a picture.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError as error:
        raise BadItem(f"no picture {path}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadItem(f"cannot read picture {path} ({error})") from error
    return picture if box is None else draw_box(picture, box)


def draw_box(picture: Image.Image, box: Sequence[int | float]) -> Image.Image:
    """A copy of the picture with the outline of `box` = [x, y, width, height] in blue; the text is never drawn.

    The line is about 1/160 of the shorter side, at least one pixel, at the picture's native resolution.
    """
    x, y, width, height = box
    boxed = picture.copy()
    line = max(1, round(min(picture.size) / 160))
    ImageDraw.Draw(boxed).rectangle((x, y, x + width, y + height), outline=BOX_COLOUR, width=line)
    return boxed
