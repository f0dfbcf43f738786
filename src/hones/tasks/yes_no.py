"""Yes-or-no questions: accuracy or F1 of "yes", as object hallucination is probed (POPE, Li et al. 2023).

Statistics of one answer: [tp, fp, tn, fn], one of them 1, "yes" being the positive class. Of their sums over items,

    accuracy = (tp + tn) / n,    precision = tp / (tp + fp),    recall = tp / (tp + fn),
    F1 = 2 tp / (2 tp + fp + fn),    yes ratio = (tp + fp) / n,    n = tp + fp + tn + fn.

A precision, recall or F1 of 0 / 0 counts as 0. Answers: the margin logit(Yes) - logit(No) says yes where it is above 0;
a text is read as POPE's script reads it: no where its first sentence has the word No, no or not, else yes.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.errors import BadItem
from hones.tasks.base import Answer, Example, Metric, check_margins

DENIALS = frozenset(("No", "not", "no"))

Counted = tuple[int, int, int, int]
"""How often tp, fp, tn and fn count."""
PARTS: dict[str, tuple[Counted, Counted]] = {
    "accuracy": ((1, 0, 1, 0), (1, 1, 1, 1)),
    "precision": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "recall": ((1, 0, 0, 0), (1, 0, 0, 1)),
    "f1": ((2, 0, 0, 0), (2, 1, 0, 1)),
    "yes_ratio": ((1, 1, 0, 0), (1, 1, 1, 1)),
}


def says_yes(text: str) -> bool:
    """How POPE's script reads an answer."""
    first, *_ = text.split(".")
    return not DENIALS & set(first.replace(",", "").split(" "))


class YesNo(Metric):
    """Agreement with the gold answer, the first reference: yes or no in any case."""

    statistic_names: ClassVar[tuple[str, ...]] = ("tp", "fp", "tn", "fn")

    def references_among(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The one answer.

        Raises:
            BadItem: there are several, or it is neither yes nor no.
        """
        if len(texts) != 1 or texts[0].strip().lower() not in ("yes", "no"):
            raise BadItem(f"its answer is {' | '.join(texts)!r}, not yes or no")
        return (texts[0],)

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[tp, fp, tn, fn] of a text or of the margin [1] of its prompt.

        Raises:
            HonesError: the margin is NaN.
        """
        if isinstance(answer, str):
            yes = says_yes(answer)
        else:
            (margin,) = margins = np.atleast_1d(answer)
            check_margins(example, margins)
            yes = bool(margin > 0)
        gold = example.references[0].strip().lower() == "yes"
        return np.array([yes and gold, yes and not gold, not yes and not gold, not yes and gold], dtype=float)

    def score_alone(self, statistics: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """1 for a right answer, yes or no; F1 does not count a right no."""
        return _share(statistics, *PARTS["accuracy"])

    def details(self, sums: Float[np.ndarray, " k"]) -> dict[str, float]:
        """Accuracy, precision, recall, F1 and the share of yes answers, in [0, 1]; NaN where no item was summed."""
        return {name: float(_share(sums, *parts)) for name, parts in PARTS.items()}


class YesNoAccuracy(YesNo):
    """The share of right answers."""

    metric_name: ClassVar[str] = "yes_no_accuracy"

    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """Accuracy, in [0, 1]; NaN where no item was summed."""
        return _share(sums, *PARTS["accuracy"])


class YesNoF1(YesNo):
    """F1 of the answer yes."""

    metric_name: ClassVar[str] = "yes_no_f1"

    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """F1, in [0, 1]; 0 where neither a gold answer nor the model says yes; NaN where no item was summed."""
        return _share(sums, *PARTS["f1"])


def _share(sums: Float[np.ndarray, "*batch 4"], part: Counted, whole: Counted) -> Float[np.ndarray, "*batch"]:
    """A sum of counts over another, 0 / 0 being 0; NaN without items."""
    above = sums @ np.array(part, dtype=float)
    below = sums @ np.array(whole, dtype=float)
    return np.where(sums.sum(-1) > 0, above / np.where(below > 0, below, 1), np.nan)
