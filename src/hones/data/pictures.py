"""Pictures: opening them lazily and drawing the blue box of the ocr task."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

BOX_COLOUR = (0, 0, 255)


def draw_box(picture: Image.Image, bbox: Sequence[float]) -> Image.Image:
    """A copy of the picture with the outline of `bbox` = [x, y, width, height] in blue; the text is never drawn.

    The line is about 1/160 of the shorter side, at least one pixel, at the picture's native resolution.
    """
    x, y, width, height = bbox
    boxed = picture.copy()
    line = max(1, round(min(picture.size) / 160))
    ImageDraw.Draw(boxed).rectangle((x, y, x + width, y + height), outline=BOX_COLOUR, width=line)
    return boxed
