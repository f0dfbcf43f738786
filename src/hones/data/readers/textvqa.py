"""TextVQA: `{"data": [{"question_id", "image_id", "question", "answers", "image_width", "image_height"}, ...]}`.

One item per question, its id the question's; pictures `IMAGE_ID.jpg`. Each item serves vqa (soft accuracy over the ten
answers) and ocr (ANLS, best of the answers): the ocr fields hold the question instead of a box.
"""

from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import (
    Reader,
    Reading,
    any_has,
    each,
    named,
    question_about,
    rows_of,
    value_of,
)
from hones.data.readers.cells import answers_of
from hones.data.sources import Source
from hones.data.unified import Row
from hones.errors import HonesError


class TextVqa(Reader):
    """TextVQA's annotation files; questions without answers (its test set) are named."""

    name: ClassVar[str] = "textvqa"
    about: ClassVar[str] = 'TextVQA: {"data": [{"question_id", "image_id", "question", "answers"}, ...]}'

    def claims(self, content: Content, source: Source) -> bool:
        return any_has(rows_of(content, "data"), "question", "image_id")

    def read(self, content: Content, source: Source) -> Reading:
        if not self.claims(content, source):
            raise HonesError(f"{content.path} has no questions under 'data'", expected=self.about)
        return Reading(each(named(content.value["data"], "question_id"), _unified))


def _unified(name: str, row: Any) -> Row:
    picture = value_of(row, "image_id")
    answers = answers_of(row)
    size = {key: row[f"image_{key}"] for key in ("width", "height") if f"image_{key}" in row}
    return {
        "image_id": picture,
        "item_id": name,
        "image_info": {"file_name": f"{picture}.jpg", **size},
        **question_about(row.get("question"), answers),
    }
