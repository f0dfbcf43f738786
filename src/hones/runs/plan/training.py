"""The work and memory of a training of scales, and the work of the rankings of other methods.

For pairs of S positions, answer included, P of which all pairs of a picture begin with, and n answer tokens:

    once per picture    vision, P positions, and the rest of its pairs, for the teacher's states
    step of B pairs     3 x 2 n V d (teacher, scaled, backwards), and B rows of S forwards and backwards from the layer
                        above the lowest scaled one, whose own neurons are added as what they write
    kept                d and the scaled neurons' z at each position, d for each answer token; what does not fit into
                        a share of the free memory is computed again for each pair
    working             what autograd keeps of each layer: 4 I + 2 H d_h + keys + 4 d at each position of a step
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hones.method.steering.fast import SHARE_OF_MEMORY
from hones.method.steering.pairs import NEGATIVES_PER_POSITIVE
from hones.rivals.base import Method
from hones.rivals.hones_plus import NEGATIVES
from hones.rivals.reading import ROWS_WITH_GRADIENT
from hones.runs.plan.lengths import Asked, Job
from hones.runs.plan.shapes import Memory, Number, Shapes, Work
from hones.runs.plan.sweeping import common_start

STEPS = {"knowledge-neurons": 20, "qrnca": 16}
PASSES = {"random": 0, "layer-random": 0, "ape": 2, "cna": 2, "atp": 2, "logprob-gain": 2}
PASSES |= dict.fromkeys(("dvp", "ap", "ma", "wanda", *STEPS), 1) | {"selective": 10, "best-of": 18}
CONTRASTED = ("hones+", "rounds", "selective", "best-of", "relp", "gim", "coax", "masks")
PASSES |= dict.fromkeys([name for name in CONTRASTED if name not in PASSES], 2)
"""Passes over the prompt, in each round; the second of logprob-gain stands for U W_down of every layer, once for a few
items, those of selective for four tasks and plain text; those of best-of are selective's on all items and on two thirds
those of what it tries. What rules add to those of relp and gim is too little to count.
"""
SHARING = ("hones+", "rounds", "selective", "best-of", "coax", "masks")
"""Those of CONTRASTED that share prefixes (`hones.rivals.beginnings`): rules want whole passes."""


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


def train(
    shapes: Shapes, asked: Sequence[Asked], items: int, *, epochs: int, batch_size: int, neurons: int, free: Number
) -> tuple[Work, Memory]:
    """One training on so many items like those asked, its proof included, with so many neurons scaled in each layer."""
    # where what the neurons of layer 0 write can be added, a step begins at layer 1
    start = int(neurons <= shapes.width and shapes.layers > 1)

    def step(length: Number, answer: Number) -> Work:
        work = shapes.there_and_back(batch_size, length, start, batch_size * answer)
        work += shapes.unembedding(batch_size * answer) * 3
        return work + shapes.mapping(batch_size * length, neurons, shapes.width, 2 * start)

    once, again, steps, numbers = Work(), Work(), Work(), 0.0
    lengths = [one.before + sum(map(len, one.tails)) / len(one.tails) for one in asked]
    for one, length in zip(asked, lengths, strict=True):
        each_epoch, distinct, answer = pairs_of(one, epochs)
        shared = max(1, one.before + common_start(one.tails))
        rest = length + answer - 1 - shared
        kept = one.vision + shapes.passing(1, shared, 0, keys_only=True)
        kept += shapes.passing(distinct, rest, shared, wanted=distinct * answer)
        once += kept
        again += kept * (each_epoch * epochs)
        steps += step(length + answer - 1, answer) * (each_epoch * epochs / batch_size)
        numbers += (shared + distinct * rest) * (shapes.width + neurons * start) + distinct * answer * shapes.width
    times = items / len(asked)
    wanted = numbers * times * shapes.itemsize
    kept_bytes = min(wanted, max(0.0, SHARE_OF_MEMORY * free))
    share = kept_bytes / max(1.0, wanted)

    # the first step is proven by the definition, which encodes every picture and goes back to the lowest layer
    answer = pairs_of(asked[0], epochs).answer
    length = lengths[0] + answer
    proof = (asked[0].vision * 2 + shapes.passing(1, length, 0)) * batch_size
    proof += shapes.there_and_back(batch_size, length, 0) + shapes.unembedding(batch_size * (answer + 1)) * 3
    proof += step(length - 1, answer)

    work = (once * share + again * (1 - share) + steps) * times + proof
    return work, Memory(shapes.bytes, kept_bytes, working_with_gradient(shapes, asked, batch_size))


def working_with_gradient(shapes: Shapes, asked: Sequence[Asked], rows: int) -> Number:
    """Bytes of a forward and backward pass over so many of the longest pairs."""
    lengths = [one.before + sum(map(len, one.tails)) / len(one.tails) for one in asked]
    longest = max(length + max(one.gold) for one, length in zip(asked, lengths, strict=True))
    of_layer = 4 * shapes.neurons + 2 * shapes.inner + shapes.keys + 4 * shapes.width
    gradients = rows * longest * of_layer * shapes.layers * shapes.itemsize
    return gradients + rows * max(max(one.gold) for one in asked) * shapes.vocabulary * 4 * 6


def prompts_of(one: Asked) -> int:
    """How many prompts of an example are contrasted."""
    return min(1 + NEGATIVES, len(one.tails)) if one.kind == "yes_no" else 1


def rounds_over(method: str, options: Mapping[str, Any], items: int, prompts: Number) -> Number:
    """How often a method's ranking goes over all items, of so many prompts each; masks draws batches of them."""
    if method == "masks":
        return options["steps"] * min(ROWS_WITH_GRADIENT, items * prompts) / (items * prompts)
    return options.get("rounds", 1)


def rankings_work(shapes: Shapes, method: Method, job: Job) -> Work:
    """A method's ranking on all items of a job."""
    works = (ranking_work(shapes, method.name, one) for one in job.asked)
    prompts = sum(map(prompts_of, job.asked)) / len(job.asked)
    return sum(works, Work()) * (job.times * rounds_over(method.name, method.options, job.items, prompts))


def ranking_work(shapes: Shapes, method: str, one: Asked) -> Work:
    """A method's ranking on one example; a path takes the answer's positions from each layer on and back, in steps.

    Several prompts that are contrasted go on from one prefix.
    """
    steps, answer = STEPS.get(method, 0), one.gold[0]
    path = shapes.passing(steps, answer + 1, one.length) * ((shapes.layers + 1) / 2)
    path += shapes.unembedding(steps * shapes.layers * answer)
    prompts = prompts_of(one) if method in CONTRASTED else 1
    if method in SHARING and prompts > 1 and not shapes.stateful:
        before = one.before + common_start(one.tails[:prompts])
        rest = one.before + sum(map(len, one.tails[:prompts])) / prompts + answer - 1 - before
        shared = shapes.passing(1, before, 0, keys_only=True) + shapes.passing(prompts, rest, before)
        return one.vision + (shared + shapes.unembedding(prompts * answer)) * PASSES[method]
    return one.whole(shapes, one.length) * (PASSES[method] * prompts) + path * 2
