"""The work of a sweep, group by group as `hones.sweep.replay` runs it, and the same answers the release's way.

For a group of B pictures whose prompts share P positions (padded to the longest), J prompts of T own positions with
their drafts, E edits that begin at layer l, N wanted positions (`passing` is a pass, see `hones.runs.plan.work`):

    once        vision B; prefixes B x P, all layers; drafts J x T and their decoding; suffixes J x T
    per layer   o_proj of the unedited model, and 2 n d_h d per replaced head: heads fan out
                prefixes  E B x P from layer l on, the attention of l given, down to the last keys and values
                suffixes  E J x T from layer l on, the last FFN and the logits at the E N wanted positions
    leaving     a share of the E J texts goes on alone, on average for half its answer: rows x 1, all layers

Edits of few neurons at layer l enter the prefixes at l + 1 (`written`); z of the unedited model is computed once.
The release runs vision, prompt and answer anew for each edit, item and candidate.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from hones.runs.plan.lengths import Asked, Seen
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.work import Work, linear, passing, unembedding, vision, whole
from hones.sweep.memory import Plan

LEFT_DRAFT = 0.1
PROOFS, PROOF_PROMPTS = 3, 2


@dataclass(frozen=True)
class Edits:
    """Edits by the first layer that they change.

    heads: of each edit at that layer. neurons: of each edit at that layer, where they are few enough to be written;
    0: heads, or many neurons.
    """

    at: dict[int, int]
    heads: int = 0
    neurons: int = 0

    @property
    def count(self) -> int:
        """E."""
        return sum(self.at.values())


def all_heads(shapes: Shapes) -> Edits:
    """One edit per head."""
    return Edits(dict.fromkeys(range(shapes.layers), shapes.heads), heads=1)


def masks(shapes: Shapes, count: int, ratio: Number, lowest: int = 0) -> Edits:
    """Sets of neurons spread over all layers from the lowest on."""
    neurons = max(1, round(ratio * shapes.neurons))
    few = neurons <= shapes.neurons // 16
    return Edits({lowest: count}, neurons=neurons if few else 0)


@dataclass(frozen=True)
class Prompted:
    """One prompt of a group: the row of its picture, its own tokens, those of the answer teacher-forced after it."""

    picture: int
    own: int
    answer: int


@dataclass
class Group:
    """Pictures that are swept together.

    seen, shared: of each picture; prompts: by kind of answer.
    """

    seen: list[Seen]
    shared: list[int]
    prompts: dict[str, list[Prompted]]

    @property
    def length(self) -> int:
        """P, padded."""
        return max(self.shared)


def groups(asked: Sequence[Asked], pictures: int) -> Iterator[Group]:
    """The examples in groups of so many pictures, those with prompts of similar length together."""
    of_image: dict[Hashable, list[Asked]] = defaultdict(list)
    for one in asked:
        of_image[one.image].append(one)
    ordered = sorted(of_image.values(), key=lambda own: max(len(t) for a in own for t in a.tails))
    for start in range(0, len(ordered), pictures):
        yield group_of([one for own in ordered[start : start + pictures] for one in own])


def group_of(members: Sequence[Asked]) -> Group:
    """All prompts about the same drawn picture share what they begin with."""
    of_picture: dict[Hashable, list[Asked]] = defaultdict(list)
    for one in members:
        of_picture[one.drawn].append(one)
    seen, shared, prompts = [], [], defaultdict(list)
    for row, own in enumerate(of_picture.values()):
        common = common_start([tail for one in own for tail in one.tails])
        seen.append(own[0].seen)
        shared.append(own[0].seen.positions + common)
        for one in own:
            answer = one.gold[0] if one.kind == "log_probability" else one.answer
            prompts[one.kind] += [Prompted(row, len(tail) - common, answer) for tail in one.tails]
    return Group(seen, shared, dict(prompts))


def common_start(tails: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all begin with; one at least remains for each."""
    shortest = min(map(len, tails)) - 1
    first, last = min(tails), max(tails)  # in sorted order, what these share all share
    return next((k for k in range(shortest) if first[k] != last[k]), shortest)


