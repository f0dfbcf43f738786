"""The work and memory of a sweep, as `hones.sweep.replay` runs it group by group, and the same the release's way.

A typical group stands for all. For its B pictures whose prompts share P positions (padded to the longest), J prompts of
T own positions with their drafts, E edits that begin at layer l, N wanted positions (`Shapes.passing` is a pass):

    once        vision B; prefixes B x P, all layers; drafts J x T and their decoding; suffixes J x T
    per layer   o_proj of the unedited model, and 2 n d_h d per replaced head: heads fan out
                prefixes  E B x P from layer l on, the attention of l given, down to the last keys and values
                suffixes  E J x T from layer l on, the last FFN and the logits at the E N wanted positions
    leaving     a share of the E J texts goes on alone, on average for half its answer: rows x 1, all layers

Edits of few neurons at layer l enter the prefixes at l + 1, since what they write is known. Prompts of similar length
go together, so their mean length stands for the padded one. The release runs vision, prompt and answer anew for each
edit, item and candidate.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from hones.runs.plan.lengths import Asked
from hones.runs.plan.shapes import Memory, Number, Shapes, Work
from hones.sweep.memory import MemoryPlan, plan_for

LEFT_DRAFT = 0.1
PROOF_PROMPTS = 2
BATCH = 32  # prompts of a whole pass (`hones.sweep.engines`)
LOGITS_AT_ONCE = 1024
LEAST = MemoryPlan(1, 1, 1)
"""One picture and one row at once."""


@dataclass(frozen=True)
class Edits:
    """How many edits begin at each layer; heads: of each edit there, on average; written: a few neurons of each, and no
    heads.
    """

    at: Mapping[int, int]
    heads: Number = 0
    written: bool = False

    @property
    def count(self) -> int:
        """E."""
        return sum(self.at.values())


def masks(shapes: Shapes, count: int, ratio: Number) -> Edits:
    """Sets of neurons spread over all layers."""
    return Edits({0: count}, written=max(1, round(ratio * shapes.neurons)) <= shapes.neurons // 16)


class Group(NamedTuple):
    """The typical group: how many there are, B, P; and by kind every prompt's own tokens and those of its answer."""

    times: float
    pictures: float
    length: float
    prompts: Mapping[str, Float[np.ndarray, "prompts 2"]]

    @property
    def widest(self) -> float:
        """T of the longest prompt; the last token of an answer is not part of it, since nothing is read after it."""
        return max(
            float((own + np.maximum(0, answer - 1)).max()) for own, answer in map(np.transpose, self.prompts.values())
        )


