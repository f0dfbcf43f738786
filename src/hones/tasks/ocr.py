"""Reading the text in a box: average normalised Levenshtein similarity, ANLS (Biten et al. 2019).

With the edit distance d between the answer a and a reference r, both in lower case and Unicode's composed form, inner
spaces and punctuation kept, surrounding white space stripped,

    NL(a, r) = d(a, r) / max(|a|, |r|),    anls = max over r of (1 - NL if NL < 0.5 else 0).

Statistics: [anls, 1]; score = sum of anls / sum of 1.
"""

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from rapidfuzz.distance import Levenshtein

from hones.data.pictures import BOX_OUTSIDE
from hones.data.unified import ImageInfo, Item
from hones.errors import NOT_ANNOTATED, BadItem
from hones.tasks.base import Answer, AnswerKind, Example, MeanMetric, Task, picture_of
from hones.tasks.reading import plain
from hones.tasks.vqa import PROMPT as QUESTION_PROMPT

PROMPT = "Transcribe the text inside the blue box.\nOutput text only."
THRESHOLD = 0.5


def anls(answer: str, reference: str) -> float:
    """The similarity of two texts in [0, 1]; 0 where half of the longer one or more would have to be edited."""
    distance = Levenshtein.normalized_distance(plain(answer), plain(reference))
    return 1 - distance if distance < THRESHOLD else 0.0


class Ocr(MeanMetric, Task):
    """The text inside a blue box that is drawn on the picture."""

    name: ClassVar[str] = "ocr"
    metric_name: ClassVar[str] = "anls"
    answers: ClassVar[AnswerKind] = "text"
    statistic_names: ClassVar[tuple[str, ...]] = ("anls", "n")

    def example(self, item: Item, images: Path) -> Example:
        """The text of the item's box, [x, y, width, height] in stored pixels.

        An item without a box asks its question as vqa does; every non-empty text given is a reference.

        Raises:
            BadItem: no text, or a box that cannot be drawn on the picture.
        """
        if item.ocr is None:
            raise BadItem("no ocr annotation", kind=NOT_ANNOTATED)
        text = item.ocr.text.strip()
        if not text:
            raise BadItem("empty ocr text")
        if item.ocr.bbox is None:
            question = (item.ocr.question or "").strip()
            if not question:
                raise BadItem("empty question")
            return Example(
                id=item.id,
                image=picture_of(item, images),
                prompts=(QUESTION_PROMPT.format(question=question),),
                target=text,
                references=tuple(other for other in item.ocr.all_texts if other.strip()) or (text,),
            )
        check_box(item.ocr.bbox, item.image_info)
        return Example(
            id=item.id,
            image=picture_of(item, images),
            prompts=(PROMPT,),
            target=text,
            references=(text,),
            box=item.ocr.bbox,
            size=size_of(item.image_info),
        )

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[similarity to the best reference, 1] of one answer."""
        assert isinstance(answer, str)
        return np.array([max(anls(answer, reference) for reference in example.references), 1.0])


def size_of(picture: ImageInfo | None) -> tuple[int, int] | None:
    """(width, height) that an item was annotated for, where known."""
    if picture is None or picture.width is None or picture.height is None:
        return None
    return picture.width, picture.height


def check_box(box: tuple[float, float, float, float], picture: ImageInfo | None) -> None:
    """Raises BadItem where [x, y, width, height] cannot be drawn on the picture."""
    x, y, width, height = box
    if not all(map(math.isfinite, box)):
        raise BadItem(f"ocr box {list(box)} is not finite", kind="box without area")
    if width <= 0 or height <= 0:
        raise BadItem(f"ocr box {list(box)} has no area", kind="box without area")
    across, down = (None, None) if picture is None else (picture.width, picture.height)
    beyond_right = across is not None and x >= across
    beyond_bottom = down is not None and y >= down
    if x + width <= 0 or y + height <= 0 or beyond_right or beyond_bottom:
        size = f"{across} x {down}"
        raise BadItem(f"ocr box {list(box)} lies outside the picture ({size})", kind=BOX_OUTSIDE)
