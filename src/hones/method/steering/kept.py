"""What training does not change, computed once per picture and kept while memory allows.

The unedited model runs over a picture's prefix (what all its prompts begin with, P tokens) once, and on its keys and
values over the rest of each pair, answer included (T tokens), a few pairs at once. Of these passes training needs

    entering   the residual entering the first layer that it runs    [P, d] of the picture, [T, d] of each pair
    written    z of the scaled neurons of the layer below it          [P, k] and [T, k]
    between    what the family adds behind a layer that it runs       [P, d] of the picture (Qwen3-VL; else nothing)
    original   the final hidden states that predict the answer        [n, d] of each pair

Teacher logits are `original` times the lm_head again, V / d times larger than what is kept. Pictures are kept in the
order in which they are first needed until the memory is full; the others are computed again, in the same batches, so
that the numbers do not depend on what was kept. Hence a picture is computed alone, with all its pairs: among others it
would differ by rounding, and where one of them was not kept, all would have to be computed again for it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from hones.method.steering.pairs import Pair
from hones.models.capture import Z, capture
from hones.models.vlm import VLM
from hones.sweep.baseline import Baseline, Prefixes
from hones.sweep.prompts import Picture, Prompt, encode_pictures

PAIRS_AT_ONCE = 8


@dataclass(frozen=True)
class Piece:
    """Consecutive positions of one row: what enters the first layer, the positions, and z that is scaled below it.

    between: what the family adds behind a layer, from the first layer on.
    """

    entering: Float[Tensor, "t d"]
    positions: Real[Tensor, "*axes t"]
    written: Float[Tensor, "t k"]
    between: dict[int, Float[Tensor, "t d"]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        kept = (self.entering, self.positions, self.written, *self.between.values())
        return sum(x.nbytes for x in kept)


@dataclass(frozen=True)
class Row:
    """One pair: its picture's prefix, the rest, the tokens to predict, and the original model's states there."""

    prefix: Piece
    rest: Piece
    labels: Int[Tensor, " n"]
    original: Float[Tensor, "n d"]


@dataclass
class Known:
    """A picture's prefix and rows, by number of the pair."""

    prefix: Piece
    rows: dict[int, Row]

    @property
    def bytes(self) -> int:
        return self.prefix.bytes + sum(row.rest.bytes + row.original.nbytes for row in self.rows.values())


class Rows:
    """The rows of pairs, from memory or computed.

    Args:
        pairs: all that will be asked for.
        start: the first layer that training runs.
        neurons: those of layer start - 1 that are scaled, [k]; k = 0 where that layer is not.
        memory: bytes to keep.
        picture_once: all pairs of a picture share its features and prefix.
    """

    def __init__(
        self,
        vlm: VLM,
        pairs: Sequence[Pair],
        start: int,
        neurons: Int[Tensor, " k"],
        *,
        memory: int,
        picture_once: bool = True,
        answers_only: bool = True,
    ) -> None:
        self.vlm, self.start, self.neurons, self.free = vlm, start, neurons, memory
        self.baseline = Baseline(vlm, wanted_only=answers_only)
        numbers = count()
        self.of_picture: dict[Any, list[Pair]] = defaultdict(list)
        for pair in dict.fromkeys(pairs):
            self.of_picture[pair.picture if picture_once else next(numbers)].append(pair)
        self.place = {pair: (key, number) for key, own in self.of_picture.items() for number, pair in enumerate(own)}
        self.known: dict[Any, Known] = {}
        self.full = False

    def of(self, pairs: Sequence[Pair]) -> list[Row]:
        """The rows of some pairs."""
        places = [self.place[pair] for pair in pairs]
        wanted: dict[Any, set[int]] = defaultdict(set)
        for key, number in places:
            wanted[key].add(number)
        found = {key: self.known.get(key) or self._compute(key, numbers) for key, numbers in wanted.items()}
        return [found[key].rows[number] for key, number in places]

    @torch.no_grad()
    def _compute(self, key: Any, wanted: set[int]) -> Known:
        """A picture with all its rows, kept if it fits; else with the rows wanted and those they are computed with."""
        own = self.of_picture[key]
        prompts = tuple(dict.fromkeys(pair.prompt for pair in own))
        (picture,) = encode_pictures(self.vlm, [replace(own[0].example, prompts=prompts)])
        with self._reading() as z:
            prefixes = self.baseline.prefixes([picture])
        residual, written = prefixes.trace.residual[self.start][0], z[0][0] if z else self._nothing(picture.shared)
        between = {layer: x[0] for layer, x in prefixes.between.items() if layer >= self.start}
        known = Known(Piece(residual, prefixes.positions[..., 0, :], written, between), {})
        for begin in range(0, len(own), PAIRS_AT_ONCE):
            numbers = range(begin, min(begin + PAIRS_AT_ONCE, len(own)))
            if self.full and wanted.isdisjoint(numbers):
                continue
            asked = [picture.prompts[prompts.index(own[n].prompt)] for n in numbers]
            rows = self._rows(picture, prefixes, known.prefix, [own[n] for n in numbers], asked)
            known.rows |= dict(zip(numbers, rows, strict=True))
        if not self.full:
            self.full = known.bytes > self.free
            if not self.full:
                self.free -= known.bytes
                self.known[key] = known
        return known

    def _rows(
        self, picture: Picture, prefixes: Prefixes, prefix: Piece, pairs: Sequence[Pair], asked: Sequence[Prompt]
    ) -> Iterator[Row]:
        """One pass over what follows the prefix in each pair."""
        gold = [self.vlm.gold_ids(pair.prompt, pair.answer) for pair in pairs]
        with self._reading() as z:
            suffixes = self.baseline.suffixes([picture], prefixes, [(0, p) for p in asked], gold, keep_cache=False)
        assert suffixes.output is not None
        original = suffixes.output.split([len(ids) for ids in gold])
        labels = suffixes.labels.split([len(ids) for ids in gold])
        for j, ids in enumerate(gold):
            length = int(suffixes.asked[j]) + len(ids) - 1
            rest = Piece(
                suffixes.trace.residual[self.start][j, :length].clone(),
                suffixes.positions[..., j, :length],
                z[0][j, :length].clone() if z else self._nothing(length),
            )
            yield Row(prefix, rest, labels[j], original[j])

    def _nothing(self, length: int) -> Float[Tensor, "t 0"]:
        return torch.zeros(length, 0, dtype=self.vlm.model.dtype, device=self.vlm.device)

    @contextmanager
    def _reading(self) -> Iterator[list[Float[Tensor, "rows t k"]]]:
        """z of the scaled neurons in the passes run meanwhile; empty where there are none."""
        found: list[Tensor] = []

        def read(_: int, z: Tensor) -> None:
            found.append(z[..., self.neurons.to(z.device)])

        with capture(self.vlm.anatomy, Z, read, [self.start - 1] if len(self.neurons) else []):
            yield found
