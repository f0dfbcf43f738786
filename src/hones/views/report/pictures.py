"""Thumbnails inside the page: every picture is read whole and encoded anew, so that only pixels get through."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hones.data.pictures import open_picture
from hones.errors import BadItem
from hones.runs.answers import AnsweredItem

SIDE = 240


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data address, or why there is none."""

    name: str
    address: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(name: str, folder: Path, side: int = SIDE) -> Thumbnail:
    """The picture `name` of `folder`, small; one that is missing, damaged or outside the folder is named instead.

    The name "" is that of no picture: the thumbnail is empty.
    """
    if not name:
        return Thumbnail("")
    path = folder / name.replace("\x00", "�")
    if not path.resolve().is_relative_to(folder.resolve()):
        return Thumbnail(name, problem="it lies outside the analysis folder")
    try:
        return encoded(name, open_picture(path), side)
    except BadItem as error:
        return Thumbnail(name, problem=str(error).replace(f"{folder}/", "").replace(f" {name}", "", 1))


def picture_asked_about(item: AnsweredItem, run: Path, side: int) -> Thumbnail:
    """The picture of an item, wherever its data lie, with the box outlined in it; one that cannot be read is named."""
    if item.picture is None:
        return Thumbnail("")
    try:
        picture = open_picture(run / item.picture.replace("\x00", "�"), item.box, item.size)
        return encoded(item.picture, picture, side)
    except BadItem as error:
        return Thumbnail(item.picture, problem=error.kind)


def encoded(name: str, picture: Image.Image, side: int = SIDE) -> Thumbnail:
    """A picture as a thumbnail."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=85)
    address = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return Thumbnail(name, address, small.width, small.height)
