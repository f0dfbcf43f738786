"""Image-to-text retrieval by yes-no questions: NDCG@5 with one relevant caption among C candidates.

Each candidate c is asked about on its own and has the margin m_c = logit(Yes) - logit(No). The true caption ties with
t - 1 candidates of equal margin and comes after b candidates of larger margin, so it takes each of the ranks
b + 1 .. b + t equally often; tied candidates share the mean of their gains:

    ndcg@5 = 1/t * sum over r = b+1 .. b+t of [r <= 5] / log2(r + 1)        (the ideal gain is 1)
    recall@k = 1/t * sum over r = b+1 .. b+t of [r <= k]

Statistics: [ndcg5, recall1, recall5, 1]. Negatives are the item's own where it has enough, else the hardest of the file
(`hones.data.candidates`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.data.candidates import CandidatePool, distinct
from hones.data.items import Items
from hones.data.unified import Item, LeftOut
from hones.errors import NOT_ANNOTATED, BadItem, HonesError
from hones.tasks.base import (
    Answer,
    AnswerKind,
    Example,
    MeanMetric,
    Task,
    check_margins,
    examples_of,
    mean_over_items,
    picture_of,
)

PROMPT = "Candidate: {candidate}\nDoes the candidate correctly describe the image?\nAnswer exactly Yes or No."
TARGET = "Yes"
CUTOFF = 5


class Retrieval(MeanMetric, Task):
    """Which of the candidate captions is the picture's own?

    Args:
        candidates: C, the number of candidates of each picture, the true one included.

    Raises:
        HonesError: fewer than two candidates.
    """

    name: ClassVar[str] = "retrieval"
    metric_name: ClassVar[str] = "ndcg@5"
    answers: ClassVar[AnswerKind] = "yes_no"
    statistic_names: ClassVar[tuple[str, ...]] = ("ndcg5", "recall1", "recall5", "n")

    def __init__(self, candidates: int = 50) -> None:
        if candidates < 2:
            raise HonesError(f"{candidates} candidates", expected="at least 2, the true one included")
        self.candidates = candidates

    def example(self, item: Item, images: Path) -> Example:
        """The item with its own negatives; one prompt per candidate, the true caption (the item's first) first.

        Raises:
            BadItem: no caption, or too few negatives of its own.
        """
        return self._ask(item, images, None, ())

    def examples(self, items: Items) -> tuple[list[Example], list[LeftOut]]:
        """All items with a caption, in order; where an item lacks negatives, the hardest of the whole file.

        Raises:
            HonesError: the file has too few other captions.
        """
        pool = CandidatePool(items.captions_of)
        of = items.captions_of
        return examples_of(items, lambda item: self._ask(item, items.images, pool, of.get(item.picture, ())))

    def _ask(self, item: Item, images: Path, pool: CandidatePool | None, of_picture: Sequence[str]) -> Example:
        """of_picture: the captions of all items about the picture; none of them is a negative."""
        captions = distinct(caption.caption for caption in item.captions)
        if not captions:
            raise BadItem("all captions are empty") if item.captions else BadItem("no captions", kind=NOT_ANNOTATED)
        true = [*captions, *of_picture]
        negatives = distinct(item.retrieval.negatives, but=true) if item.retrieval is not None else []
        wanted = self.candidates - 1
        if len(negatives) < wanted:
            if pool is None:
                raise BadItem(f"has {len(negatives)} negatives of its own, {wanted} needed")
            negatives = pool.negatives(captions[0], true, wanted)
        candidates = (captions[0], *negatives[:wanted])
        return Example(
            id=item.id,
            image=picture_of(item, images),
            prompts=tuple(PROMPT.format(candidate=candidate) for candidate in candidates),
            target=TARGET,
            references=candidates,
        )

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[ndcg5, recall1, recall5, 1] of the margins [C], the true caption's first.

        Raises:
            HonesError: a margin is NaN: no ranking exists.
        """
        assert isinstance(answer, np.ndarray) and answer.shape == (len(example.prompts),)
        check_margins(example, answer)
        ahead = np.sum(answer > answer[0])
        tied = np.sum(answer == answer[0])
        ranks = np.arange(ahead + 1, ahead + tied + 1)
        gains = (ranks <= CUTOFF) / np.log2(ranks + 1)
        return np.array([gains.mean(), (ranks <= 1).mean(), (ranks <= CUTOFF).mean(), 1.0])

    def guess(self, examples: Sequence[Example]) -> float:
        """The mean score of a random order of the candidates."""
        gains = [sum(1 / np.log2(rank + 1) for rank in range(1, CUTOFF + 1)) / len(e.prompts) for e in examples]
        return float(np.mean(gains))

    def details(self, sums: Float[np.ndarray, " k"]) -> dict[str, float]:
        """recall@1 and recall@5, in [0, 1]; NaN where no item was summed."""
        return {"recall@1": float(mean_over_items(sums, 1)), "recall@5": float(mean_over_items(sums, 2))}
