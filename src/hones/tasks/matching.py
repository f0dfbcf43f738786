"""Whether an answer is one of the references: the same text, the same words, the same letter, the same number.

Statistics: [1 if it is, else 0; 1]; score = sum of the first / sum of the second.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.errors import BadItem
from hones.tasks.base import Answer, Example, MeanMetric
from hones.tasks.reading import begins_with, holds, letter_in, number_in, numbers_in, plain
from hones.tasks.vqa import compared


class Match(MeanMetric):
    """The share of answers that match a reference."""

    statistic_names: ClassVar[tuple[str, ...]] = ("matches", "n")

    @abstractmethod
    def matches(self, answer: str, reference: str) -> bool:
        """Whether the answer is right where the reference is."""

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[match, 1] of one answer."""
        assert isinstance(answer, str)
        return np.array([float(any(self.matches(answer, reference) for reference in example.references)), 1.0])


class ExactMatch(Match):
    """The share of answers that equal a reference but for case and outer space; every other character counts."""

    metric_name: ClassVar[str] = "exact_match"
    meaning: ClassVar[int] = 2  # was what vqa_exact_match is

    def matches(self, answer: str, reference: str) -> bool:
        """Whether both are the same text, and not an empty one."""
        return plain(answer) == plain(reference) != ""


class Regex(ExactMatch):
    """`exact_match` of what a task's `pattern` picks from the answer."""

    metric_name: ClassVar[str] = "regex"
    meaning: ClassVar[int] = 1


class VqaExactMatch(Match):
    """The share of answers that equal a reference after VQA normalisation: case, articles and punctuation go."""

    metric_name: ClassVar[str] = "vqa_exact_match"

    def matches(self, answer: str, reference: str) -> bool:
        """Whether VQA evaluation compares both as the same text, and not as an empty one."""
        return compared(answer) == compared(reference) != ""


class Contains(Match):
    """The share of answers that hold a reference, for models that answer in sentences."""

    metric_name: ClassVar[str] = "contains"
    meaning: ClassVar[int] = 2  # was after VQA normalisation

    def matches(self, answer: str, reference: str) -> bool:
        """Whether the reference's words stand in the answer."""
        return holds(answer, reference)


class Prefix(Match):
    """The share of answers that begin with a reference, for models that go on after it."""

    metric_name: ClassVar[str] = "prefix"

    def matches(self, answer: str, reference: str) -> bool:
        """Whether the answer's first words are the reference's."""
        return begins_with(answer, reference)


class Choice(Match):
    """The share of answers that choose the letter of a reference, and no other."""

    metric_name: ClassVar[str] = "choice"

    def references_among(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Those with a letter.

        Raises:
            BadItem: one chooses none, or there are none.
        """
        usable = super().references_among(texts)
        unread = next((text for text in usable if letter_in(text) is None), None)
        if unread is not None:
            raise BadItem(f"its answer {unread!r} is no letter of a choice", kind="answer without a letter")
        return usable

    def matches(self, answer: str, reference: str) -> bool:
        """Whether both choose the same letter."""
        chosen = letter_in(answer)
        return chosen is not None and chosen == letter_in(reference)


class Number(Match):
    """The share of answers whose number, of several the last, is that of a reference."""

    metric_name: ClassVar[str] = "number"

    def references_among(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Those with a number.

        Raises:
            BadItem: one has none, or several, or there are none.
        """
        usable = super().references_among(texts)
        for text in usable:
            numbers = numbers_in(text)
            if len(numbers) != 1 or numbers[0] is None:
                raise BadItem(f"its answer {text!r} is no one number in digits", kind="answer without a number")
        return usable

    def matches(self, answer: str, reference: str) -> bool:
        """Whether both have the same number: 1,000 is 1000 and 5.0 is 5."""
        number = number_in(answer)
        return number is not None and number == number_in(reference)
