"""The work of a sweep, group by group as `hones.sweep.replay` runs it, and the same answers the release's way.

For a group of B pictures whose prompts share P positions (padded to the longest), J prompts of T own positions with
their drafts, E edits that begin at layer l, N wanted positions (`passing` is a pass, see `hones.runs.plan.work`):

    once        vision B; prefixes B x P, all layers; drafts J x T and their decoding; suffixes J x T
    per layer   o_proj of the unedited model, and 2 n d_h d per replaced head: heads fan out
                prefixes  E B x P from layer l on, the attention of l given, down to the last keys and values
                suffixes  E J x T from layer l on, the last FFN and the logits at the E N wanted positions
    leaving     a share of the E J texts goes on alone, on average for half its answer: rows x 1, all layers

Edits of few neurons at layer l enter the prefixes at l + 1, since what they write is known.
The release runs vision, prompt and answer anew for each edit, item and candidate.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from hones.runs.plan.lengths import Asked, Seen
from hones.runs.plan.shapes import Linears, Number, Shapes
from hones.runs.plan.work import Work, linear, passing, unembedding, vision, whole
from hones.sweep.memory import MemoryPlan, plan_for

LEFT_DRAFT = 0.1
PROOFS, PROOF_PROMPTS = 3, 2


@dataclass(frozen=True)
class Edits:
    """How many edits begin at each layer; heads: of each edit there; written: a few neurons of each, and no heads."""

    at: Mapping[int, int]
    heads: int = 0
    written: bool = False

    @property
    def count(self) -> int:
        """E."""
        return sum(self.at.values())


def all_heads(shapes: Shapes) -> Edits:
    """One edit per head."""
    return Edits(dict.fromkeys(range(shapes.layers), shapes.heads), heads=1)


def masks(shapes: Shapes, count: int, ratio: Number) -> Edits:
    """Sets of neurons spread over all layers."""
    return Edits({0: count}, written=max(1, round(ratio * shapes.neurons)) <= shapes.neurons // 16)


class Prompted(NamedTuple):
    """One prompt of a group: its own tokens, and those of the answer teacher-forced after it."""

    own: int
    answer: int


@dataclass(frozen=True)
class Batch:
    """J prompts that go through the decoder together; own: tokens of the longest, without its answer."""

    kind: str
    own: int
    prompts: Sequence[Prompted]

    @property
    def width(self) -> int:
        """T, padded."""
        return max(prompt.own + max(0, prompt.answer - 1) for prompt in self.prompts)

    @property
    def wanted(self) -> int:
        """N."""
        return sum(max(1, prompt.answer) for prompt in self.prompts)


@dataclass(frozen=True)
class Group:
    """Pictures that are swept together; length: P, padded; prompts: by the kind of their answers."""

    seen: Sequence[Seen]
    length: int
    prompts: Mapping[str, Sequence[Prompted]]

    def batches(self, shapes: Shapes, plan: MemoryPlan) -> Iterator[Batch]:
        """Prompts of one kind and similar length, as many as one pass takes."""
        for kind, prompts in self.prompts.items():
            ordered = sorted(prompts)
            size = at_once(shapes, plan, ordered[-1].own + max(p.answer for p in prompts), self.length)
            for start in range(0, len(ordered), size):
                batch = ordered[start : start + size]
                yield Batch(kind, batch[-1].own, batch)


def groups(asked: Sequence[Asked], pictures: int) -> Iterator[Group]:
    """The examples in groups of so many pictures, those with prompts of similar length together."""
    of_image: dict[Hashable, list[Asked]] = defaultdict(list)
    for one in asked:
        of_image[one.image].append(one)
    ordered = sorted(of_image.values(), key=lambda members: max(len(t) for one in members for t in one.tails))
    for start in range(0, len(ordered), pictures):
        yield group_of([one for members in ordered[start : start + pictures] for one in members])


def group_of(asked: Sequence[Asked]) -> Group:
    """All prompts about the same drawn picture share what they begin with."""
    of_picture: dict[Hashable, list[Asked]] = defaultdict(list)
    for one in asked:
        of_picture[one.drawn].append(one)
    length, prompts = 1, defaultdict(list)  # an empty prefix is padding alone
    for members in of_picture.values():
        common = common_start([tail for one in members for tail in one.tails])
        length = max(length, members[0].seen.positions + common)
        for one in members:
            answer = one.gold[0] if one.kind == "log_probability" else one.answer
            prompts[one.kind] += [Prompted(len(tail) - common, answer) for tail in one.tails]
    return Group([members[0].seen for members in of_picture.values()], length, prompts)


def common_start(tails: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all begin with; one at least remains for each."""
    shortest = min(map(len, tails)) - 1
    first, last = min(tails), max(tails)  # in sorted order, what these share all share
    return next((k for k in range(shortest) if first[k] != last[k]), shortest)


def firsts_of(asked: Sequence[Asked]) -> list[Asked]:
    """The first example of every task."""
    return [*{one.task: one for one in reversed(asked)}.values()]


def sweep_plan(shapes: Shapes, asked: Sequence[Asked], free: Number, device: str, batch_size: int | None) -> MemoryPlan:
    """The plan that a sweep makes for itself: the first example of every task measures a picture."""
    positions = sum(one.length + sum(map(len, one.tails[1:])) for one in firsts_of(asked))
    kept = max(1, positions) * shapes.layers * shapes.bytes_per_position
    return plan_for(kept, max(0, int(free)), device, batch_size)


