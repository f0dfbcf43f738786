"""What replacing a head takes from every neuron's contribution, summed over items, in shards that workers may take.

    D[h, l, i] = sum_x c[l,i](x; theta) - c[l,i](x; theta under I(h))    (`hones.method.neurons` weighs them)

Sums run in float64. There are at most 64 shards, so that few sums travel: [heads, L, I] of a 7B model with 30 heads is
85 MB.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.method.budget import PositivePart
from hones.method.direction import RELEASED, Reading, target_directions, target_ids
from hones.models.interventions import Intervention, replace_heads
from hones.models.sites import Site
from hones.models.vlm import VLM, Encoded
from hones.models.writing import Readouts, contributions, importance_shape, readout_of, written
from hones.progress import progress_bar
from hones.sweep.engines import DEFAULT_BATCH_SIZE, make_engine
from hones.sweep.memory import MemoryPlan
from hones.sweep.replay import Replay
from hones.sweep.resume import refuse_other_batches
from hones.sweep.run import SweepSettings
from hones.sweep.shards import Advance, ShardedWork, in_order, named
from hones.tasks.base import Example, Task

MOST_SHARDS = 64


@dataclass(frozen=True)
class Attribution:
    """What is attributed: the contributions to the examples' answers, to the heads whose replacement lowers them.

    positive_part: "item": only what an item loses counts, max(0, .) of every item's drop before the sum.
    """

    task: Task
    examples: Sequence[Example]
    heads: Sequence[Site]
    positive_part: PositivePart = "mean"
    reading: Reading = RELEASED

    def directions(self, vlm: VLM) -> Float[Tensor, "items width"]:
        """u_y of every example; those of captions depend on all that are asked together."""
        return target_directions(vlm, self.task, self.examples, self.reading.norm_gain)

    def counted(self, drop: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The part of every item's drop that counts."""
        return drop.clamp(min=0) if self.positive_part == "item" else drop


def summed_drops(
    vlm: VLM, attribution: Attribution, settings: SweepSettings
) -> Float[np.ndarray, "heads layers neurons"]:
    """D of all examples: the shards' sums, added in their order to those that the running sum holds already.

    Raises:
        HonesError: a target without direction, a model whose neurons' write-in is not known, a running sum of other
            batches.
    """
    examples = attribution.examples
    length = vlm.encode([examples[0].open_picture()], [examples[0].prompts[0]]).inputs["input_ids"].shape[1]
    planned = settings.workers.plan(vlm, length, settings.batch_size, settings.most_bytes)
    cut = {**asdict(planned), "batch_size": settings.batch_size}
    running = settings.running_sum((len(attribution.heads), *importance_shape(vlm)), cut)
    if running.path is not None:
        refuse_other_batches(running.path, "ranking", running.plan["pictures"], settings.batch_size)
    plan = MemoryPlan(**{name: running.plan[name] for name in asdict(planned)})
    work = DropsWork(attribution, settings.engine, running.plan["batch_size"], plan)
    shards = work.shards()
    compute = settings.workers.begin(vlm, work)
    with progress_bar(f"{attribution.task.name}: neurons", total=len(examples)) as bar:
        bar.initial = bar.n = shards[running.done - 1].stop if running.done else 0
        for part in in_order(compute(shards[running.done :], bar)):
            running.add(part)
            bar.update(shards[running.done - 1].stop - bar.n)
    return running.total


