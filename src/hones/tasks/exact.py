"""Whether an answer equals one of the references, or holds one, after VQA normalisation (`hones.tasks.vqa`).

Statistics: [1 if it does, else 0; 1]; score = sum of the first / sum of the second.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.tasks.base import Answer, Example, MeanMetric
from hones.tasks.vqa import normalise


def holds(answer: str, reference: str) -> bool:
    """Whether the words of a reference stand in the answer, one after the other; an empty reference never does."""
    words = normalise(reference)
    return bool(words) and f" {words} " in f" {normalise(answer)} "


class ExactMatch(MeanMetric):
    """The share of answers that equal a reference."""

    metric_name: ClassVar[str] = "exact_match"
    statistic_names: ClassVar[tuple[str, ...]] = ("matches", "n")

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[match, 1] of one answer."""
        assert isinstance(answer, str)
        given = normalise(answer)
        return np.array([float(any(normalise(r) == given for r in example.references)), 1.0])


class Contains(ExactMatch):
    """The share of answers that hold a reference, for models that answer in sentences."""

    metric_name: ClassVar[str] = "contains"

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[match, 1] of one answer."""
        assert isinstance(answer, str)
        return np.array([float(any(holds(answer, reference) for reference in example.references)), 1.0])
