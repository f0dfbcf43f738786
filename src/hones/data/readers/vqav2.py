"""VQAv2: a questions file and an annotations file, joined by question_id.

    {"data_subtype": "train2014", "questions": [{"image_id", "question_id", "question"}, ...]}
    {"annotations": [{"question_id", "multiple_choice_answer", "answers": [{"answer"}, ...]}, ...]}

The second is named after the first: `questions.json?annotations=annotations.json`. One item per question; its id is the
question's. Pictures are COCO's, `COCO_train2014_000000000009.jpg`.
"""

from typing import Any, ClassVar

from hones.data.content import Content, read_json_file
from hones.data.readers.base import Reader, Reading, Unreadable, any_has, each, named, rows_of, value_of
from hones.data.readers.cells import as_text, is_missing, texts
from hones.data.sources import Source
from hones.data.unified import LeftOut, Row
from hones.errors import HonesError

TWICE = "second annotation of a question"


class VqaV2(Reader):
    """VQAv2 and other files in its form (OK-VQA)."""

    name: ClassVar[str] = "vqav2"
    about: ClassVar[str] = "VQAv2: questions.json?annotations=annotations.json, both as published"
    options: ClassVar[tuple[str, ...]] = ("annotations", "subtype")

    def claims(self, content: Content, source: Source) -> bool:
        questions = any_has(rows_of(content, "questions"), "question_id", "image_id", "question")
        return questions or any_has(rows_of(content, "annotations"), "question_id", "answers")

    def read(self, content: Content, source: Source) -> Reading:
        questions = rows_of(content, "questions")
        if not questions:
            raise HonesError(
                f"{content.path} has no list under 'questions'",
                expected="the questions file of VQAv2",
                do="write QUESTIONS.json?annotations=ANNOTATIONS.json",
            )
        if "annotations" not in source.options:
            raise HonesError(
                f"{content.path} has questions without answers",
                expected="the annotations file too",
                do=f"write {content.path.name}?annotations=ANNOTATIONS.json",
            )
        file = source.beside("annotations")
        value, sha256 = read_json_file(file)
        annotations = value.get("annotations") if isinstance(value, dict) else None
        if not isinstance(annotations, list):
            raise HonesError(f"{file} has no list under 'annotations'", expected="the annotations file of VQAv2")
        subtype = source.options.get("subtype", content.value.get("data_subtype"))
        if not isinstance(subtype, str):
            raise HonesError(
                f"{content.path} has no data_subtype, which names the pictures",
                expected="COCO_train2014_000000000009.jpg, say",
                do=f"write {content.path.name}?subtype=train2014&annotations=ANNOTATIONS.json",
            )
        pictures = f"COCO_{subtype.replace('-dev', '')}"
        annotated = [(name, row) for name, row in named(annotations, "question_id") if isinstance(row, dict)]
        of = dict(annotated)
        twice = len(annotated) - len(of)
        remarks = [LeftOut(file.name, f"{twice} of a question that has one before: the last one counts", TWICE)]

        def unified(name: str, question: Any) -> Row:
            picture = value_of(question, "image_id")
            if name not in of:
                raise Unreadable("no annotation of this question")
            vqa = vqa_fields(question, of[name])
            if vqa is None:
                raise Unreadable("no answers")
            number = isinstance(picture, int) and not isinstance(picture, bool)
            info = {"file_name": f"{pictures}_{picture:012d}.jpg" if number else f"{pictures}_{picture}.jpg"}
            return {"image_id": picture, "item_id": name, "image_info": info, "vqa": vqa}

        rows = each(named(questions, "question_id"), unified)
        return Reading(rows, also=(sha256,), remarks=remarks if twice else ())


def vqa_fields(question: dict[str, Any], annotation: dict[str, Any]) -> dict[str, Any] | None:
    """The unified vqa fields of a question with its annotation; None if it has no answers."""
    given = annotation.get("answers")
    if not isinstance(given, list):
        return None
    with_answer = [row for row in given if not isinstance(row, dict) or "answer" in row]
    answers = texts([row["answer"] if isinstance(row, dict) else row for row in with_answer])
    if answers is None:
        return None
    most = annotation.get("multiple_choice_answer")
    kept = {key: annotation[key] for key in ("question_type", "answer_type") if key in annotation}
    return {
        "question_id": question.get("question_id"),
        "question": question.get("question"),
        "answer": answers[0] if is_missing(most) else as_text(most, "multiple_choice_answer"),
        "all_answers": answers,
        **kept,
    }
