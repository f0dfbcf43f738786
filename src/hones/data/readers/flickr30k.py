"""Flickr30k: five captions for each picture, as CSV or as Karpathy's JSON.

    image_name| comment_number| comment          results.csv, one caption a line; `,` instead of `|` as well
    {"images": [{"filename", "split", "sentences": [{"raw"}, ...]}, ...]}        dataset_flickr30k.json; `?split=test`

One item per picture; its id is the file's name without suffix. One line of the published CSV lacks its last separator:
it is named, and its picture has four captions.
"""

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, ClassVar

from hones.data.readers.base import Reader, Reading, any_has, is_object, name_of, rows_of, unreadable
from hones.data.sources import Content, Source
from hones.data.unified import LeftOut, Row
from hones.errors import HonesError

_PICTURE, _CAPTION = ("image_name", "image"), ("comment", "caption")


class Flickr30k(Reader):
    """Flickr30k, Flickr8k, and COCO in Karpathy's form."""

    name: ClassVar[str] = "flickr30k"
    about: ClassVar[str] = "Flickr30k: results.csv with image_name and comment, or dataset_flickr30k.json"
    options: ClassVar[tuple[str, ...]] = ("split",)

    def claims(self, content: Content, source: Source) -> bool:
        if content.kind == "csv":
            pictures, captions = _columns(content)
            if pictures is None or captions is None:
                return False
            named = [row[pictures] for row in content.value if is_object(row)]
            return pictures == _PICTURE[0] or (_only_captions(content) and len(set(named)) < len(named))
        return any_has(rows_of(content, "images"), "sentences", "filename")

    def read(self, content: Content, source: Source) -> Reading:
        split = source.options.get("split")
        if content.kind == "csv":
            if split is not None:
                raise HonesError(f"split={split} of {content.path}", expected="no split: a CSV file has none")
            return Reading(_of_table(content))
        images = rows_of(content, "images")
        if not any_has(images, "sentences", "filename"):
            raise HonesError(f"{content.path} has no images with sentences", expected=self.about)
        splits = {str(row.get("split")) for row in images if is_object(row)}
        if split is not None and split not in splits:
            raise HonesError(f"{content.path} has no split {split!r}", expected=f"one of {', '.join(sorted(splits))}")
        return Reading(_of_json(images, split))


def _columns(content: Content) -> tuple[str | None, str | None]:
    pictures = next((name for name in _PICTURE if name in content.columns), None)
    return pictures, next((name for name in _CAPTION if name in content.columns), None)


def _only_captions(content: Content) -> bool:
    return set(content.columns) <= {*_PICTURE, *_CAPTION, "comment_number"}


def _of_table(content: Content) -> Iterable[Row]:
    pictures, captions = _columns(content)
    if pictures is None or captions is None:
        raise HonesError(f"{content.path} lacks image_name and comment", expected="the columns of Flickr30k")
    found: dict[str, list[str]] = {}
    for row in content.value:
        if isinstance(row, LeftOut):
            yield row
        else:
            found.setdefault(row[pictures].strip(), []).append(row[captions].strip())
    for name, said in found.items():
        yield _item(name, said)


def _of_json(images: list[Any], split: str | None) -> Iterable[Row]:
    for position, row in enumerate(images):
        if not is_object(row):
            yield unreadable(f"#{position}", "no object")
        elif split is None or row.get("split") == split:
            sentences = row.get("sentences")
            said = [s.get("raw") for s in sentences if is_object(s)] if isinstance(sentences, list) else None
            if said is None or not isinstance(row.get("filename"), str):
                yield unreadable(name_of(row, position, "filename"), "no filename or no sentences")
            else:
                folder = row.get("filepath")
                yield _item(f"{folder}/{row['filename']}" if isinstance(folder, str) else row["filename"], said)


def _item(file: str, captions: list[Any]) -> Row:
    return {
        "image_id": PurePath(file).stem or file,
        "image_info": {"file_name": file},
        "captions": [{"caption": caption} for caption in captions],
    }