def at_once(shapes: Shapes, plan: MemoryPlan, width: int, past: int) -> int:
    """Rows of `width` new positions on `past` others in one pass."""
    return plan.rows_at_once(width, shapes.layers * (past + width) * shapes.bytes_per_position)


def sweep_work(
    shapes: Shapes, asked: Sequence[Asked], edits: Edits, plan: MemoryPlan, left: Number = LEFT_DRAFT
) -> Work:
    """All groups of a sweep, without the proof at its beginning; left: share of the texts that leave their draft."""
    return sum((group_work(shapes, group, edits, plan, left) for group in groups(asked, plan.pictures)), Work())


def group_work(shapes: Shapes, group: Group, edits: Edits, plan: MemoryPlan, left: Number = 0.0) -> Work:
    """One group."""
    length, pictures = group.length, len(group.seen)
    batches = [*group.batches(shapes, plan)]
    room = max(batch.width for batch in batches)
    work = sum((vision(shapes, seen) for seen in group.seen), Work())
    work += passing(shapes, pictures, length, 0, keys_only=True)
    for layer, count in edits.at.items():
        passes = math.ceil(count / max(1, at_once(shapes, plan, length, room) // pictures))
        times, written = count / passes, int(edits.written)  # in each of as many passes
        part = passing(shapes, times * pictures, length, 0, start=layer + written, given=not written, keys_only=True)
        if part.flop:
            work += (part + fanning(shapes, pictures * length, times * edits.heads)) * passes
    for batch in batches:
        rows, width, wanted, text = len(batch.prompts), batch.width, batch.wanted, batch.kind == "text"
        if text:
            work += passing(shapes, rows, batch.own, length, wanted=rows) + unembedding(shapes, rows)
            work += decoding(shapes, batch, length + width, 1)
        work += passing(shapes, rows, width, length, wanted=wanted)
        if batch.kind == "log_probability":
            work += unembedding(shapes, wanted)
        for layer, count in edits.at.items():
            passes = math.ceil(count / max(1, at_once(shapes, plan, width, length) // rows))
            times = count / passes
            part = passing(shapes, times * rows, width, length, start=layer, given=True, wanted=times * wanted)
            if batch.kind != "yes_no":
                part += unembedding(shapes, times * wanted)
            work += (part + fanning(shapes, rows * width, times * edits.heads)) * passes
        if text:  # rows leave their draft at any of its tokens alike
            work += decoding(shapes, batch, length + width, edits.count * left / 2)
    return work


def fanning(shapes: Shapes, positions: int, heads: Number) -> Work:
    """o_proj of the unedited model, and of each replaced head's change."""
    change = linear(shapes, positions, Linears.between(shapes.head_dim, shapes.width), heads)
    return linear(shapes, positions, shapes.out) + change


def decoding(shapes: Shapes, batch: Batch, past: int, share: Number) -> Work:
    """This share of all further tokens of the answers, one a step."""
    steps = max(prompt.answer for prompt in batch.prompts) - 1
    if steps <= 0 or share <= 0:
        return Work()
    rows = share * sum(max(0, prompt.answer - 1) for prompt in batch.prompts) / steps
    return (passing(shapes, rows, 1, past) + unembedding(shapes, rows)) * steps


def proof(shapes: Shapes, asked: Sequence[Asked], edits: Edits, plan: MemoryPlan) -> Work:
    """What `hones.sweep.engines` runs before a sweep: a few prompts under three edits, by both ways."""
    layers = [layer for layer, count in sorted(edits.at.items()) for _ in range(count)]
    few = replace(edits, at=Counter([layers[0], layers[len(layers) // 2], layers[-1]]))
    prompts = [replace(one, tails=(tail,)) for one in firsts_of(asked) for tail in one.tails[:PROOF_PROMPTS]]
    work = sum((whole(shapes, one.seen, one.length) for one in prompts), Work()) * (1 + PROOFS)
    work += group_work(shapes, group_of(only_read(prompts)), few, plan)
    return work + unembedding(shapes, len(prompts) * PROOFS)


def only_read(asked: Sequence[Asked]) -> list[Asked]:
    """The same examples where z is read at the end of their first prompt, without an answer."""
    return [replace(one, kind="yes_no", tails=one.tails[:1], answer=0) for one in asked]


def attribution_work(shapes: Shapes, asked: Sequence[Asked], edits: Edits, plan: MemoryPlan) -> Work:
    """Importance of all neurons from the guiding heads: the sweep's rows, and W_down^T u, 2 d I L per direction."""
    work, directions = Work(), 1 if asked[0].kind == "yes_no" else len(asked)  # of retrieval all Yes
    for start in range(0, len(asked), plan.pictures):
        work += group_work(shapes, group_of(only_read(asked[start : start + plan.pictures])), edits, plan)
    return work + linear(shapes, directions, Linears(shapes.width * shapes.neurons), shapes.layers)


def release_work(shapes: Shapes, asked: Sequence[Asked], edits: int) -> Work:
    """One item at a time, for the unedited model and each edit: vision, prompt, and the answer token by token."""
    work = Work()
    for one in asked:
        for length in (one.seen.positions + len(tail) for tail in one.tails):
            token = passing(shapes, 1, 1, length) + unembedding(shapes, 1)
            work += whole(shapes, one.seen, length) + token * max(0, one.answer - 1)
    return work * (edits + 1)
