"""What replacing a head takes from every neuron's contribution, summed over items, in shards that workers may take.

    D[h, l, i] = sum_x c[l,i](x; theta) - c[l,i](x; theta under I(h))    (`hones.method.neurons` weighs them)

Sums run in float64. There are at most 64 shards, so that few sums travel: [heads, L, I] of a 7B model with 30 heads is
85 MB.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.method.direction import RELEASED, Reading, target_directions, target_ids
from hones.models.anatomy import Site
from hones.models.interventions import Intervention, replace_heads
from hones.models.vlm import VLM, Encoded
from hones.models.writing import Readouts, contributions, importance_shape, readout_of, written
from hones.sweep.engines import DEFAULT_BATCH_SIZE, make_engine
from hones.sweep.memory import Plan
from hones.sweep.replay import Replay
from hones.sweep.shards import Advance, Work, named
from hones.tasks.base import Example, Task

PositivePart = Literal["mean", "item"]
MOST_SHARDS = 64


@dataclass(frozen=True)
class DropsWork(Work[range, Float[np.ndarray, "heads layers neurons"]]):
    """A shard is a range of items; its result the drops of c, summed over them."""

    task: Task
    examples: Sequence[Example]
    heads: Sequence[Site]
    positive_part: PositivePart
    reading: Reading
    engine: str
    batch_size: int | None
    plan: Plan

    def shards(self) -> list[range]:
        """At most 64, each of whole groups, or of whole batches of the definition."""
        count = len(self.examples)
        at_once = self.plan.pictures if self.engine == "replay" else self.batch_size or DEFAULT_BATCH_SIZE
        size = at_once * -(-count // (at_once * MOST_SHARDS))
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def begin(self, vlm: VLM) -> Callable[[range, Advance], Float[np.ndarray, "heads layers neurons"]]:
        """By replay where it is proven, else by the definition; directions are those among all items."""
        replay = None if self.engine == "naive" else self._proven_replay(vlm)
        directions = target_directions(vlm, self.task, self.examples, self.reading.norm_gain)

        def compute(shard: range, advance: Advance) -> Float[np.ndarray, "heads layers neurons"]:
            examples, own = self.examples[shard.start : shard.stop], directions[shard.start : shard.stop]
            how = (self.positive_part, self.reading, own, advance)
            if replay is None:
                return _drops(vlm, self.task, examples, self.heads, self.batch_size, *how)
            return replayed_drops(replay, self.task, examples, self.heads, *how)

        return compute

    def _proven_replay(self, vlm: VLM) -> Replay | None:
        """None, with a warning, for a family that replay cannot serve."""
        edits = [Intervention(heads=frozenset({site})) for site in self.heads]
        engine = make_engine(vlm, "replay", 1, self.batch_size, self.plan, self.examples[:1], edits)
        return engine if isinstance(engine, Replay) else None

    def name(self, shard: range) -> str:
        """Its pictures."""
        return named(self.examples[shard.start : shard.stop])


def drops(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[Site],
    positive_part: PositivePart,
    batch_size: int | None,
    reading: Reading = RELEASED,
) -> Float[np.ndarray, "heads layers neurons"]:
    """D of each head: the definition, one full pass per head and batch."""
    directions = target_directions(vlm, task, examples, reading.norm_gain)
    return _drops(vlm, task, examples, heads, batch_size, positive_part, reading, directions, lambda items: None)


def _drops(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[Site],
    batch_size: int | None,
    positive_part: PositivePart,
    reading: Reading,
    directions: Float[Tensor, "items width"],
    advance: Advance,
) -> Float[np.ndarray, "heads layers neurons"]:
    """`drops`, the answers' directions given; `advance` hears of items."""
    total = np.zeros((len(heads), *importance_shape(vlm)))
    size = batch_size or DEFAULT_BATCH_SIZE
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        encoded, weights = _read_at(vlm, task, part, reading)
        readout = readout_of(vlm, directions[start : start + size])
        base = contributions(vlm, encoded, readout, weights)
        for g, site in enumerate(heads):
            with replace_heads(vlm.model, [site]):
                drop = base - contributions(vlm, encoded, readout, weights)
            drop = drop.clamp(min=0) if positive_part == "item" else drop
            total[g] += drop.sum(0, dtype=torch.float64).cpu().numpy()
        advance(len(part))
    return total


def _read_at(
    vlm: VLM, task: Task, examples: Sequence[Example], reading: Reading
) -> tuple[Encoded, Float[Tensor, "batch positions"] | None]:
    """The inputs to read z from, and the weights of their positions; None: the last position alone."""
    pictures, prompts = [e.open_picture() for e in examples], [e.prompts[0] for e in examples]
    if not reading.all_tokens:
        return vlm.encode(pictures, prompts), None
    encoded = vlm.encode_with_answers(pictures, prompts, [e.target for e in examples])
    assert encoded.answer is not None
    weights = torch.zeros(encoded.answer.shape, device=encoded.answer.device)
    for row, (example, first) in enumerate(zip(examples, encoded.answer.int().argmax(1).tolist(), strict=True)):
        count = len(target_ids(vlm, task, example))
        weights[row, first - 1 : first - 1 + count] = 1 / count
    return encoded, weights


def replayed_drops(
    replay: Replay,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[Site],
    positive_part: PositivePart,
    reading: Reading,
    directions: Float[Tensor, "items width"],
    advance: Advance,
) -> Float[np.ndarray, "heads layers neurons"]:
    """The same by replay: pictures once, heads of a layer as rows, only layers above it, z only where it is read."""
    vlm, plan = replay.vlm, replay.plan
    edits = [Intervention(heads=frozenset({site})) for site in heads]
    drafts = [target_ids(vlm, task, e) if reading.all_tokens else [] for e in examples]
    readouts = Readouts(vlm)
    total = np.zeros((len(heads), *importance_shape(vlm)))

    def of_group(members: Sequence[int]) -> Float[np.ndarray, "heads layers neurons"]:
        part = torch.zeros(len(heads), *importance_shape(vlm), device=vlm.device)
        for done in replay.readings([examples[m] for m in members], edits, [drafts[m] for m in members]):
            owners = torch.tensor([members[p.owner] for p in done.suffixes.prompts], device=directions.device)
            readout = readouts.of(directions[owners])
            assert done.activations is not None and done.suffixes.activations is not None
            for layer, z in done.activations.z.items():
                base = written(vlm.anatomy.layers[layer], done.suffixes.activations.z[layer])
                change = base - written(vlm.anatomy.layers[layer], z).view(len(done.edits), *base.shape)
                drop = _mean_per_prompt(change, done.suffixes.wanted.rows, len(owners)) * readout[layer]
                drop = drop.clamp(min=0) if positive_part == "item" else drop
                part[done.edits, layer] += drop.sum(1).to(part.device)
        return part.double().cpu().numpy()

    for start in range(0, len(examples), plan.pictures):
        members = range(start, min(start + plan.pictures, len(examples)))
        total += sum(replay.in_parts(members, of_group))
        advance(len(members))
    return total


def _mean_per_prompt(
    change: Float[Tensor, "heads n neurons"], of: Int[Tensor, " n"], prompts: int
) -> Float[Tensor, "heads prompts neurons"]:
    """The mean over the positions read of each prompt."""
    if len(of) == prompts:
        return change
    sums = change.new_zeros(len(change), prompts, change.shape[-1]).index_add(1, of.to(change.device), change)
    return sums / torch.bincount(of.to(sums.device), minlength=prompts)[:, None]
