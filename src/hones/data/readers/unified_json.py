"""The unified JSON, `{"data": [item, ...]}` (`hones.data.unified`)."""

from typing import ClassVar

from hones.data.readers.base import Reader, Reading, any_has, rows_of
from hones.data.sources import Content, Source
from hones.errors import HonesError


class Unified(Reader):
    """Items as they are; a list under `data` of which nothing else is known is taken for this, and each row named."""

    name: ClassVar[str] = "unified"
    about: ClassVar[str] = '{"data": [{"image_id", "image_info", "vqa", "captions", "ocr"}, ...]}'

    def claims(self, content: Content, source: Source) -> bool:
        rows = rows_of(content, "data")
        return (
            any_has(rows, "image_info")
            or any_has(rows, "item_id")
            or (
                content.kind == "json"
                and isinstance(content.value, dict)
                and isinstance(content.value.get("data"), list)
                and not any_has(rows, "question")
            )
        )

    def read(self, content: Content, source: Source) -> Reading:
        if content.kind != "json" or not isinstance(content.value, dict):
            raise HonesError(f"{content.path} has no list under 'data'", expected=self.about)
        if not isinstance(content.value.get("data"), list):
            raise HonesError(f"{content.path} has no list under 'data'", expected=self.about)
        return Reading(content.value["data"])
