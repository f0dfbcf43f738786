"""DocVQA: `{"data": [{"questionId", "question", "image": "documents/x_1.png", "answers": [...]}, ...]}`.

InfographicVQA (`image_local_name`) and ST-VQA (`question_id`, `file_path`) have the same form. One item per question,
its id the question's. Each serves vqa and ocr (ANLS, best of the answers, as these benchmarks score): the ocr fields
hold the question instead of a box. The folder before a picture's name may be the picture folder itself
(`hones.data.names`). Questions without answers (their test sets) are named.
"""

from typing import Any, ClassVar

from hones.data.content import Content
from hones.data.readers.base import (
    Reader,
    Reading,
    Unreadable,
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

_PICTURES = ("image", "image_local_name", "file_path")
_NAMES = ("questionId", "question_id")


class DocVqa(Reader):
    """DocVQA's question files, and those of InfographicVQA and ST-VQA."""

    name: ClassVar[str] = "docvqa"
    about: ClassVar[str] = 'DocVQA: {"data": [{"questionId", "question", "image", "answers"}, ...]}'

    def claims(self, content: Content, source: Source) -> bool:
        rows = rows_of(content, "data")
        return any(any_has(rows, "question", name, picture) for name in _NAMES for picture in _PICTURES)

    def read(self, content: Content, source: Source) -> Reading:
        if not self.claims(content, source):
            raise HonesError(f"{content.path} has no questions about pictures under 'data'", expected=self.about)
        return Reading(each(named(content.value["data"], *_NAMES), _unified))


def _unified(name: str, row: Any) -> Row:
    picture = next((row[key] for key in _PICTURES if isinstance(row, dict) and key in row), None)
    if not isinstance(picture, str):
        raise Unreadable("no image")
    answers = answers_of(row)
    return {
        "image_id": picture,
        "item_id": name,
        "image_info": {"file_name": picture},
        **question_about(value_of(row, "question"), answers),
    }
