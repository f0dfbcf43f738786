"""What is made of the file of a picture: its pixels in RGB as they are stored, how they are turned, what is remarked.

Pixels decide whether a picture can be used. What stands beside them (EXIF) may be garbage: then they are used as they
are stored. What else of a file is not shown, other frames and transparency, is remarked too.
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile

from hones.errors import HonesError, cause, seam

BAD_EXIF, NO_ORIENTATION = "EXIF that cannot be read", "EXIF orientation that is none"
FIRST_FRAME, TRANSPARENT = "first of several frames", "transparency left out"

_OTHERS: tuple[tuple[int, bytes, str], ...] = (  # where which bytes stand in what is no picture of a known format
    (0, b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
    (0, b"\xff\xd8\xff", "a damaged JPEG"),
    (0, b"GIF8", "a damaged GIF"),
    (8, b"WEBP", "a damaged WebP"),
    *((4, b"ftyp" + brand, "HEIC") for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)
_TEXTS = (("<html", "a web page"), ("<!doctype html", "a web page"), ("{", "JSON"), ("[", "JSON"))


class Remark(NamedTuple):
    """Of what kind it is, and what it is exactly."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """A picture's pixels as stored, the EXIF orientation that they are to be turned by, 1 to 8, and what is remarked.

    is_upright: they are turned by it already.
    """

    stored: Image.Image
    orientation: int
    is_upright: bool
    remarks: tuple[Remark, ...]


def decode(file: ImageFile.ImageFile) -> Decoded:
    """Decode an opened picture, the first frame of several.

    Raises:
        Exception: whatever Pillow raises for pixels that are not whole.
    """
    turned_by_pillow = file.format == "TIFF"  # as it loads; its orientation is gone after that
    turn, remarks = _orientation(file) if turned_by_pillow else (1, [])
    several = file.format != "MPO" and _has_further_frames(file)  # whose others are previews and depths
    file.load()
    if not turned_by_pillow:
        turn, remarks = _orientation(file)  # of a PNG it may stand behind the pixels
    if several:
        remarks.append(Remark(FIRST_FRAME, "an animation or a file of several pages"))
    if file.has_transparency_data and file.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        remarks.append(Remark(TRANSPARENT, "pixels are shown in the colour that they have beneath"))
    return Decoded(_rgb(file), turn, turned_by_pillow, tuple(remarks))


def _has_further_frames(file: ImageFile.ImageFile) -> bool:
    """Whether a second frame begins, be it whole or not: the first is what is used."""
    try:
        with seam(f"read the second frame of {file.filename}"):
            return bool(getattr(file, "is_animated", False))
    except HonesError:
        return True


def _orientation(file: ImageFile.ImageFile) -> tuple[int, list[Remark]]:
    """The EXIF orientation, 1 to 8; 1 where there is none, and remarked where it is none of these."""
    try:
        with seam(f"read the EXIF of {file.filename}"), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if file.info.get("exif"):
                Image.Exif().load(file.info["exif"])  # Pillow passes over a JPEG's that it cannot read
            turn = file.getexif().get(ExifTags.Base.Orientation, 1)
    except HonesError as error:
        return 1, [Remark(BAD_EXIF, f"used as stored ({cause(error.__cause__ or error)})")]
    remarks = [Remark(BAD_EXIF, f"used as stored ({' '.join(str(said[0].message).split())})")] if said else []
    if isinstance(turn, int) and 1 <= turn <= 8:
        return turn, [] if turn > 1 else remarks
    return 1, [Remark(NO_ORIENTATION, f"used as stored, orientation {str(turn)[:20]!r} is none of 1 to 8")]


def _rgb(picture: ImageFile.ImageFile) -> Image.Image:
    """The picture in 8-bit RGB. 16 bits of grey keep their upper 8; transparency is dropped.

    Raises:
        ValueError: numbers of no known range.
    """
    sixteen = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))
    if sixteen:
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise ValueError(f"mode {picture.mode}: brightness of no known range")
    return picture.convert("RGBA").convert("RGB") if picture.mode == "P" else picture.convert("RGB")


def what_it_is(head: bytes) -> str | None:
    """What a file is that begins so, where that is no picture of a known format and its first bytes say it."""
    if not head:
        return "an empty file"
    found = next((name for at, magic, name in _OTHERS if head[at : at + len(magic)] == magic), None)
    if found is None:
        text = head.decode("latin-1").lstrip("\xef\xbb\xbf \t\r\n").lower()
        found = "SVG" if text.startswith("<") and "<svg" in text else None
        found = found or next((name for begin, name in _TEXTS if text.startswith(begin)), None)
    return found
