"""VQAv2: a questions file and an annotations file, joined by question_id.

    {"data_subtype": "train2014", "questions": [{"image_id", "question_id", "question"}, ...]}
    {"annotations": [{"question_id", "multiple_choice_answer", "answers": [{"answer"}, ...]}, ...]}

The second is named after the first: `questions.json?annotations=annotations.json`. One item per question; its id is the
question's. Pictures are COCO's, `COCO_train2014_000000000009.jpg`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from hones.data.readers.base import Reader, Reading, any_has, is_object, name_of, rows_of, texts, unreadable
from hones.data.sources import Content, Source, read_json_file
from hones.data.unified import Row
from hones.errors import HonesError


class VqaV2(Reader):
    """VQAv2 and other files in its form (OK-VQA)."""

    name: ClassVar[str] = "vqav2"
    about: ClassVar[str] = "VQAv2: questions.json?annotations=annotations.json, both as published"
    options: ClassVar[tuple[str, ...]] = ("annotations", "subtype")

    def claims(self, content: Content, source: Source) -> bool:
        return any_has(rows_of(content, "questions"), "question_id", "image_id", "question") or any_has(
            rows_of(content, "annotations"), "question_id", "answers"
        )

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
        annotations, sha = read_json_file(file)
        answers = annotations.get("annotations") if is_object(annotations) else None
        if not isinstance(answers, list):
            raise HonesError(f"{file} has no list under 'annotations'", expected="the annotations file of VQAv2")
        subtype = source.options.get("subtype", content.value.get("data_subtype"))
        if not isinstance(subtype, str):
            raise HonesError(
                f"{content.path} has no data_subtype, which names the pictures",
                expected="COCO_train2014_000000000009.jpg, say",
                do=f"write {content.path.name}?subtype=train2014&annotations=ANNOTATIONS.json",
            )
        return Reading(_rows(questions, answers, subtype.replace("-dev", "")), also=(sha,))


def _rows(questions: list[Any], annotations: list[Any], subtype: str) -> Iterable[Row]:
    of = {name_of(row, position, "question_id"): row for position, row in enumerate(annotations) if is_object(row)}
    for position, question in enumerate(questions):
        name = name_of(question, position, "question_id")
        annotation = of.get(name)
        if not is_object(question) or "image_id" not in question:
            yield unreadable(name, "no image_id")
        elif annotation is None:
            yield unreadable(name, "no annotation of this question")
        else:
            vqa = vqa_fields(question, annotation)
            picture = question["image_id"]
            known = isinstance(picture, int) and not isinstance(picture, bool)
            file = f"COCO_{subtype}_{picture:012d}.jpg" if known else f"COCO_{subtype}_{picture}.jpg"
            yield (
                unreadable(name, "no answers")
                if vqa is None
                else {"image_id": picture, "item_id": name, "image_info": {"file_name": file}, "vqa": vqa}
            )


def vqa_fields(question: dict[str, Any], annotation: dict[str, Any]) -> dict[str, Any] | None:
    """The unified vqa fields of a question with its annotation; None if it has no answers."""
    given = annotation.get("answers")
    answers = (
        texts([a["answer"] if is_object(a) else a for a in given if not is_object(a) or "answer" in a])
        if (isinstance(given, list))
        else None
    )
    if answers is None:
        return None
    kept = {key: annotation[key] for key in ("question_type", "answer_type") if key in annotation}
    return {
        "question_id": question.get("question_id"),
        "question": question.get("question"),
        "answer": annotation.get("multiple_choice_answer", answers[0]),
        "all_answers": answers,
        **kept,
    }
