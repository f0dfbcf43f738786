"""The unified JSON, `{"data": [item, ...]}` (`hones.data.unified`)."""

from typing import ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading, any_has
from hones.data.sources import Source
from hones.errors import HonesError


class Unified(Reader):
    """Items as they are; a list under `data` of which nothing else is known is taken for this, and each row named."""

    name: ClassVar[str] = "unified"
    about: ClassVar[str] = '{"data": [{"image_id", "image_info", "vqa", "captions", "ocr"}, ...]}'

    def claims(self, content: Content, source: Source) -> bool:
        if not _has_list(content) or "columns" in content.value:  # the rows of a data frame, as lists
            return False
        rows = content.value["data"]
        return any_has(rows, "image_info") or any_has(rows, "item_id") or not any_has(rows, "question")

    def read(self, content: Content, source: Source) -> Reading:
        if not _has_list(content):
            raise HonesError(f"{content.path} has no list under 'data'", expected=self.about)
        return Reading(content.value["data"])


def _has_list(content: Content) -> bool:
    value = content.value
    return content.kind == "json" and isinstance(value, dict) and isinstance(value.get("data"), list)
