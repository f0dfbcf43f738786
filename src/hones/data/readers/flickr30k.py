"""Flickr30k: five captions for each picture, as CSV or as Karpathy's JSON.

    image_name| comment_number| comment          results.csv, one caption a line; `,` instead of `|` as well
    image,caption                                Flickr8k; any table of captions alone whose pictures repeat
    {"images": [{"filename", "split", "sentences": [{"raw"}, ...]}, ...]}        dataset_flickr30k.json; `?split=test`

One item per picture; its id is the file's name without suffix, in a table where two would be alike (folders, suffixes)
the name as it is. One line of the published CSV lacks its last separator:
it is named, and its picture has four captions.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading, Unreadable, any_has, each, named, rows_of
from hones.data.readers.cells import as_text, is_marked_missing
from hones.data.readers.table import keys_of, objects_of
from hones.data.sources import Source
from hones.data.unified import LeftOut, Row
from hones.errors import HonesError

_PICTURE = ("image_name", "image")
_CAPTION = ("comment", "caption")


class Flickr30k(Reader):
    """Flickr30k, Flickr8k, and COCO in Karpathy's form."""

    name: ClassVar[str] = "flickr30k"
    about: ClassVar[str] = "Flickr30k: results.csv with image_name and comment, or dataset_flickr30k.json"
    options: ClassVar[tuple[str, ...]] = ("split",)

    def claims(self, content: Content, source: Source) -> bool:
        pictures, captions = _columns(content)
        if pictures is None or captions is None:
            return any_has(rows_of(content, "images"), "sentences", "filename")
        files = [row.get(pictures) for row in objects_of(content) or [] if isinstance(row, dict)]
        names = [file for file in files if isinstance(file, str)]
        only_captions = {_plain(key) for key in keys_of(content)} <= {*_PICTURE, *_CAPTION, "comment_number"}
        return _plain(pictures) == _PICTURE[0] or (only_captions and len(set(names)) < len(names))

    def read(self, content: Content, source: Source) -> Reading:
        split = source.options.get("split")
        if content.kind == "csv" or None not in _columns(content):
            if split is not None:
                raise HonesError(f"split={split} of {content.path}", expected="no split: a table has none")
            return Reading(_of_table(content))
        images = rows_of(content, "images")
        if not any_has(images, "sentences", "filename"):
            raise HonesError(f"{content.path} has no images with sentences", expected=self.about)
        splits = {str(row.get("split")) for row in images if isinstance(row, dict)}
        if split is not None and split not in splits:
            raise HonesError(f"{content.path} has no split {split!r}", expected=f"one of {', '.join(sorted(splits))}")
        rows = named(images, "filename")
        chosen = [row for row in rows if split is None or not isinstance(row[1], dict) or row[1].get("split") == split]
        return Reading(each(chosen, _of_json))


def _plain(name: str) -> str:
    return name.strip().lower()


def _columns(content: Content) -> tuple[str | None, str | None]:
    """Those of the pictures and of the captions."""
    of = {_plain(key): key for key in reversed(keys_of(content))}
    pictures = next((of[name] for name in _PICTURE if name in of), None)
    return pictures, next((of[name] for name in _CAPTION if name in of), None)


def _of_table(content: Content) -> Iterator[Row]:
    pictures, captions = _columns(content)
    rows = objects_of(content)
    if pictures is None or captions is None or rows is None:
        raise HonesError(f"{content.path} lacks image_name and comment", expected="the columns of Flickr30k")

    def line(name: str, row: Any) -> Row:
        file, caption = (row.get(pictures), row.get(captions)) if isinstance(row, dict) else (None, None)
        nothing = content.kind == "csv" and is_marked_missing("caption", caption)
        if nothing or caption is None or not isinstance(file, str) or not file.strip():
            raise Unreadable("no picture with a caption")
        return {file.strip(): as_text(caption, "caption").strip()}

    captions_of: dict[str, list[str]] = {}
    for row in each(named(rows), line):
        if isinstance(row, LeftOut):
            yield row
            continue
        for file, caption in row.items():
            captions_of.setdefault(file, []).append(caption)
    times = Counter(map(_stem, captions_of))
    for file, texts in captions_of.items():
        yield _unified(file, texts, name=_stem(file) if times[_stem(file)] == 1 else file)


def _of_json(name: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise Unreadable("no object")
    file = row.get("filename")
    sentences = row.get("sentences")
    if not isinstance(sentences, list) or not isinstance(file, str):
        raise Unreadable("no filename or no sentences")
    folder = row.get("filepath")
    texts = [sentence.get("raw") if isinstance(sentence, dict) else sentence for sentence in sentences]
    return _unified(f"{folder}/{file}" if isinstance(folder, str) else file, texts, name=_stem(file))


def _stem(file: str) -> str:
    return PurePath(file).stem or file


def _unified(file: str, captions: list[Any], name: str) -> Row:
    """name: the picture's id."""
    return {
        "image_id": name,
        "image_info": {"file_name": file},
        "captions": [{"caption": caption} for caption in captions],
    }
