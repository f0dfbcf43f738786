"""RUN/T/answers.jsonl: what the model says, so that a person can see what a number is made of.

One line per split and item: where its picture is (from the run folder) and the box outlined in it, what was asked, the
target, the references, and under every arm the answer and its score. Arms:

    unedited                   of every stage that sweeps
    masked, random             of the masking, its first control; random #2 is the second
    kept                       of the keeping
    masked:METHOD              of a comparison, at its ratio
    steered, steered:WAY       of HONES and of the other ways, their first seeds; steered #2 is the second seed

Every stage replaces its own arms, and the file is replaced as a whole. Items of one name and prompt about different
pictures, or scored against other references, as two files may have them, are two lines.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hones.errors import HonesError, from_validation
from hones.files import place_from, write_bytes
from hones.stats import UNEDITED
from hones.sweep.answer_log import ArmAnswer, ItemAnswers
from hones.tasks.base import Example

FILE = "answers.jsonl"
MASKED = "masked"
RANDOM = "random"
KEPT = "kept"
STEERED = "steered"


class Said(BaseModel):
    """An answer under one arm, as text, and the metric of this item alone.

    margins: of yes-or-no questions, logit(Yes) - logit(No) of every prompt, in four decimals; rank: of the true
    candidate among several, 1 the best.
    """

    model_config = ConfigDict(frozen=True)

    answer: str
    score: float | None = None
    margins: tuple[float, ...] | None = None
    rank: int | None = None

    @property
    def is_right(self) -> bool:
        """Whether it has the whole score."""
        return self.score is not None and self.score >= 1

    def __str__(self) -> str:
        rank = "" if self.rank is None else f"rank {self.rank}: "
        score = "" if self.score is None else f" ({self.score:.2g})"
        return f"{rank}{self.answer if self.answer.strip() else 'nothing'}{score}"


class AnsweredItem(BaseModel):
    """One item of one split, and what the model says under every arm.

    box: outlined in the picture, as `Example` has it; size: for which it was annotated.
    """

    model_config = ConfigDict(frozen=True)

    split: str
    id: str
    picture: str | None = None
    box: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None
    prompt: str
    target: str
    references: tuple[str, ...]
    answers: dict[str, Said]

    def asked(self, run: Path) -> tuple[object, ...]:
        """All but the answers, the picture wherever it was named from: equal for one item under several arms."""
        picture = None if self.picture is None else os.path.realpath(run / self.picture)
        return self.split, self.id, picture, self.box, self.prompt, self.target, self.references

    @property
    def question(self) -> str:
        """The first line of the prompt."""
        return next(iter(self.prompt.strip().splitlines()), "")

    @property
    def wanted(self) -> str:
        """What a right answer says: the target, or the first of the references where it is none of them."""
        return self.target if not self.references or self.target in self.references else self.references[0]

    def changed(self, arms: Iterable[str]) -> bool:
        """Whether one of the arms says other than the unedited model, or is scored otherwise."""
        before = self.answers.get(UNEDITED)
        after = [self.answers[arm] for arm in arms if arm in self.answers]
        return before is not None and any(
            (x.answer, x.score, x.rank) != (before.answer, before.score, before.rank) for x in after
        )


def said(example: Example, given: ArmAnswer) -> Said:
    """An answer as text."""
    answer = given.answer
    score = given.score if np.isfinite(given.score) else None
    if isinstance(answer, str):
        return Said(answer=answer, score=score)
    if isinstance(answer, float):
        return Said(answer=f"log p {answer:.3f}", score=score)
    assert isinstance(answer, np.ndarray)
    margins = tuple(round(float(x), 4) for x in answer)
    if len(margins) == 1:
        return Said(answer="Yes" if answer[0] > 0 else "No", score=score, margins=margins)
    best = int(np.argmax(answer))
    text = example.references[best] if len(example.references) == len(margins) else f"prompt {best + 1}"
    return Said(answer=text, score=score, margins=margins, rank=1 + int(np.sum(answer > answer[0])))


def keep_answers(folder: Path, split: str, kept: Sequence[ItemAnswers], owned: Callable[[str], bool]) -> None:
    """Write the answers of a stage's arms into a task's folder.

    Args:
        owned: whether an arm is this stage's, so that those of an earlier run of it go, and items that only it had.
    """
    file = folder / FILE
    earlier = read_answers(file) if file.is_file() else []
    items: dict[Any, AnsweredItem] = {}
    for item in earlier:
        left = {arm: x for arm, x in item.answers.items() if item.split != split or not owned(arm)}
        if item.split != split or {*left} - {UNEDITED}:
            items[item.asked(folder.parent)] = item.model_copy(update={"answers": left})
    for new in items_of(kept, split, folder.parent):
        asked = new.asked(folder.parent)
        before = items[asked].answers if asked in items else {}
        if UNEDITED in before and UNEDITED in new.answers and before[UNEDITED].answer != new.answers[UNEDITED].answer:
            # the other arms are of a model that answers otherwise: of another dtype, or fewer tokens
            before = {}
        items[asked] = new.model_copy(update={"answers": before | new.answers})
    lines = [json.dumps(item.model_dump(exclude_none=True), ensure_ascii=False) + "\n" for item in items.values()]
    write_bytes(file, "".join(lines).encode(errors="surrogateescape"))


def items_of(kept: Sequence[ItemAnswers], split: str, run: Path) -> list[AnsweredItem]:
    """What a sweep kept, as the lines of a file in a task's folder of the run."""
    return [
        AnsweredItem(
            split=split,
            id=of_item.example.id,
            picture=None if of_item.example.image is None else place_from(run, of_item.example.image),
            box=of_item.example.box,
            size=of_item.example.size,
            prompt=of_item.example.prompts[0],
            target=of_item.example.target,
            references=of_item.example.references,
            answers={arm: said(of_item.example, given) for arm, given in of_item.arms.items()},
        )
        for of_item in kept
    ]


def read_answers(file: Path) -> list[AnsweredItem]:
    """The items of an answers.jsonl.

    Raises:
        HonesError: no such file, or a line that is not of that form.
    """
    again = "remove it, then run the stages of its task again with --fresh"
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise HonesError(f"cannot read {file} ({error.strerror})", do=again) from error
    items = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            items.append(AnsweredItem.model_validate(json.loads(line)))
        except ValidationError as error:
            raise from_validation(error, f"{file}, line {number}", do=again) from error
        except (ValueError, RecursionError) as error:
            raise HonesError(f"{file}, line {number} is not JSON ({error})", do=again) from error
    return items
