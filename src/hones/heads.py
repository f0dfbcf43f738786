"""Step 1 of the paper: localise task-critical heads by mean replacement.

    S(l, h) = P(theta) - P(theta under I(l, h)),    I(l, h): o[l,h] <- mean over j != h of o[l,j], all positions

P is the task's metric over the discovery items, greedy decoding, at most 24 new tokens (retrieval: no decoding). The
critical heads H* are the K of largest S; by default 3 % of the L * H heads, at least 5.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.interventions import replace_heads
from hones.models.vlm import VLM
from hones.sweep import Edit, sweep
from hones.sweep.naive import MAX_NEW_TOKENS
from hones.tasks.base import Example, Task
from hones.uncertainty import Interval, PairedBootstrap


@dataclass(frozen=True)
class HeadScore:
    """One head: its score S with interval, and the metric without (`baseline`) and with its replacement."""

    layer: int
    head: int
    score: Interval
    baseline: float
    intervened: float


@dataclass(frozen=True)
class HeadResult:
    """All heads, best first, and the K critical ones."""

    metric_name: str
    baseline: Interval
    items: int
    heads: tuple[HeadScore, ...]
    top_k: int

    @property
    def critical(self) -> tuple[HeadScore, ...]:
        """H*: the K heads of largest score."""
        return self.heads[: self.top_k]

    def matrix(self, layers: int, heads: int) -> Float[np.ndarray, "layers heads"]:
        """The scores as float32 [L, H]."""
        matrix = np.zeros((layers, heads), dtype=np.float32)
        for h in self.heads:
            matrix[h.layer, h.head] = h.score.value
        return matrix


def default_top_k(layers: int, heads: int) -> int:
    """3 % of the heads, at least 5, at most all."""
    return min(layers * heads, max(5, round(0.03 * layers * heads)))


def localize_heads(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    *,
    top_k: int | None = None,
    batch_size: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 3407,
) -> HeadResult:
    """Score every head by replacing it alone.

    Args:
        examples: the discovery items.
        top_k: K; default 3 % of the heads, at least 5.
        seed: of the bootstrap.

    Raises:
        HonesError: no examples, an impossible K, a model with one head per layer, logits that are not finite.
    """
    layers, heads, _ = vlm.anatomy.shape
    k = default_top_k(layers, heads) if top_k is None else top_k
    if not 1 <= k <= layers * heads:
        raise HonesError(f"--top-k {k}", expected=f"1 to {layers * heads}, the number of heads")
    if heads < 2:
        raise HonesError(f"{vlm.name} has one head per layer", expected="two or more: a head is replaced by the others")
    if not examples:
        raise HonesError("no items to score heads on", expected="at least one")
    sites = [(layer, head) for layer in range(layers) for head in range(heads)]
    edits: list[Edit] = [nullcontext, *(partial(replace_heads, vlm.model, [site]) for site in sites)]
    statistics = sweep(
        vlm, task, examples, edits, batch_size=batch_size, max_new_tokens=max_new_tokens, progress=f"{task.name}: heads"
    )
    return score_heads(task, statistics, sites, k, seed)


def score_heads(
    task: Task, statistics: Float[np.ndarray, "edits items k"], sites: Sequence[tuple[int, int]], top_k: int, seed: int
) -> HeadResult:
    """Scores from a sweep's statistics: edit 0 is the baseline, edit 1 + i replaces sites[i]."""
    bootstrap = PairedBootstrap(statistics.shape[1], seed)
    base = float(task.score(statistics[0].sum(0, dtype=np.float64)))
    base_resampled = bootstrap.scores(statistics[0], task.score)
    scores = []
    for (layer, head), cell in zip(sites, statistics[1:], strict=True):
        intervened = float(task.score(cell.sum(0, dtype=np.float64)))
        drop = bootstrap.interval(base - intervened, base_resampled - bootstrap.scores(cell, task.score))
        scores.append(HeadScore(layer, head, drop, base, intervened))
    scores.sort(key=lambda h: (-h.score.value, h.layer, h.head))
    baseline = bootstrap.interval(base, base_resampled)
    return HeadResult(task.metric_name, baseline, statistics.shape[1], tuple(scores), top_k)
