"""TextVQA: `{"data": [{"question_id", "image_id", "question", "answers", "image_width", "image_height"}, ...]}`.

One item per question, its id the question's; pictures `IMAGE_ID.jpg`. Each item serves vqa (soft accuracy over the ten
answers) and ocr (ANLS, best of the answers): the ocr fields hold the question instead of a box.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from hones.data.readers.base import (
    Reader,
    Reading,
    any_has,
    is_object,
    most_common,
    name_of,
    rows_of,
    texts,
    unreadable,
)
from hones.data.sources import Content, Source
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
        return Reading(_rows(content.value["data"]))


def _rows(questions: list[Any]) -> Iterable[Row]:
    for position, row in enumerate(questions):
        name = name_of(row, position, "question_id")
        answers = texts(row.get("answers")) if is_object(row) else None
        if not is_object(row) or "image_id" not in row:
            yield unreadable(name, "no image_id")
        elif answers is None:
            yield unreadable(name, "no answers")
        else:
            size = {key: row[f"image_{key}"] for key in ("width", "height") if f"image_{key}" in row}
            answer = most_common(answers)
            yield {
                "image_id": row["image_id"],
                "item_id": name,
                "image_info": {"file_name": f"{row['image_id']}.jpg", **size},
                "vqa": {"question": row.get("question"), "answer": answer, "all_answers": answers},
                "ocr": {"question": row.get("question"), "text": answer, "all_texts": answers},
            }
