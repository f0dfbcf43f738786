"""Describing a picture: corpus BLEU-4 (Papineni et al. 2002) in the style of the COCO caption evaluation.

Statistics of one answer, from its tokens and those of its references (up to five): for n = 1..4 the n-grams it has
(total_n) and those of them found in a reference (match_n, clipped), its length, and the closest reference length.
Of their sums over items,

    BLEU-4 = exp(min(0, 1 - ref_len / hyp_len)) * (prod over n of match_n / total_n) ^ (1/4),

without smoothing: 0 where some match_n is 0. Tokens: of the text in Unicode's composed form, Penn Treebank, lower case,
punctuation tokens dropped; brackets stay, as in the COCO script, whose list names them in an upper case that its
lower-cased tokens never have.

Token weights of a target, over N targets of which df_t contain token t: w_t = ln((N + 1) / (df_t + 1)) + 1.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar
from unicodedata import normalize

import numpy as np
from jaxtyping import Float
from nltk.tokenize import TreebankWordTokenizer
from sacrebleu.metrics.bleu import BLEU

from hones.data.unified import Item
from hones.errors import NOT_ANNOTATED, BadItem
from hones.tasks.base import Answer, AnswerKind, Example, Task, picture_of

PROMPT = "Describe the image in one sentence."
MAX_REFERENCES = 5
PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))

_TREEBANK = TreebankWordTokenizer()
_BLEU = BLEU(tokenize="none", smooth_method="none", force=True)


@lru_cache(maxsize=2**17)  # a sweep scores the same references once per intervention
def tokens(caption: str) -> str:
    """The tokens that are compared, joined by spaces."""
    return " ".join(
        token for token in _TREEBANK.tokenize(normalize("NFC", caption).lower()) if token not in PUNCTUATION
    )


class Captioning(Task):
    """One sentence about the picture, scored against its human captions."""

    name: ClassVar[str] = "caption"
    metric_name: ClassVar[str] = "bleu4"
    answers: ClassVar[AnswerKind] = "text"
    statistic_names: ClassVar[tuple[str, ...]] = (
        *(f"match{n}" for n in range(1, 5)),
        *(f"total{n}" for n in range(1, 5)),
        "hyp_len",
        "ref_len",
    )

    def example(self, item: Item, images: Path) -> Example:
        """The first five captions that contain a word are the references; joined by spaces they are the target.

        Raises:
            BadItem: no such caption.
        """
        captions = self.references_among([c.caption for c in item.captions])
        return Example(
            id=item.id,
            image=picture_of(item, images),
            prompts=(PROMPT,),
            target=" ".join(captions),
            references=captions,
        )

    def references_among(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The first five captions that contain a word, in single spaces.

        Raises:
            BadItem: none does.
        """
        captions = tuple(" ".join(text.split()) for text in texts if tokens(text))[:MAX_REFERENCES]
        if not captions:
            raise BadItem("all captions are empty") if texts else BadItem("no captions", kind=NOT_ANNOTATED)
        return captions

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[match_1..4, total_1..4, hyp_len, ref_len] of one answer, counts of tokens."""
        assert isinstance(answer, str)
        bleu = _BLEU.corpus_score([tokens(answer)], [[tokens(reference)] for reference in example.references])
        return np.array([*bleu.counts, *bleu.totals, bleu.sys_len, bleu.ref_len], dtype=float)

    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """BLEU-4, in [0, 1]; NaN where no item was summed (every item has a reference length of at least 1)."""
        match = sums[..., :4]
        total = sums[..., 4:8]
        hyp_len = sums[..., 8]
        ref_len = sums[..., 9]
        precision = np.prod(match / np.where(total > 0, total, 1), axis=-1) ** 0.25
        brevity = np.exp(np.minimum(0, 1 - ref_len / np.where(hyp_len > 0, hyp_len, 1)))
        return np.where(ref_len > 0, brevity * precision, np.nan)

    def answers_to_learn(self, example: Example) -> tuple[str, ...]:
        """The references."""
        return example.references

    def token_weights(self, targets: Sequence[Sequence[int]]) -> list[Float[np.ndarray, " tokens"]]:
        """w_t of every token of every target, repeated ones each time; `targets` are token ids, a row per picture."""
        df = Counter(token for target in targets for token in set(target))
        weight = {token: math.log((len(targets) + 1) / (count + 1)) + 1 for token, count in df.items()}
        return [np.array([weight[token] for token in target], dtype=float) for target in targets]
