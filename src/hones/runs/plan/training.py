"""The work of steering and of the rankings of other methods, and what a training keeps in memory.

S is a prompt's length with its picture, n its answer's tokens, F(s) a pass from layer s on.

    steering     once per picture F(0) on its prefix and on the rest of its pairs; then per step of B pairs
                 3 x 2 n V d (teacher, scaled, backwards), and F(l) forwards and backwards, l the layer above the lowest
                 scaled one, whose own neurons are added as what they write
    rankings     passes over the prompt (`PASSES`), and those of a path: z of each layer scaled in `STEPS`
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hones.method.steering.kept import PAIRS_AT_ONCE
from hones.method.steering.pairs import NEGATIVES_PER_POSITIVE
from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Linears, Number, Shapes
from hones.runs.plan.sweeping import group_of
from hones.runs.plan.work import Work, linear, passing, there_and_back, unembedding, vision, whole

STEPS = {"knowledge-neurons": 20, "qrnca": 16}
PASSES = {"random": 0, "layer-random": 0, "ape": 2, "cna": 2, "atp": 2}
PASSES |= dict.fromkeys(("dvp", "ap", "ma", "wanda", "logprob-gain", *STEPS), 1)
GROUP_OF_RANKING = 16


@dataclass(frozen=True)
class Training:
    """What a training depends on. neurons: those scaled in each layer."""

    epochs: int
    batch_size: int
    neurons: int

    def start(self, shapes: Shapes) -> int:
        """The first layer that a step runs: 1 where what the neurons of layer 0 write is added."""
        return int(self.neurons <= shapes.width and shapes.layers > 1)


class Pairs(NamedTuple):
    """The pairs of one example: in an epoch, and different ones in all epochs; tokens of an answer, end included."""

    each_epoch: int
    distinct: Number
    answer: Number


def pairs_of(one: Asked, epochs: int) -> Pairs:
    """Retrieval: the true caption and a few negatives; else one answer, drawn anew in every epoch."""
    if one.kind == "yes_no":
        negatives = len(one.tails) - 1
        drawn = min(NEGATIVES_PER_POSITIVE, negatives)
        return Pairs(1 + drawn, 1 + drawn_of(negatives, drawn, epochs), 2)
    return Pairs(1, drawn_of(len(one.gold), 1, epochs), sum(one.gold) / len(one.gold))


def drawn_of(total: int, drawn: int, times: int) -> Number:
    """How many different ones of `total` are drawn on average, `drawn` at a time."""
    return total * (1 - (1 - drawn / total) ** times) if total else 0.0


def mean_length(one: Asked) -> Number:
    """Positions of the pairs' prompts."""
    return one.seen.positions + sum(map(len, one.tails)) / len(one.tails)


def training_work(shapes: Shapes, asked: Sequence[Asked], training: Training, share: Number = 1.0) -> Work:
    """One training on all examples, without the proof at its beginning.

    Args:
        share: of the pictures that are kept; the others are computed again for each of their pairs.
    """
    work = Work()
    for one in asked:
        pairs, length = pairs_of(one, training.epochs), group_of([one]).length
        count = pairs.each_epoch * training.epochs
        batches = max(1.0, pairs.distinct / PAIRS_AT_ONCE)
        rows = pairs.distinct / batches
        rest = passing(shapes, rows, mean_length(one) - length + pairs.answer - 1, length, wanted=rows * pairs.answer)
        kept = vision(shapes, one.seen) + passing(shapes, 1, length, 0, keys_only=True) + rest * batches
        work += kept * (share + (1 - share) * count)
        work += step_work(shapes, one, training) * (count / training.batch_size)
    return work


def step_work(shapes: Shapes, one: Asked, training: Training) -> Work:
    """One step on pairs like this example's, forwards and backwards."""
    rows, start, answer = training.batch_size, training.start(shapes), pairs_of(one, training.epochs).answer
    length = mean_length(one) + answer - 1
    work = there_and_back(shapes, rows, length, start, rows * answer) + unembedding(shapes, rows * answer) * 3
    if start:
        work += linear(shapes, rows * length, Linears.between(training.neurons, shapes.width), 2)
    return work


def training_proof(shapes: Shapes, one: Asked, training: Training) -> Work:
    """The first step by the definition, which goes back to the lowest layer, and once more the fast way."""
    rows, answer = training.batch_size, pairs_of(one, training.epochs).answer
    length = mean_length(one) + answer
    work = vision(shapes, one.seen) * 2 * rows + passing(shapes, rows, length, 0)
    work += there_and_back(shapes, rows, length, 0) + unembedding(shapes, rows * (answer + 1)) * 3
    return work + step_work(shapes, one, training)


def kept_bytes(shapes: Shapes, asked: Sequence[Asked], training: Training, items: int) -> Number:
    """Of a training that keeps all pictures: d and the scaled neurons' z at each position, d for each answer token."""
    numbers, at_position = 0.0, shapes.width + training.neurons * training.start(shapes)
    for one in asked:
        pairs, length = pairs_of(one, training.epochs), group_of([one]).length
        rest = mean_length(one) - length + pairs.answer - 1
        numbers += (length + pairs.distinct * rest) * at_position + pairs.distinct * pairs.answer * shapes.width
    return numbers / len(asked) * items * shapes.itemsize


def ranking_work(shapes: Shapes, method: str, one: Asked) -> Work:
    """A method's ranking on one example."""
    work = whole(shapes, one.seen, one.length) * PASSES[method]
    if method == "logprob-gain":  # U W_down of every layer once for a few items
        product = linear(shapes, shapes.neurons, Linears.between(shapes.width, shapes.vocabulary), shapes.layers)
        work += product * (1 / GROUP_OF_RANKING)
    if steps := STEPS.get(method):  # the answer's positions through the layers above each one, and back
        rows = passing(shapes, steps, one.gold[0] + 1, one.length) * ((shapes.layers + 1) / 2)
        work += (rows + unembedding(shapes, steps * shapes.layers * one.gold[0])) * 2
    return work
