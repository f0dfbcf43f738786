"""Visual question answering: VQA soft accuracy (Antol et al. 2015; the official vqaEval).

With n annotators' answers r_j and the model's answer a, all normalised,

    accuracy = mean over j of min(1, #{i != j : r_i = a} / 3),

the annotator j being left out by index. With m matches among the n this is

    accuracy = (m min(1, (m - 1) / 3) + (n - m) min(1, m / 3)) / n.

With one answer only (n = 1) it is an exact match. Statistics: [accuracy, 1]; score = sum of accuracy / sum of 1.

Normalisation, in the official order: line breaks and tabs to spaces; punctuation; lower case; number words to digits;
articles out; apostrophes put back into contractions. Ours is applied to both sides always, whereas the official script
skips it when all annotators wrote the same string, so that "Yes" misses ten times "yes". A text of which it leaves
nothing, such as the answer A, an article, is compared as it is: it never equals an empty one.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar
from unicodedata import normalize

import numpy as np
from jaxtyping import Float

from hones.data.unified import Item
from hones.errors import NOT_ANNOTATED, BadItem
from hones.tasks.base import Answer, AnswerKind, Example, MeanMetric, Task, picture_of
from hones.tasks.reading import plain

PROMPT = "Question: {question}\nAnswer the question with a short phrase."

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = frozenset(("a", "an", "the"))
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(i) for i, word in enumerate(_NUMBER_WORDS)}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# The official table maps each of these, written with any one of its apostrophes missing, to itself; "somebody'd" is its
# one oddity. Its entries for I'm, I've and I'd've are in upper case and never match a lower-cased word.
CONTRACTIONS = {"somebody'd": "somebodyd"} | {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED.split() for i, c in enumerate(word) if c == "'"
}
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


@lru_cache(maxsize=2**17)  # a sweep scores the same references once per intervention
def compared(answer: str) -> str:
    """What of an answer is compared: the normalised text, or all of it where normalisation leaves nothing (A, ?)."""
    return normalise(answer) or plain(answer)


def normalise(answer: str) -> str:
    """The answer as vqaEval compares it, in Unicode's composed form."""
    text = normalize("NFC", answer).replace("\n", " ").replace("\t", " ").strip()
    words = (NUMBERS.get(word, word) for word in _strip_punctuation(text).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _strip_punctuation(text: str) -> str:
    """Each mark becomes a space, or nothing if it touches a space or the text has a number such as 1,000."""
    has_number = _COMMA_IN_NUMBER.search(text) is not None
    out = text
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if touches_space or has_number else " ")
    return _PERIOD.sub("", out)


class Vqa(MeanMetric, Task):
    """A question about the picture; the answer is scored against those of the annotators."""

    name: ClassVar[str] = "vqa"
    metric_name: ClassVar[str] = "vqa_soft_accuracy"
    answers: ClassVar[AnswerKind] = "text"
    statistic_names: ClassVar[tuple[str, ...]] = ("accuracy", "n")

    def example(self, item: Item, images: Path) -> Example:
        """The question; references are all annotators' answers, or the one answer where no others are given.

        Raises:
            BadItem: no question or no answer.
        """
        if item.vqa is None:
            raise BadItem("no vqa annotation", kind=NOT_ANNOTATED)
        question = item.vqa.question.strip()
        answer = item.vqa.answer.strip()
        if not question:
            raise BadItem("empty question")
        if not answer:
            raise BadItem("empty answer")
        return Example(
            id=item.id,
            image=picture_of(item, images),
            prompts=(PROMPT.format(question=question),),
            target=answer,
            references=tuple(item.vqa.all_answers) or (answer,),
        )

    def references_among(self, texts: Sequence[str]) -> tuple[str, ...]:
        """All annotators' answers, empty ones too: they count among the n.

        Raises:
            BadItem: all are empty.
        """
        super().references_among(texts)
        return tuple(texts)

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[soft accuracy, 1] of one answer."""
        assert isinstance(answer, str)
        given = compared(answer)
        n = len(example.references)
        m = sum(compared(reference) == given for reference in example.references)
        if n == 1:
            return np.array([m, 1.0])
        return np.array([(m * min(1, (m - 1) / 3) + (n - m) * min(1, m / 3)) / n, 1.0])
