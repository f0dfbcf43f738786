"""Step 1 of the paper: localise task-critical heads by mean replacement.

    S(l, h) = P(theta) - P(theta under I(l, h)),    I(l, h): o[l,h] <- mean over j != h of o[l,j], all positions

P is the task's metric over the discovery items, greedy decoding, at most 24 new tokens (retrieval: no decoding). The
critical heads H* are the K of largest S; by default 3 % of the L * H heads, at least 5.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.models.anatomy import Site
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import Interval, PairedBootstrap
from hones.sweep.racing import Race, RaceRules
from hones.sweep.run import SweepSettings, sweep_tasks
from hones.tabular import Column, Table, Tabular, heat_map_html
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class HeadScore:
    """One head: its score S with interval, and the metric without (`baseline`) and with its replacement.

    items: how many it was scored on. dropped: it left a race as one that cannot be critical.
    """

    layer: int
    head: int
    score: Interval
    baseline: float
    intervened: float
    items: int = 0
    dropped: bool = False


@dataclass(frozen=True)
class HeadResult(Tabular):
    """All heads, best first, and the K critical ones. racing: the rules of a race, None: all cells were run."""

    metric_name: str
    baseline: Interval
    items: int
    heads: tuple[HeadScore, ...]
    top_k: int
    racing: RaceRules | None = None

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

    def tables(self) -> list[Table]:
        """Every head, best first."""
        title = f"Critical heads, {self.metric_name} {self.baseline:.3f} on {self.items} items"
        if self.racing is not None:
            dropped = sum(h.dropped for h in self.heads)
            title += f"; racing at {self.racing.confidence:g}, within {self.racing.margin:g}: {dropped} dropped early"
        columns = (
            Column("layer", "layer"),
            Column("head", "head"),
            Column("score", "drop when replaced [95 %]", "interval", "+.3f", full="drop when replaced"),
            Column("baseline"),
            Column("intervened", "metric without it", "number"),
            Column("items"),
            Column("dropped"),
            Column("critical", "critical", detail=True),
        )
        rows = [{**vars(h), "critical": rank < self.top_k} for rank, h in enumerate(self.heads)]
        return [Table("heads", title, columns, rows, shown=self.top_k)]

    def map_html(self) -> str:
        """The map of heads."""
        layers, heads = (1 + max(x) for x in zip(*((h.layer, h.head) for h in self.heads), strict=True))
        marked = {(h.layer, h.head) for h in self.critical}
        return heat_map_html(self.matrix(layers, heads), marked, f"drop of {self.metric_name}")


def default_top_k(layers: int, heads: int) -> int:
    """3 % of the heads, at least 5, at most all."""
    return min(layers * heads, max(5, round(0.03 * layers * heads)))


def check_head_settings(vlm: VLM, top_k: int | None, racing: RaceRules | None) -> None:
    """Raises HonesError for an impossible K or race, or a model with one head per layer."""
    layers, heads, _ = vlm.anatomy.shape
    if top_k is not None and not 1 <= top_k <= layers * heads:
        raise HonesError(str(top_k), argument="top_k", expected=f"1 to {layers * heads}, the number of heads")
    if heads < 2:
        raise HonesError(f"{vlm.name} has one head per layer", expected="two or more: a head is replaced by the others")
    if racing is not None:
        racing.check()


def _checked_top_k(vlm: VLM, top_k: int | None, jobs: Sequence[tuple[Task, Sequence[Example]]]) -> int:
    check_head_settings(vlm, top_k, None)
    layers, heads, _ = vlm.anatomy.shape
    k = default_top_k(layers, heads) if top_k is None else top_k
    if not all(examples for _, examples in jobs):
        raise HonesError("no items to score heads on", expected="at least one")
    return k


def _all_heads(vlm: VLM) -> list[Site]:
    layers, heads, _ = vlm.anatomy.shape
    return [(layer, head) for layer in range(layers) for head in range(heads)]


def _edits(sites: Sequence[Site]) -> list[Intervention]:
    """The baseline, and one intervention per head."""
    return [BASELINE, *(Intervention(heads=frozenset({site})) for site in sites)]


def localize_heads(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    *,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
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
    return localize_heads_of_tasks(vlm, [(task, examples)], top_k=top_k, sweep=sweep, seed=seed)[0]


def localize_heads_of_tasks(
    vlm: VLM,
    jobs: Sequence[tuple[Task, Sequence[Example]]],
    *,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> list[HeadResult]:
    """`localize_heads` for several tasks in one sweep: tasks that ask about the same pictures share their work."""
    k, sites = _checked_top_k(vlm, top_k, jobs), _all_heads(vlm)
    names = ", ".join(task.name for task, _ in jobs)
    statistics = sweep_tasks(vlm, jobs, _edits(sites), sweep, f"{names}: heads")
    return [score_heads(task, cells, sites, k, seed) for (task, _), cells in zip(jobs, statistics, strict=True)]


def race_heads(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    *,
    rules: RaceRules | None = None,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> HeadResult:
    """An approximation of `localize_heads`: heads leave the sweep once they are decided (`hones.sweep.racing`).

    Raises:
        HonesError: as `localize_heads`, or impossible rules.
    """
    rules = rules or RaceRules()
    check_head_settings(vlm, top_k, rules)
    k = _checked_top_k(vlm, top_k, [(task, examples)])
    sites = _all_heads(vlm)
    race = Race(task, k, len(sites), len(examples), rules, seed)
    (cells,) = sweep_tasks(vlm, [(task, examples)], _edits(sites), sweep, f"{task.name}: racing heads", race)
    left_after: dict[int, list[int]] = defaultdict(list)
    for entrant in range(1, len(sites) + 1):
        left_after[len(race.items_of(entrant))].append(entrant)
    scores = []
    for count, entrants in left_after.items():
        seen, own = race.seen[:count], [sites[entrant - 1] for entrant in entrants]
        result = score_heads(task, cells[[0, *entrants]][:, seen], own, len(own), seed)
        gone = {sites[entrant - 1] for entrant in race.dropped}
        scores += [replace(h, dropped=(h.layer, h.head) in gone) for h in result.heads]
    scores.sort(key=lambda h: (h.dropped, -h.score.value, h.layer, h.head))
    baseline = score_heads(task, cells[:1][:, race.seen], [], 0, seed).baseline
    return HeadResult(task.metric_name, baseline, len(race.seen), tuple(scores), k, rules)


def score_heads(
    task: Task, statistics: Float[np.ndarray, "edits items k"], sites: Sequence[Site], top_k: int, seed: int
) -> HeadResult:
    """Scores from a sweep's statistics: edit 0 is the baseline, edit 1 + i replaces sites[i]."""
    bootstrap = PairedBootstrap(statistics.shape[1], seed)
    base = float(task.score(statistics[0].sum(0, dtype=np.float64)))
    base_resampled = bootstrap.scores(statistics[0], task.score)
    scores = []
    for (layer, head), cell in zip(sites, statistics[1:], strict=True):
        intervened = float(task.score(cell.sum(0, dtype=np.float64)))
        drop = bootstrap.interval(base - intervened, base_resampled - bootstrap.scores(cell, task.score))
        scores.append(HeadScore(layer, head, drop, base, intervened, statistics.shape[1]))
    scores.sort(key=lambda h: (-h.score.value, h.layer, h.head))
    baseline = bootstrap.interval(base, base_resampled)
    return HeadResult(task.metric_name, baseline, statistics.shape[1], tuple(scores), top_k)
