"""Step 2 of the paper: rank FFN neurons by their write-in toward the answer, conditioned on the critical heads.

    I[l,i] = sum_h S(h) max(0, mean_x c(x; theta) - mean_x c(x; theta under I(h))) / sum_h S(h)

over the heads h of H* with S(h) > 0; c[l,i](x) is neuron i's contribution to the answer's direction (`hones.write_in`).
Shapes: c [items, L, I], I [L, I]; sums over items run in float64. `positive_part="item"` takes max(0, .) per item
before averaging, the other reading of the paper.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.errors import HonesError, NothingGuides
from hones.heads import HeadScore
from hones.interventions import Intervention, Site, replace_heads
from hones.models.vlm import VLM, Encoded
from hones.models.writing import written
from hones.notebook import Rows, Tabular
from hones.progress import track
from hones.sweep import SweepSettings
from hones.sweep.engines import make_engine
from hones.sweep.memory import make_plan
from hones.sweep.replay import Replay
from hones.tasks.base import Example, Task
from hones.write_in import (
    RELEASED,
    Reading,
    Readouts,
    contributions,
    importance_shape,
    readout_of,
    target_directions,
    target_ids,
)

PositivePart = Literal["mean", "item"]


@dataclass(frozen=True)
class RankedNeuron:
    """A selected neuron; rank 1 has the largest importance."""

    rank: int
    layer: int
    neuron: int
    score: float


class RankedNeurons(Tabular, list[RankedNeuron]):
    """Selected neurons, best first."""

    def tables(self) -> dict[str, Rows]:
        """The neurons."""
        return {"neurons": [asdict(n) for n in self]}


def attribute_neurons(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[HeadScore],
    *,
    positive_part: PositivePart = "mean",
    reading: Reading = RELEASED,
    sweep: SweepSettings | None = None,
) -> Float[np.ndarray, "layers neurons"]:
    """Head-guided importance of every neuron, float32 [L, I].

    Args:
        heads: the critical heads H*; those with S <= 0 carry no weight.
        positive_part: "mean" (as released) or "item".

    Raises:
        NothingGuides: no critical head lowers the metric.
        HonesError: no examples.
    """
    parts = head_importance(vlm, task, examples, heads, positive_part=positive_part, reading=reading, sweep=sweep)
    return parts.sum(0).astype(np.float32)


def guiding_heads(heads: Sequence[HeadScore]) -> list[HeadScore]:
    """The heads with S > 0, in order: the rows of `head_importance`."""
    return [h for h in heads if h.score.value > 0]


def head_importance(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[HeadScore],
    *,
    positive_part: PositivePart = "mean",
    reading: Reading = RELEASED,
    sweep: SweepSettings | None = None,
) -> Float[np.ndarray, "heads layers neurons"]:
    """What each guiding head adds to the importance: S(h) max(0, mean_x drop of c under I(h)) / sum_h S(h), float64.

    Args and Raises: as `attribute_neurons`; the sum over heads is the importance.
    """
    guides = guiding_heads(heads)
    if not guides:
        raise NothingGuides(
            f"{task.name}: none of the {len(heads)} critical heads lowers the metric",
            expected="at least one head with a positive score",
            do="use more items, or a model that does the task",
        )
    if not examples:
        raise HonesError("no items to attribute neurons on", expected="at least one")
    settings = sweep or SweepSettings()
    weights, sites = np.array([h.score.value for h in guides]), [(h.layer, h.head) for h in guides]
    replay = None if settings.engine == "naive" else _proven_replay(vlm, examples, sites, settings)
    if replay is None:
        found = drops(vlm, task, examples, sites, positive_part, settings.batch_size, reading)
    else:
        found = replayed_drops(replay, task, examples, sites, positive_part, reading)
    return (weights / weights.sum())[:, None, None] * np.maximum(found / len(examples), 0)


def drops(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[Site],
    positive_part: PositivePart,
    batch_size: int | None,
    reading: Reading = RELEASED,
) -> Float[np.ndarray, "heads layers neurons"]:
    """sum_x c(x; theta) - c(x; theta under I(h)) of each head: the definition, one full pass per head and batch."""
    layers, _, neurons = vlm.anatomy.shape
    total = np.zeros((len(heads), layers, neurons))
    directions = target_directions(vlm, task, examples, reading.norm_gain)
    size = batch_size or 32
    for start in track(range(0, len(examples), size), f"{task.name}: neurons"):
        part = examples[start : start + size]
        encoded, weights = _read_at(vlm, task, part, reading)
        readout = readout_of(vlm, directions[start : start + size])
        base = contributions(vlm, encoded, readout, weights)
        for g, site in enumerate(heads):
            with replace_heads(vlm.model, [site]):
                drop = base - contributions(vlm, encoded, readout, weights)
            drop = drop.clamp(min=0) if positive_part == "item" else drop
            total[g] += drop.sum(0, dtype=torch.float64).cpu().numpy()
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


def _proven_replay(
    vlm: VLM, examples: Sequence[Example], heads: Sequence[Site], settings: SweepSettings
) -> Replay | None:
    """None, with a warning, for a family that replay cannot serve."""
    first = vlm.encode([examples[0].open_picture()], [examples[0].prompts[0]])
    plan = make_plan(vlm, first.inputs["input_ids"].shape[1], settings.batch_size)
    edits = [Intervention(heads=frozenset({site})) for site in heads]
    engine = make_engine(vlm, "replay", 1, settings.batch_size, plan, examples[:1], edits)
    return engine if isinstance(engine, Replay) else None


def replayed_drops(
    replay: Replay,
    task: Task,
    examples: Sequence[Example],
    heads: Sequence[Site],
    positive_part: PositivePart,
    reading: Reading = RELEASED,
) -> Float[np.ndarray, "heads layers neurons"]:
    """`drops` by replay: pictures once, heads of a layer as rows, only layers above it, z only where it is read."""
    vlm, plan = replay.vlm, replay.plan
    edits = [Intervention(heads=frozenset({site})) for site in heads]
    directions = target_directions(vlm, task, examples, reading.norm_gain)
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
                part[done.edits, layer] += drop.sum(1)
        return part.double().cpu().numpy()

    for start in track(range(0, len(examples), plan.pictures), f"{task.name}: neurons"):
        members = range(start, min(start + plan.pictures, len(examples)))
        total += sum(replay.in_parts(members, of_group))
    return total


def _mean_per_prompt(
    change: Float[Tensor, "heads n neurons"], of: Int[Tensor, " n"], prompts: int
) -> Float[Tensor, "heads prompts neurons"]:
    """The mean over the positions read of each prompt."""
    if len(of) == prompts:
        return change
    sums = change.new_zeros(len(change), prompts, change.shape[-1]).index_add(1, of, change)
    return sums / torch.bincount(of, minlength=prompts)[:, None]


def check_ratio(ratio: float) -> None:
    """Raises HonesError for a ratio outside (0, 1]."""
    if not 0 < ratio <= 1:
        raise HonesError(f"--ratio {ratio}", expected="a share of all neurons above 0 and at most 1")


def neuron_budget(total: int, ratio: float) -> int:
    """How many of `total` neurons a ratio is: rounded (1 % of LLaVA-1.5-7B's 352,256 is 3,523), at least 1.

    Raises:
        HonesError: ratio outside (0, 1].
    """
    check_ratio(ratio)
    return max(1, round(ratio * total))


def select_neurons(importance: Float[np.ndarray, "layers neurons"], ratio: float) -> RankedNeurons:
    """The global top `ratio` of all L * I neurons; neurons of importance 0 are never selected.

    Ties go to the earlier layer and index.

    Raises:
        HonesError: ratio outside (0, 1], or an importance that is not finite.
    """
    if not np.isfinite(importance).all():
        raise HonesError("the importance holds numbers that are not finite", do="run `hones neurons` again")
    flat = importance.ravel()
    order = np.argsort(-flat, kind="stable")[: neuron_budget(flat.size, ratio)]
    width = importance.shape[1]
    return RankedNeurons(
        RankedNeuron(rank, int(i) // width, int(i) % width, float(flat[i]))
        for rank, i in enumerate(order[flat[order] > 0], 1)
    )
