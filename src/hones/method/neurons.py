"""Step 2 of the paper: rank FFN neurons by their write-in toward the answer, conditioned on the critical heads.

    I[l,i] = sum_h S(h) max(0, mean_x c(x; theta) - mean_x c(x; theta under I(h))) / sum_h S(h)

over the heads h of H* with S(h) > 0; c[l,i](x) is neuron i's contribution to the answer's direction
(`hones.method.direction`). Shapes: c [items, L, I], I [L, I]; sums over items run in float64. `positive_part="item"`
takes max(0, .) per item before averaging, the other reading of the paper. The sums over items come from
`hones.method.drops`, shard by shard, and are added in the order of the shards (`hones.sweep.running_sum`).
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError, NothingGuides
from hones.method.budget import PositivePart, neuron_budget
from hones.method.direction import RELEASED, Reading
from hones.method.drops import Attribution, summed_drops
from hones.method.found import HeadResult, HeadScore, RankedNeuron, RankedNeurons
from hones.models.vlm import VLM
from hones.sweep.run import SweepSettings
from hones.sweep.shards import portable
from hones.tasks.base import Example, Task


def attribute_neurons(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    heads: HeadResult | Sequence[HeadScore],
    *,
    positive_part: PositivePart = "mean",
    reading: Reading = RELEASED,
    sweep: SweepSettings | None = None,
) -> Float[np.ndarray, "layers neurons"]:
    """Head-guided importance of every neuron, float32 [L, I].

    Args:
        heads: what `localize_heads` gives, or the critical heads H*; those with S <= 0 carry no weight.
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
    heads: HeadResult | Sequence[HeadScore],
    *,
    positive_part: PositivePart = "mean",
    reading: Reading = RELEASED,
    sweep: SweepSettings | None = None,
) -> Float[np.ndarray, "heads layers neurons"]:
    """What each guiding head adds to the importance: S(h) max(0, mean_x drop of c under I(h)) / sum_h S(h), float64.

    Args and Raises: as `attribute_neurons`; the sum over heads is the importance.
    """
    # The heads of H* with S(h) > 0 guide
    critical = heads.critical if isinstance(heads, HeadResult) else heads
    guides = guiding_heads(critical)
    if not guides:
        raise NothingGuides(
            f"{task.name}: none of the {len(critical)} critical heads lowers the metric",
            expected="at least one head with a positive score",
            do="use more items, or a model that does the task",
        )
    if not examples:
        raise HonesError("no items to attribute neurons on", expected="at least one")

    # D[h, l, i] = sum_x c[l,i](x; theta) - c[l,i](x; theta under I(h))
    sites = [(h.layer, h.head) for h in guides]
    attribution = Attribution(task, portable(examples), sites, positive_part, reading)
    drops = summed_drops(vlm, attribution, sweep or SweepSettings())

    # S(h) max(0, mean_x drop) / sum_h S(h)
    scores = np.array([h.score.value for h in guides])
    return (scores / scores.sum())[:, None, None] * np.maximum(drops / len(examples), 0)


def select_neurons(
    importance: Float[np.ndarray, "layers neurons"],
    ratio: float,
    expert_of: Callable[[int, int], int | None] | None = None,
) -> RankedNeurons:
    """The global top `ratio` of all L * I neurons; neurons of importance 0 are never selected.

    Ties go to the earlier layer and index. expert_of: a model's (`anatomy.expert_of`), to name each
    neuron's expert in a mixture.

    Raises:
        HonesError: ratio outside (0, 1], or an importance that is not finite.
    """
    if not np.isfinite(importance).all():
        raise HonesError("the importance holds numbers that are not finite", do="run `hones neurons` again")
    flat = importance.ravel()
    order = np.argsort(-flat, kind="stable")[: neuron_budget(flat.size, ratio)]
    width = importance.shape[1]
    return RankedNeurons(
        RankedNeuron(
            rank,
            int(i) // width,
            int(i) % width,
            float(flat[i]),
            None if expert_of is None else expert_of(int(i) // width, int(i) % width),
        )
        for rank, i in enumerate(order[flat[order] > 0], 1)
    )
