"""GQA: `{question_id: {"imageId", "question", "answer"}, ...}`; one item per question, pictures `IMAGEID.jpg`.

GQA's pictures are Visual Genome's, about half of which are COCO photographs in another encoding: where factors were
learned on COCO, leave those out by Visual Genome's `coco_id`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from hones.data.readers.base import Reader, Reading, any_has, is_object, unreadable
from hones.data.sources import Content, Source
from hones.data.unified import Row
from hones.errors import HonesError


class Gqa(Reader):
    """GQA's question files, balanced or not; one answer each, scored by exact match after normalisation."""

    name: ClassVar[str] = "gqa"
    about: ClassVar[str] = 'GQA: {"QUESTION_ID": {"imageId", "question", "answer"}, ...}'

    def claims(self, content: Content, source: Source) -> bool:
        return (
            content.kind == "json"
            and is_object(content.value)
            and any_has(content.value.values(), "imageId", "question")
        )

    def read(self, content: Content, source: Source) -> Reading:
        if not self.claims(content, source):
            raise HonesError(f"{content.path} has no questions with imageId", expected=self.about)
        return Reading(_rows(content.value))


def _rows(questions: dict[str, Any]) -> Iterable[Row]:
    for name, row in questions.items():
        if not is_object(row) or "imageId" not in row:
            yield unreadable(name, "no imageId")
        elif "answer" not in row:
            yield unreadable(name, "no answer")
        else:
            yield {
                "image_id": row["imageId"],
                "item_id": name,
                "image_info": {"file_name": f"{row['imageId']}.jpg"},
                "vqa": {"question": row.get("question"), "answer": row["answer"], "all_answers": [row["answer"]]},
            }