def common_start(tails: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all begin with; one at least remains for each."""
    shortest = min(map(len, tails)) - 1
    first, last = min(tails), max(tails)  # in sorted order, what these share all share
    return next((k for k in range(shortest) if first[k] != last[k]), shortest)


def only_read(asked: Sequence[Asked]) -> list[Asked]:
    """The same examples where z is read at the end of their first prompt, without an answer."""
    return [replace(one, kind="yes_no", tails=one.tails[:1], answer=0) for one in asked]


def only_gold(asked: Sequence[Asked]) -> list[Asked]:
    """The same examples where the log-probability of their answer is read."""
    return [replace(one, kind="log_probability", tails=one.tails[:1]) for one in asked]


def firsts_of(asked: Sequence[Asked]) -> list[Asked]:
    """The first example of every task."""
    return [*{one.task: one for one in reversed(asked)}.values()]


def sweep_plan(shapes: Shapes, asked: Sequence[Asked], free: Number, device: str, batch_size: int | None) -> MemoryPlan:
    """The plan that a sweep makes for itself: the first example of every task measures a picture."""
    positions = sum(one.length + sum(map(len, one.tails[1:])) for one in firsts_of(asked))
    return plan_for(max(1, positions) * shapes.bytes_per_position, max(0, int(free)), device, batch_size)


@dataclass(frozen=True)
class Sweep:
    """Some examples under some edits, as much at once as the plan says."""

    shapes: Shapes
    asked: Sequence[Asked]
    edits: Edits
    plan: MemoryPlan

    @cached_property
    def group(self) -> Group:
        """All prompts about the same drawn picture share what they begin with."""
        of_picture: dict[Hashable, list[Asked]] = defaultdict(list)
        for one in self.asked:
            of_picture[one.example.about, one.example.box].append(one)
        times = max(1, len({one.example.about for one in self.asked}) / self.plan.pictures)
        pictures = len(of_picture) / times
        shared, prompts = [], defaultdict(list)
        for members in of_picture.values():
            common = common_start([tail for one in members for tail in one.tails])
            shared.append(common)
            for one in members:
                answer = one.gold[0] if one.kind == "log_probability" else one.answer
                prompts[one.kind] += [(len(tail) - common, answer) for tail in one.tails]
        # padded to the largest of so many pictures, on average; an empty prefix is padding alone
        before = np.quantile([members[0].before for members in of_picture.values()], pictures / (pictures + 1))
        length = max(1.0, float(before + np.mean(shared)))
        return Group(times, pictures, length, {kind: np.array(x, float) for kind, x in prompts.items()})

    def at_once(self, width: Number, past: Number) -> int:
        """Rows of `width` new positions on `past` others in one pass."""
        return self.plan.rows_at_once(math.ceil(width), math.ceil(past + width) * self.shapes.bytes_per_position)

    def work(self, left: Number = LEFT_DRAFT) -> Work:
        """All groups, without the proof at the beginning; left: share of the texts that leave their draft."""
        if self.shapes.stateful:
            return self._by_passes(left)
        shapes, (times, pictures, length, kinds) = self.shapes, self.group
        work = shapes.passing(pictures, length, 0, keys_only=True) + self._edited(pictures, length, self.group.widest)
        for kind, (own, answer) in ((kind, prompts.T) for kind, prompts in kinds.items()):
            count = len(own) / times
            passes = math.ceil(count / self.at_once(own.max() + answer.max(), length))
            # prompts of similar length go together, padded to the longest of each pass
            longest = np.arange(1, passes + 1) / passes * count / (count + 1)
            later = np.maximum(0, answer - 1)
            padded, width = (float(np.quantile(x, longest).mean()) for x in (own, own + later))
            rows, steps = count / passes, width - padded
            wanted = rows * float(np.maximum(1, answer).mean())
            batch = shapes.passing(rows, width, length, wanted=wanted)
            batch += self._edited(rows, width, length, wanted, logits=kind != "yes_no")
            if kind == "log_probability":
                batch += shapes.unembedding(wanted)
            if kind == "text":  # the draft; rows leave it at any of its tokens alike
                batch += shapes.passing(rows, padded, length, wanted=rows) + shapes.unembedding(rows)
                going = rows * float(later.mean()) / max(1.0, steps)
                for many in (going, going * self.edits.count * left / 2):
                    batch += (shapes.passing(many, 1, length + width) + shapes.unembedding(many)) * max(1.0, steps)
            work += batch * passes
        vision = {(one.example.about, one.example.box): one.vision for one in self.asked}
        return work * times + sum(vision.values(), Work())

    def _by_passes(self, left: Number) -> Work:
        """As `hones.sweep.forward` runs it: for every edit a whole pass over prompts with their drafts, padded."""
        shapes, work = self.shapes, Work()
        rows: dict[str, list[tuple[Asked, int]]] = defaultdict(list)
        for one in self.asked:
            rows[one.kind] += [(one, len(tail)) for tail in one.tails]
        for kind, of_kind in rows.items():
            for start in range(0, len(of_kind), BATCH):
                batch = of_kind[start : start + BATCH]
                answers = [one.gold[0] if kind == "log_probability" else one.answer for one, _ in batch]
                length = max(one.before + tail for one, tail in batch)
                later = max(0, max(answers) - 1)
                vision = sum((one.vision for one, _ in batch), Work())
                edited = shapes.passing(len(batch), length + later, 0)
                edited += shapes.unembedding(sum(max(1, answer) for answer in answers))
                work += vision + edited * (self.edits.count + (kind != "text"))  # the unedited model's is a draft there
                if kind == "text":
                    token = shapes.passing(len(batch), 1, length) + shapes.unembedding(len(batch))
                    written = shapes.passing(len(batch), length, 0) + shapes.unembedding(len(batch)) + token * later
                    work += written + (vision + written) * (left * self.edits.count)
        return work

    def _edited(
        self, rows: Number, new: Number, others: Number, wanted: Number | None = None, *, logits: bool = False
    ) -> Work:
        """Every edit from its layer on, in as many passes as memory asks for; prefixes where nothing is wanted."""
        shapes, prefix, work = self.shapes, wanted is None, Work()
        skipped = prefix and self.edits.written
        for layer, count in self.edits.at.items():
            passes = max(1, count / max(1, self.at_once(new, others) / rows))
            times, start, past = count / passes, layer + skipped, 0 if prefix else others
            read = times * (wanted or 0)
            part = shapes.passing(
                times * rows, new, past, start=start, given=not skipped, keys_only=prefix, wanted=read
            )
            part += shapes.unembedding(read if logits else 0) + shapes.linear(rows * new, shapes.out)
            part += shapes.mapping(rows * new, shapes.head_dim, shapes.width, times * self.edits.heads)
            work += part * passes
        return work

    def proof(self) -> Work:
        """What `hones.sweep.engines` runs before a sweep: a few prompts, without an edit and under three, both ways."""
        layers = sorted(Counter(self.edits.at).elements())
        few = (layers[0], layers[len(layers) // 2], layers[-1])
        asked = [replace(one, tails=(tail,)) for one in firsts_of(self.asked) for tail in one.tails[:PROOF_PROMPTS]]
        fast = replace(self, asked=only_read(asked), edits=replace(self.edits, at=Counter(few)))
        by_definition = sum((one.whole(self.shapes, one.length) for one in asked), Work()) * (1 + len(few))
        return by_definition + fast.work() + self.shapes.unembedding(len(few) * len(asked))

    def release(self) -> Work:
        """One item at a time, for the unedited model and each edit: vision, prompt, and the answer token by token."""
        work = Work()
        for one in self.asked:
            for length in (one.before + len(tail) for tail in one.tails):
                token = self.shapes.passing(1, 1, length) + self.shapes.unembedding(1)
                work += one.whole(self.shapes, length) + token * max(0, one.answer - 1)
        return work * (self.edits.count + 1)

    def memory(self, together: int, summed: int = 0) -> Memory:
        """Of a group: what is kept of each picture and prompt at every layer, the rows of a pass, of those that wait to
        be decoded and of those being decoded, and what works at the positions that are computed at once.

        Args:
            together: edits that begin at one layer, at most. summed: heads of which float32 [L, I] is summed, twice:
                the sums, and what a group adds.
        """
        shapes, (times, pictures, length, kinds) = self.shapes, self.group
        width, lengths = self.group.widest, [*kinds.values()]
        prompts = sum(map(len, lengths)) / times
        positions = pictures * length + sum(float(x.sum()) for x in lengths) / times
        begun, rows = (min(together * prompts, self.at_once(*of)) for of in ((length, width), (width, length)))
        texts = len(kinds.get("text", ())) / times
        kept = (
            positions * (shapes.width + shapes.inner)
            + (positions + (texts + begun + 2 * rows) * (length + width)) * shapes.keys
        )
        at_a_time = max(min(self.plan.positions, max(begun * length, rows * width)), length)
        of_layer = 3 * shapes.neurons + 4 * shapes.width + 2 * shapes.inner + shapes.keys
        working = at_a_time * of_layer + min(at_a_time, LOGITS_AT_ONCE) * shapes.vocabulary * 2
        sums = 2 * 4 * summed * shapes.layers * shapes.neurons
        return Memory(shapes.bytes, kept * shapes.layers * shapes.itemsize, working * shapes.itemsize + sums)
