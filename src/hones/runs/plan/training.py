"""The work of steering, and of the rankings of other methods, on one example and on all.

S is a prompt's length with its picture, n its answer's tokens, F(s) a pass from layer s on.

    steering     once per picture F(0) on its prefix and on the rest of its pairs; then per step of B pairs
                 3 x 2 n V d (teacher, scaled, backwards), and F(l) forwards and backwards, l the layer above the lowest
                 scaled one, whose own neurons are added as what they write
    rankings     passes over the prompt, see `PASSES`
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hones.method.steering.kept import PAIRS_AT_ONCE
from hones.method.steering.pairs import NEGATIVES_PER_POSITIVE
from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Linears, Number, Shapes
from hones.runs.plan.sweeping import group_of
from hones.runs.plan.work import Work, linear, passing, there_and_back, unembedding, vision, whole

PASSES = {
    "random": 0,
    "layer-random": 0,
    "dvp": 1,
    "ap": 1,
    "ma": 1,
    "wanda": 1,
    "ape": 2,
    "cna": 2,
    "atp": 2,
    "logprob-gain": 1,
    "knowledge-neurons": 1,
    "qrnca": 1,
}
"""Of each ranking over a prompt; a method that is not here (the readings of hones) costs what attribution does."""
STEPS = {"knowledge-neurons": 20, "qrnca": 16}
"""Steps in which z of each layer is scaled where the answer is read."""
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


@dataclass(frozen=True)
class Pairs:
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
        pairs = pairs_of(one, training.epochs)
        count = pairs.each_epoch * training.epochs
        work += kept_work(shapes, one, pairs) * (share + (1 - share) * count)
        work += step_work(shapes, one, pairs, training) * (count / training.batch_size)
    return work


def kept_work(shapes: Shapes, one: Asked, pairs: Pairs) -> Work:
    """What is computed once for a picture: its prefix, and the rest of its pairs with their answers."""
    length = group_of([one]).length
    rest = mean_length(one) - length + pairs.answer - 1
    batches = max(1.0, pairs.distinct / PAIRS_AT_ONCE)
    rows = pairs.distinct / batches
    work = vision(shapes, one.seen) + passing(shapes, 1, length, 0, keys_only=True)
    return work + passing(shapes, rows, rest, length, wanted=rows * pairs.answer) * batches


def step_work(shapes: Shapes, one: Asked, pairs: Pairs, training: Training) -> Work:
    """One step on pairs like this example's, forwards and backwards."""
    rows, start, length = training.batch_size, training.start(shapes), mean_length(one) + pairs.answer - 1
    work = there_and_back(shapes, rows, length, start, rows * pairs.answer)
    if start:
        work += linear(shapes, rows * length, Linears.between(training.neurons, shapes.width), 2)
    return work + unembedding(shapes, rows * pairs.answer) * 3


def training_proof(shapes: Shapes, one: Asked, training: Training) -> Work:
    """The first step by the definition, which goes back to the lowest layer, and once more the fast way."""
    pairs, rows = pairs_of(one, training.epochs), training.batch_size
    length = mean_length(one) + pairs.answer
    work = vision(shapes, one.seen) * 2 * rows + passing(shapes, rows, length, 0)
    work += there_and_back(shapes, rows, length, 0) + unembedding(shapes, rows * (pairs.answer + 1)) * 3
    return work + step_work(shapes, one, pairs, training)


def ranking_work(shapes: Shapes, method: str, one: Asked) -> Work:
    """A method's ranking on one example."""
    prompt = whole(shapes, one.seen, one.length)
    work = prompt * PASSES[method]
    if method == "logprob-gain":  # U W_down of every layer once for a few items
        product = linear(shapes, shapes.neurons, Linears.between(shapes.width, shapes.vocabulary), shapes.layers)
        work += product * (1 / GROUP_OF_RANKING)
    if steps := STEPS.get(method):  # the answer's positions through the layers above each one, and back
        rows = passing(shapes, steps, one.gold[0] + 1, one.length) * ((shapes.layers + 1) / 2)
        work += (rows + unembedding(shapes, steps * shapes.layers * one.gold[0])) * 2
    return work
