"""Hard negatives for retrieval: captions of other pictures that share most words with the true one.

With W(c) the distinct lower-cased words of caption c, the negatives of a true caption p are the captions c of largest
|W(p) & W(c)|, ties in file order. Two captions of the same words in the same order are one caption, whatever their
case, spacing, punctuation and form of accents (NFC); none that equals a caption of the picture itself is a negative.

The M distinct captions of a file are indexed by word (word -> ascending caption numbers), so that one ranking adds up a
handful of index arrays instead of comparing M sets of words.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from unicodedata import normalize

import numpy as np

from hones.errors import HonesError


def words(caption: str) -> tuple[str, ...]:
    """The lower-cased words of a caption in order; equal words make equal captions."""
    return tuple(re.findall(r"\w+", normalize("NFC", caption).lower()))


def distinct(captions: Iterable[str], but: Iterable[str] = ()) -> list[str]:
    """The captions in order, without repetitions, without those equal to one of `but`, without those of no word."""
    seen = {(), *map(words, but)}
    kept: list[str] = []
    for caption in captions:
        if words(caption) not in seen:
            seen.add(words(caption))
            kept.append(" ".join(caption.split()))
    return kept


class CandidatePool:
    """The distinct captions of a file and their inverted word index.

    Args:
        captions_of: the captions of each picture, by image id, in file order.
    """

    def __init__(self, captions_of: Mapping[str, Sequence[str]]) -> None:
        self.captions = distinct(caption for captions in captions_of.values() for caption in captions)
        postings: dict[str, list[int]] = defaultdict(list)
        self._number_of: dict[tuple[str, ...], int] = {}
        for number, caption in enumerate(self.captions):
            self._number_of[words(caption)] = number
            for word in set(words(caption)):
                postings[word].append(number)
        self._postings = {word: np.array(numbers) for word, numbers in postings.items()}

    def negatives(self, positive: str, own: Iterable[str], count: int) -> list[str]:
        """The `count` captions that share most words with `positive`, hardest first, none equal to one of `own`.

        Raises:
            HonesError: the file has fewer than `count` other captions.
        """
        total = len(self.captions)
        rank = np.arange(total, 0, -1)  # 1..total: below one shared word, and larger for earlier captions
        for word in set(words(positive)):
            if word in self._postings:
                rank[self._postings[word]] += total
        excluded = [self._number_of[key] for key in {words(positive), *map(words, own)} if key in self._number_of]
        rank[excluded] = 0
        if total - len(excluded) < count:
            raise HonesError(
                f"the file has {total - len(excluded)} captions that can be negatives of {positive!r}",
                expected=f"{count}",
                do="lower --candidates or give more items",
            )
        hardest = np.argpartition(-rank, count - 1)[:count]
        return [self.captions[number] for number in hardest[np.argsort(-rank[hardest])]]
