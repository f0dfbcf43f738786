"""The work of the stages that are not one sweep: attribution, steering, rankings of other methods, the analysis.

S is a prompt's length with its picture, n its answer's tokens, F(s) a pass from layer s on.

    attribution  of each guiding head the sweep's rows, last prompt position only; W_down^T u, 2 d I L per direction
    steering     once per picture F(0) on its prefix and on the rest of its pairs; then per step of B pairs
                 3 x 2 n V d (teacher, scaled, backwards), and F(l) forwards and backwards, l the lowest scaled layer
                 plus one; backwards costs as much as forwards, its attention 2.5 times as much (the backbone is frozen)
    rankings     see `RANKINGS`
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.sweeping import Edits, first_prompts, group_work, groups
from hones.runs.plan.work import Work, linear, passing, unembedding, vision, whole
from hones.method.steering.kept import PAIRS_AT_ONCE
from hones.method.steering.pairs import NEGATIVES_PER_POSITIVE
from hones.sweep.memory import Plan

BACKWARDS_OF_ATTENTION = 2.5
GROUP_OF_RANKING = 16


def spread_over_layers(shapes: Shapes, count: int) -> Edits:
    """So many heads, evenly over the layers: where the critical ones lie is not known before."""
    at: dict[int, int] = defaultdict(int)
    for k in range(count):
        at[int((k + 0.5) * shapes.layers / count) % shapes.layers] += 1
    return Edits(dict(at), heads=1)


def attribution_work(shapes: Shapes, asked: Sequence[Asked], edits: Edits, plan: Plan) -> Work:
    """Importance of all neurons from the guiding heads."""
    work = Work()
    for group in in_order(asked, plan.pictures):
        work += group_work(shapes, first_prompts(group), edits, plan, 1, 0.0, read=True)
    directions = 1 if asked[0].kind == "yes_no" else len(asked)  # of retrieval all Yes
    return work + linear(shapes, directions, shapes.width * shapes.neurons, 0, shapes.layers)


def in_order(asked: Sequence[Asked], size: int) -> list[Sequence[Asked]]:
    """The examples in parts of so many."""
    return [asked[start : start + size] for start in range(0, len(asked), size)]


@dataclass(frozen=True)
class Training:
    """What a training depends on. lowest: the lowest layer with scaled neurons; neurons: those scaled there."""

    epochs: int
    batch_size: int
    neurons: int
    lowest: int = 0

    def start(self, shapes: Shapes) -> int:
        """The first layer that a step runs."""
        return self.lowest + self.is_written(shapes)

    def is_written(self, shapes: Shapes) -> bool:
        """Whether what the neurons of the lowest layer write is added, so that the layer is not run."""
        return self.neurons <= shapes.width and self.lowest + 1 < shapes.layers


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


def training_work(shapes: Shapes, asked: Sequence[Asked], training: Training, share: Number = 1.0) -> Work:
    """One training on all examples, without the proof at its beginning.

    Args:
        share: of the pictures that are kept; the others are computed again for each of their pairs.
    """
    kept, step, rows = Work(), Work(), 0.0
    for one in asked:
        pairs = pairs_of(one, training.epochs)
        length = mean_length(one) + pairs.answer - 1
        count = pairs.each_epoch * training.epochs
        kept += kept_work(shapes, one, pairs) * (share + (1 - share) * count)
        step += row_of_step(shapes, length, pairs.answer, training) * count
        rows += count
    steps = rows / training.batch_size
    weights = passing(shapes, 1e-9, 1, 0, start=training.start(shapes))  # a step moves the weights twice, not each row
    step += Work(0.0, 2 * weights.moved * (steps - rows))
    return kept + step


def mean_length(one: Asked) -> Number:
    """Positions of the pairs' prompts."""
    return one.seen.positions + sum(map(len, one.tails)) / len(one.tails)


