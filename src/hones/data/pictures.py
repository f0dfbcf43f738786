"""Pictures: opening them lazily and drawing the blue box of the ocr task.

A picture becomes RGB, upright by its EXIF orientation. Boxes are in pixels of the picture *as stored*, which is what
COCO-Text and the `width` and `height` of annotation files mean, and turn with it. Only where an item's width and height
are those of the upright picture and not of the stored one, its box was measured upright and stays.
"""

import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFile, UnidentifiedImageError

from hones.data.decoding import Remark, decode, what_it_is
from hones.data.png import pixels_alone
from hones.errors import BadItem, HonesError, cause, seam
from hones.files import is_lfs_pointer

BOX_COLOUR = (0, 0, 255)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000")
MISSING, UNREADABLE, TRUNCATED, HUGE = "missing picture", "corrupt picture", "truncated picture", "huge picture"
BAD_EXTRAS = "PNG extras that cannot be read"
BOX_OUTSIDE, OTHER_SIZE = "box outside the picture", "picture of another size than annotated"
_TOLERANCE = 0.05
_REMARKS = "remarks"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Number = int | float
Box = tuple[Number, Number, Number, Number]


def open_picture(
    path: Path, box: Sequence[int | float] | None = None, size: tuple[int, int] | None = None
) -> Image.Image:
    """The picture as RGB, EXIF rotation applied, with `box` = [x, y, width, height] outlined in blue if given.

    Args:
        size: (width, height) that the box was annotated for, where known.

    Raises:
        BadItem: the file is missing, truncated, not a picture, or larger than Pillow's limit against decompression
            bombs; the box lies outside it, or was annotated for a picture whose sides differ by more than 5 %.
    """
    check_file(path)
    picture, orientation = _read(path)
    if box is None:
        return picture
    stored = picture.size if orientation < 5 else (picture.height, picture.width)
    if size is None or _alike(stored, size):
        x, y, width, height = upright_box(box, stored, orientation)
    elif _alike(picture.size, size):
        x, y, width, height = box
    else:
        found, said = ("x".join(map(str, s)) for s in (stored, size))
        raise BadItem(f"its box was annotated for {said} pixels, {path} has {found}", kind=OTHER_SIZE)
    if x >= picture.width or y >= picture.height or x + width <= 0 or y + height <= 0:
        raise BadItem(f"its box {list(box)} lies outside {path}", kind=BOX_OUTSIDE)
    return draw_box(picture, (x, y, width, height))


def _read(path: Path) -> tuple[Image.Image, int]:
    """The picture as RGB and upright, and the EXIF orientation, 1 to 8, that it had; the first frame of an animation.

    Raises:
        BadItem: as `open_picture`.
    """
    try:
        with seam(f"read picture {path}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _opened(path) as (file, remarks):
                decoded = decode(file)
    except HonesError as error:
        raise _unread(path, error) from error
    picture = decoded.stored
    if decoded.orientation in _TURNS and not decoded.is_upright:
        picture = picture.transpose(_TURNS[decoded.orientation])
    picture.info = {_REMARKS: (*remarks, *decoded.remarks)}
    return picture, decoded.orientation


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ImageFile.ImageFile, tuple[Remark, ...]]]:
    """The file as Pillow opens it, and what is remarked: a PNG whose extras Pillow cannot read, without them."""
    remarks: tuple[Remark, ...] = ()
    try:
        file = Image.open(path, formats=FORMATS)
    except Exception:  # a wrong checksum, a text that is too long
        alone = pixels_alone(path.read_bytes())
        if alone is None:
            raise
        file = Image.open(BytesIO(alone), formats=FORMATS)
        remarks = (Remark(BAD_EXTRAS, "used without its texts and colour profile"),)
    with file:
        yield file, remarks


def remarks_of(picture: Image.Image) -> tuple[Remark, ...]:
    """What of the file of an opened picture is shown otherwise than it looks."""
    return picture.info.get(_REMARKS, ())


def _unread(path: Path, error: HonesError) -> BadItem:
    """What keeps a file from being a picture, as far as its first bytes or Pillow say it."""
    problem = error.__cause__
    if isinstance(problem, FileNotFoundError):
        return BadItem(f"no picture {path}", kind=MISSING)
    if isinstance(problem, Image.DecompressionBombError | Image.DecompressionBombWarning):
        limit = f"more than {Image.MAX_IMAGE_PIXELS} pixels, Pillow's limit"
        return BadItem(f"picture {path} is too large ({limit})", kind=HUGE)
    if isinstance(problem, UnidentifiedImageError):
        with suppress(OSError), path.open("rb") as file:
            found = what_it_is(file.read(512))
            if found is not None:
                known = "JPEG, PNG, GIF, BMP, WebP, TIFF, PPM or JPEG 2000"
                return BadItem(f"cannot read picture {path}: it is {found}; expected {known}", kind=UNREADABLE)
    return BadItem(str(error), kind=TRUNCATED if "truncated" in str(error).lower() else UNREADABLE)


def check_file(path: Path) -> None:
    """Raises BadItem for a device or a pipe, which may never end, and for a git-lfs pointer."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return  # whoever opens it says so
    if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
        raise BadItem(f"cannot read picture {path} (a device, a pipe or a socket)", kind=UNREADABLE)
    if is_lfs_pointer(path):
        raise BadItem(f"picture {path} is a git-lfs pointer, git lfs pull fetches it", kind=UNREADABLE)


def stored_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as it is stored, from its first bytes.

    Raises:
        BadItem: there is no such picture, or it does not say.
    """
    check_file(path)
    if not path.exists():
        raise BadItem(f"no picture {path}", kind=MISSING)
    try:
        with warnings.catch_warnings(action="ignore"), _opened(path) as (file, _):
            return file.size
    except Exception as error:
        raise BadItem(f"cannot read picture {path} ({cause(error)})", kind=UNREADABLE) from error


def _alike(found: tuple[int, int], said: tuple[int, int]) -> bool:
    return all(abs(f / s - 1) <= _TOLERANCE for f, s in zip(found, said, strict=True))


def upright_box(box: Sequence[int | float], size: tuple[int, int], orientation: int) -> Box:
    """Where a box [x, y, width, height] of the stored picture of `size` = (width, height) lies in the upright one.

    Orientations 5 to 8 exchange the axes first; then 2, 3, 7 and 6 mirror left and right, 3, 4, 7 and 8 up and down.
    """
    x, y, width, height = box
    across, down = size
    if orientation >= 5:
        x, y = y, x
        width, height = height, width
        across, down = down, across
    if orientation in (2, 3, 6, 7):
        x = across - x - width
    if orientation in (3, 4, 7, 8):
        y = down - y - height
    return (x, y, width, height)


def draw_box(picture: Image.Image, box: Sequence[int | float]) -> Image.Image:
    """A copy of the picture with the outline of `box` = [x, y, width, height] in blue; the text is never drawn.

    The line is about 1/160 of the shorter side, at least one pixel, at the picture's native resolution.
    """
    x, y, width, height = box
    right, bottom = (end - (end == side) for end, side in zip((x + width, y + height), picture.size, strict=True))
    boxed = picture.copy()  # a box that ends with the picture shows its last line within it
    line = max(1, round(min(picture.size) / 160))
    ImageDraw.Draw(boxed).rectangle((x, y, right, bottom), outline=BOX_COLOUR, width=line)
    return boxed