@dataclass(frozen=True)
class DropsWork(ShardedWork[range, Float[np.ndarray, "heads layers neurons"]]):
    """A shard is a range of items; its result the drops of c, summed over them."""

    attribution: Attribution
    engine: str
    batch_size: int | None
    plan: MemoryPlan

    @property
    def tasks(self) -> list[Task]:
        return [self.attribution.task]

    def shards(self) -> list[range]:
        """At most 64, each of whole groups, or of whole batches of the definition."""
        count = len(self.attribution.examples)
        at_once = self.plan.pictures if self.engine == "replay" else self.batch_size or DEFAULT_BATCH_SIZE
        size = at_once * -(-count // (at_once * MOST_SHARDS))
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def begin(self, vlm: VLM) -> Callable[[range, Advance], Float[np.ndarray, "heads layers neurons"]]:
        """By replay where it is proven, else by the definition; directions are those among all items."""
        attribution = self.attribution
        engine = None
        if self.engine != "naive":
            edits = [Intervention(heads=frozenset({site})) for site in attribution.heads]
            engine = make_engine(vlm, "replay", 1, self.batch_size, self.plan, attribution.examples[:1], edits)
        directions = attribution.directions(vlm)

        def compute(shard: range, advance: Advance) -> Float[np.ndarray, "heads layers neurons"]:
            part = replace(attribution, examples=attribution.examples[shard.start : shard.stop])
            of_part = directions[shard.start : shard.stop]
            # A family that replay cannot serve got another engine, with a warning
            if isinstance(engine, Replay):
                return replayed_drops(engine, part, of_part, advance)
            return drops(vlm, part, self.batch_size, of_part, advance)

        return compute

    def name(self, shard: range) -> str:
        """Its pictures."""
        return named(self.attribution.examples[shard.start : shard.stop])


def drops(
    vlm: VLM,
    attribution: Attribution,
    batch_size: int | None = None,
    directions: Float[Tensor, "items width"] | None = None,
    advance: Advance = lambda items: None,
) -> Float[np.ndarray, "heads layers neurons"]:
    """D of each head: the definition, one full pass per head and batch.

    Args:
        directions: u_y of the examples, where they are part of more that are asked together.
        advance: hears of items.
    """
    directions = attribution.directions(vlm) if directions is None else directions
    total = np.zeros((len(attribution.heads), *importance_shape(vlm)))
    size = batch_size or DEFAULT_BATCH_SIZE
    for start in range(0, len(attribution.examples), size):
        batch = attribution.examples[start : start + size]
        encoded, weights = _read_at(vlm, attribution.task, batch, attribution.reading)
        readout = readout_of(vlm, directions[start : start + size])
        # c[l, i](x; theta), then c[l, i](x; theta under I(h))
        base = contributions(vlm, encoded, readout, weights)
        for g, site in enumerate(attribution.heads):
            with replace_heads(vlm.model, [site]):
                drop = attribution.counted(base - contributions(vlm, encoded, readout, weights))
            total[g] += drop.sum(0, dtype=torch.float64).cpu().numpy()
        advance(len(batch))
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
    replay: Replay, attribution: Attribution, directions: Float[Tensor, "items width"], advance: Advance
) -> Float[np.ndarray, "heads layers neurons"]:
    """`drops` by replay: pictures once, heads of a layer as rows, only layers above it, z only where it is read."""
    vlm = replay.vlm
    examples = attribution.examples
    heads = attribution.heads
    edits = [Intervention(heads=frozenset({site})) for site in heads]
    drafts = [target_ids(vlm, attribution.task, e) if attribution.reading.all_tokens else [] for e in examples]
    readouts = Readouts(vlm)
    total = np.zeros((len(heads), *importance_shape(vlm)))

    def of_group(members: Sequence[int]) -> Float[np.ndarray, "heads layers neurons"]:
        part = torch.zeros(len(heads), *importance_shape(vlm), device=vlm.device)
        for done in replay.readings([examples[m] for m in members], edits, [drafts[m] for m in members]):
            owners = torch.tensor([members[p.owner] for p in done.suffixes.prompts], device=directions.device)
            readout = readouts.of(directions[owners])
            assert done.activations is not None and done.suffixes.activations is not None
            # c is linear in what is written, so its drop is that of a(z) z, read out once
            for layer, z in done.activations.z.items():
                base = written(vlm.anatomy.layers[layer], done.suffixes.activations.z[layer])
                change = base - written(vlm.anatomy.layers[layer], z).view(len(done.edits), *base.shape)
                drop = _mean_per_prompt(change, done.suffixes.wanted.rows, len(owners)) * readout[layer]
                part[done.edits, layer] += attribution.counted(drop).sum(1).to(part.device)
        return part.double().cpu().numpy()

    at_once = replay.plan.pictures  # of the plan at the start: `in_parts` halves the plan where memory runs out
    for start in range(0, len(examples), at_once):
        members = range(start, min(start + at_once, len(examples)))
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