def kept_work(shapes: Shapes, one: Asked, pairs: Pairs) -> Work:
    """What is computed once for a picture: its prefix, and the rest of its pairs with their answers."""
    (group,) = groups([one], 1)
    length = group.length
    own = mean_length(one) - length + pairs.answer - 1
    work = vision(shapes, one.seen) + passing(shapes, 1, length, 0, keys_only=True)
    batches = max(1.0, pairs.distinct / PAIRS_AT_ONCE)
    rows = pairs.distinct / batches
    return work + passing(shapes, rows, own, length, wanted=rows * pairs.answer) * batches


def row_of_step(shapes: Shapes, length: Number, answer: Number, training: Training) -> Work:
    """One row of a step, forwards and backwards."""
    start = training.start(shapes)
    work = passing(shapes, 1, length, 0, start=start, wanted=answer) * 2
    work += Work(attention_flop(shapes, length, start) * (BACKWARDS_OF_ATTENTION - 1))
    if training.is_written(shapes):
        work += linear(shapes, length, training.neurons * shapes.width, training.neurons + shapes.width, 2)
    return work + unembedding(shapes, answer) * 3


def attention_flop(shapes: Shapes, length: Number, start: int) -> Number:
    """Scores and mixing of one row in the layers from `start` on."""
    return 4.0 * length * length * shapes.inner * (shapes.layers - start)


def training_proof(shapes: Shapes, one: Asked, training: Training) -> Work:
    """The first step by the definition, and once more the fast way."""
    pairs = pairs_of(one, training.epochs)
    length = mean_length(one) + pairs.answer
    whole_row = vision(shapes, one.seen) + passing(shapes, 1, length, 0)
    back = passing(shapes, 1, length, 0, start=training.lowest)
    back += Work(attention_flop(shapes, length, training.lowest) * (BACKWARDS_OF_ATTENTION - 1))
    logits = unembedding(shapes, pairs.answer + 1) * 3
    fast = row_of_step(shapes, length - 1, pairs.answer, training)
    return (whole_row * 2 + back + logits + fast) * training.batch_size


Ranking = Callable[[Shapes, Asked], Work]


def prompt_pass(shapes: Shapes, one: Asked) -> Work:
    """One pass over a prompt."""
    return whole(shapes, one.seen, one.length)


def with_gradient(shapes: Shapes, one: Asked) -> Work:
    """One pass over a prompt and its answer, and back to z of every layer."""
    length = one.length + one.gold[0]
    back = passing(shapes, 1, length, 0)
    return whole(shapes, one.seen, length) + back + Work(attention_flop(shapes, length, 0))


def along_a_path(shapes: Shapes, one: Asked, steps: int) -> Work:
    """z of each layer scaled in steps where the answer is read: rows of its positions, layers above, twice."""
    tail = one.gold[0] + 1
    rows = sum((passing(shapes, steps, tail, one.length, start=x) for x in range(shapes.layers)), Work())
    return whole(shapes, one.seen, one.length) + (rows + unembedding(shapes, steps * shapes.layers * one.gold[0])) * 2


def gains(shapes: Shapes, one: Asked) -> Work:
    """A pass, and U W_down of every layer once for a few items."""
    product = linear(shapes, shapes.neurons, shapes.vocabulary * shapes.width, shapes.width, shapes.layers)
    return prompt_pass(shapes, one) + product * (1 / GROUP_OF_RANKING)


def nothing(shapes: Shapes, one: Asked) -> Work:
    """No pass."""
    return Work()


RANKINGS: dict[str, Ranking] = {
    "random": nothing,
    "layer-random": nothing,
    "dvp": prompt_pass,
    "ap": prompt_pass,
    "ma": prompt_pass,
    "wanda": prompt_pass,
    "ape": lambda shapes, one: prompt_pass(shapes, one) * 2,
    "cna": lambda shapes, one: prompt_pass(shapes, one) * 2,
    "logprob-gain": gains,
    "atp": with_gradient,
    "knowledge-neurons": lambda shapes, one: along_a_path(shapes, one, 20),
    "qrnca": lambda shapes, one: along_a_path(shapes, one, 16),
}
"""Work of each ranking on one item; a method that is not here (the readings of hones) costs what attribution does."""
