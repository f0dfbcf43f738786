"""COCO's captions: `{"images": [{"id", "file_name"}, ...], "annotations": [{"id", "image_id", "caption"}, ...]}`.

One item per picture with all its captions, in the file's order; its id is the picture's. What `hones data coco` makes
of this file with three others serves all four tasks; this one alone serves caption and retrieval.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading, any_has, named, rows_of
from hones.data.sources import Source
from hones.data.unified import UNREADABLE, LeftOut, Row
from hones.errors import HonesError


class CocoCaptions(Reader):
    """captions_train2014.json, captions_val2017.json and others in their form (NoCaps, TextCaps' COCO form)."""

    name: ClassVar[str] = "coco"
    about: ClassVar[str] = 'COCO\'s captions: {"images": [...], "annotations": [{"image_id", "caption"}, ...]}'

    def claims(self, content: Content, source: Source) -> bool:
        pictures = any_has(rows_of(content, "images"), "id", "file_name")
        return pictures and any_has(rows_of(content, "annotations"), "image_id", "caption")

    def read(self, content: Content, source: Source) -> Reading:
        if not self.claims(content, source):
            raise HonesError(f"{content.path} has no images and annotations with captions", expected=self.about)
        return Reading(_items(rows_of(content, "images"), rows_of(content, "annotations")))


def _items(images: list[Any], annotations: list[Any]) -> Iterator[Row]:
    """The annotations that belong to no picture or hold no caption, by name; then every picture."""
    known = {_key(row.get("id")) for row in images if isinstance(row, dict)}
    captions_of: dict[str, list[dict[str, Any]]] = {}
    for name, row in named(annotations, "id"):
        caption = row.get("caption") if isinstance(row, dict) else None
        if not isinstance(caption, str):
            yield LeftOut(f"annotation {name}", "no caption", UNREADABLE)
        elif _key(row.get("image_id")) not in known:
            yield LeftOut(f"annotation {name}", "its image_id is none of the images'", UNREADABLE)
        else:
            captions_of.setdefault(_key(row["image_id"]), []).append({"caption_id": row.get("id"), "caption": caption})
    for name, row in named(images, "id"):
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            yield LeftOut(name, "no file_name", UNREADABLE)
        elif _key(row.get("id")) not in captions_of:
            yield LeftOut(name, "no captions", UNREADABLE)
        else:
            info = {key: row[key] for key in ("file_name", "width", "height") if key in row}
            yield {"image_id": row["id"], "image_info": info, "captions": captions_of[_key(row["id"])]}


def _key(number: Any) -> str:
    """An id as text: 1 and "1" are one picture, whatever else stands there is its own."""
    return str(number)
