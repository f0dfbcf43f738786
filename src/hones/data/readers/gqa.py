"""GQA: `{question_id: {"imageId", "question", "answer"}, ...}`; one item per question, pictures `IMAGEID.jpg`.

GQA's pictures are Visual Genome's, about half of which are COCO photographs in another encoding: where factors were
learned on COCO, leave those out by Visual Genome's `coco_id`.
"""

from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import Reader, Reading, any_has, each, value_of
from hones.data.readers.cells import as_text
from hones.data.sources import Source
from hones.data.unified import Row
from hones.errors import HonesError


class Gqa(Reader):
    """GQA's question files, balanced or not; one answer each, scored by exact match after normalisation."""

    name: ClassVar[str] = "gqa"
    about: ClassVar[str] = 'GQA: {"QUESTION_ID": {"imageId", "question", "answer"}, ...}'

    def claims(self, content: Content, source: Source) -> bool:
        is_object = content.kind == "json" and isinstance(content.value, dict)
        return is_object and any_has(content.value.values(), "imageId", "question")

    def read(self, content: Content, source: Source) -> Reading:
        if not self.claims(content, source):
            raise HonesError(f"{content.path} has no questions with imageId", expected=self.about)
        return Reading(each(content.value.items(), _unified))


def _unified(name: str, row: Any) -> Row:
    picture = value_of(row, "imageId")
    answer = as_text(value_of(row, "answer"), "answer")
    return {
        "image_id": picture,
        "item_id": name,
        "image_info": {"file_name": f"{picture}.jpg"},
        "vqa": {"question": row.get("question"), "answer": answer, "all_answers": [answer]},
    }