def sweep_work(
    shapes: Shapes, asked: Sequence[Asked], edits: Edits, plan: Plan, max_new_tokens: int, left: Number = LEFT_DRAFT
) -> Work:
    """All groups of a sweep, without the proof at its beginning.

    Args:
        left: share of the text cells that are not the unedited model's answer.
    """
    work = Work()
    for group in groups(asked, plan.pictures):
        work += group_work(shapes, group, edits, plan, max_new_tokens, left)
    return work


def group_work(
    shapes: Shapes, group: Group, edits: Edits, plan: Plan, max_new_tokens: int, left: Number, *, read: bool = False
) -> Work:
    """One group. read: z is read where prompts end, no answers, no logits."""
    length = group.length
    work = encoding(shapes, group.seen) + passing(shapes, len(group.seen), length, 0, keys_only=True)
    batches = []
    for kind, prompts in group.prompts.items():
        for batch in batched(shapes, prompts, plan, length, max_new_tokens):
            text = kind == "text" and not read
            if text:
                work += drafting(shapes, batch, length)
            answered = text or kind == "log_probability"
            width = max(p.own + (max(0, p.answer - 1) if answered else 0) for p in batch)
            wanted = sum(max(1, p.answer) if answered else 1 for p in batch)
            work += passing(shapes, len(batch), width, length, wanted=wanted)
            if kind == "log_probability":
                work += unembedding(shapes, wanted)
            batches.append((text, answered, batch, width, wanted))
    room = max(width for *_, width, _ in batches)
    for layer, count in sorted(edits.at.items()):
        work += prefix_rows(shapes, group, layer, count, edits, plan, room)
        for text, answered, batch, width, wanted in batches:
            step = max(1, at_once(shapes, plan, width, length) // len(batch))
            for rows, times in chunks(count, step):
                part = fanning(shapes, len(batch) * width, rows * edits.heads)
                part += passing(shapes, rows * len(batch), width, length, start=layer, given=True, wanted=rows * wanted)
                if answered:
                    part += unembedding(shapes, rows * wanted)
                work += part * times
            if text:
                work += going_on(shapes, batch, length + width, count * left)
    return work


def encoding(shapes: Shapes, seen: Sequence[Seen]) -> Work:
    """The vision part on each picture."""
    return sum((vision(shapes, one) for one in seen), Work())


def batched(
    shapes: Shapes, prompts: Sequence[Prompted], plan: Plan, length: int, max_new_tokens: int
) -> Iterator[list[Prompted]]:
    """Prompts of similar length, as many as one pass takes."""
    batch: list[Prompted] = []
    for prompt in sorted(prompts, key=lambda p: p.own):
        if len(batch) >= at_once(shapes, plan, prompt.own + max_new_tokens, length):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def at_once(shapes: Shapes, plan: Plan, width: int, past: int) -> int:
    """Rows of `width` new positions on `past` others in one pass."""
    return plan.rows_at_once(width, shapes.layers * (past + width) * shapes.bytes_per_position)


def chunks(count: int, step: int) -> Iterator[tuple[int, int]]:
    """`count` in parts of `step` and a rest: (size, how many of it)."""
    if count >= step:
        yield step, count // step
    if count % step:
        yield count % step, 1


def drafting(shapes: Shapes, batch: Sequence[Prompted], length: int) -> Work:
    """The unedited model's own answers: the prompts, then one token a step while more than 70 % of the rows go on."""
    width, rows = max(p.own for p in batch), len(batch)
    work = passing(shapes, rows, width, length, wanted=rows) + unembedding(shapes, rows)
    for step in range(1, max(p.answer for p in batch)):
        alive = sum(p.answer > step for p in batch)
        rows = alive if alive < 0.7 * rows else rows
        work += passing(shapes, rows, 1, length + width + step - 1) + unembedding(shapes, rows)
    return work


def going_on(shapes: Shapes, batch: Sequence[Prompted], past: int, edits: Number) -> Work:
    """Rows that left their draft at any of its tokens alike, and write as long an answer; weights move once a step."""
    steps = max(p.answer for p in batch) - 1
    if steps <= 0 or edits <= 0:
        return Work()
    rows = edits * sum(max(0, p.answer - 1) / 2 for p in batch) / steps
    return (passing(shapes, rows, 1, past) + unembedding(shapes, rows)) * steps


def prefix_rows(shapes: Shapes, group: Group, layer: int, count: int, edits: Edits, plan: Plan, room: int) -> Work:
    """The prefixes under the edits that begin at a layer."""
    pictures, length = len(group.seen), group.length
    if layer + 1 == shapes.layers:
        return Work()
    work = Work()
    step = max(1, at_once(shapes, plan, max(length, 1), room) // pictures)
    if edits.neurons:  # z of the unedited model, and a check that the layer adds W_down z
        work += fanning(shapes, pictures * length, 0)
        work += linear(shapes, pictures * length, shapes.ffn, shapes.ffn_io)
    for rows, times in chunks(count, step):
        if edits.neurons:
            union = min(shapes.neurons, edits.neurons * count)
            part = linear(shapes, rows * pictures * length, union * shapes.width, union + shapes.width)
            part += passing(shapes, rows * pictures, length, 0, start=layer + 1, keys_only=True)
        else:
            part = fanning(shapes, pictures * length, rows * edits.heads)
            part += passing(shapes, rows * pictures, length, 0, start=layer, given=True, keys_only=True)
        work += part * times
    return work


def fanning(shapes: Shapes, positions: int, heads: int) -> Work:
    """o_proj of the unedited model, and of each replaced head's change."""
    head = linear(shapes, positions, shapes.head_dim * shapes.width, shapes.head_dim + shapes.width, heads)
    return linear(shapes, positions, shapes.out, shapes.out_io) + head


def proof(shapes: Shapes, asked: Sequence[Asked], edits: Edits, plan: Plan) -> Work:
    """What `hones.sweep.engines` runs before a sweep: a few prompts under three edits, by both ways."""
    layers = [layer for layer, count in sorted(edits.at.items()) for _ in range(count)]
    few = Edits(defaultdict(int), edits.heads, edits.neurons)
    for layer in (layers[0], layers[len(layers) // 2], layers[-1]):
        few.at[layer] += 1
    work, firsts = Work(), []
    for _, own in groupby(sorted(asked, key=lambda one: one.task), key=lambda one: one.task):
        first = next(own)
        for tail in first.tails[:PROOF_PROMPTS]:
            length = first.seen.positions + len(tail)
            work += whole(shapes, first.seen, length) * (1 + PROOFS)
            firsts.append(first)
    group = first_prompts(firsts)
    work += group_work(shapes, group, few, plan, 1, 0.0, read=True)
    return work + unembedding(shapes, len(firsts) * PROOFS)


def first_prompts(asked: Sequence[Asked]) -> Group:
    """A group in which z is read where each example's first prompt ends."""
    return group_of([replace(one, kind="yes_no", tails=one.tails[:1], answer=0) for one in asked])


def release_work(shapes: Shapes, asked: Sequence[Asked], edits: int) -> Work:
    """One item at a time, for the unedited model and each edit: vision, prompt, and the answer token by token."""
    work = Work()
    for one in asked:
        for tail in one.tails:
            length = one.seen.positions + len(tail)
            work += whole(shapes, one.seen, length)
            steps = max(0, one.answer - 1)
            work += (passing(shapes, 1, 1, length) + unembedding(shapes, 1)) * steps
    return work * (edits + 1)
