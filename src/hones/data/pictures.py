"""Pictures: opening them lazily and drawing the blue box of the ocr task."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from hones.errors import BadItem

BOX_COLOUR = (0, 0, 255)


def open_picture(
    path: Path, box: Sequence[int | float] | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """The picture as RGB, EXIF rotation applied, with `box` = [x, y, width, height] outlined in blue if given.

    Args:
        size: (width, height) that the box was annotated for, where known.

    Raises:
        BadItem: the file is missing, truncated or not a picture; the box lies outside it, or was annotated for a
            picture whose sides differ by more than 5 %.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError as error:
        raise BadItem(f"no picture {path}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadItem(f"cannot read picture {path} ({error})") from error
    if box is None:
        return picture
    if size is not None and any(abs(found / said - 1) > 0.05 for found, said in zip(picture.size, size, strict=True)):
        found, said = ("x".join(map(str, s)) for s in (picture.size, size))
        raise BadItem(f"its box was annotated for {said} pixels, {path} has {found}")
    if box[0] >= picture.width or box[1] >= picture.height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0:
        raise BadItem(f"its box {list(box)} lies outside {path}")
    return draw_box(picture, box)


def draw_box(picture: Image.Image, box: Sequence[int | float]) -> Image.Image:
    """A copy of the picture with the outline of `box` = [x, y, width, height] in blue; the text is never drawn.

    The line is about 1/160 of the shorter side, at least one pixel, at the picture's native resolution.
    """
    x, y, width, height = box
    boxed = picture.copy()
    line = max(1, round(min(picture.size) / 160))
    ImageDraw.Draw(boxed).rectangle((x, y, x + width, y + height), outline=BOX_COLOUR, width=line)
    return boxed
