"""Step 1 of the paper: localise task-critical heads by mean replacement.

    S(l, h) = P(theta) - P(theta under I(l, h)),    I(l, h): o[l,h] <- mean over j != h of o[l,j], all positions

P is the task's metric over the discovery items, greedy decoding, at most 24 new tokens (retrieval: no decoding). The
critical heads H* are the K of largest S, by default 3 % of the L * H heads, at least 5; a head with S <= 0 is none.
Of layers with fewer heads, or without any, only those count that there are.

A head that another one makes up for costs little alone: `hones.method.head_subsets` and `hones.method.head_steps` are
two ways to find it too.
"""

from collections.abc import Sequence
from dataclasses import replace

from hones.errors import HonesError
from hones.method.budget import check_top_k
from hones.method.found import HeadResult, HeadScore
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName, Measurement
from hones.sweep.measure import measure
from hones.sweep.racing import Race, RaceRules
from hones.sweep.run import KeptAnswers, SweepSettings, sweep_tasks
from hones.tasks.base import Example, Task


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
    k = critical_count(vlm, top_k)
    if not all(examples for _, examples in jobs):
        raise HonesError("no items to score heads on", expected="at least one")

    # P(theta), and P(theta under I(l, h)) of every head alone
    replaced = replacements(vlm)
    arms: dict[ArmName, Intervention] = {UNEDITED: BASELINE, **replaced}
    names = ", ".join(task.name for task, _ in jobs)
    measured = measure(vlm, jobs, arms, sweep, seed=seed, progress=f"{names}: heads")

    headless = vlm.anatomy.headless
    return [
        score_heads(task, of_task, [*replaced], k, headless) for (task, _), of_task in zip(jobs, measured, strict=True)
    ]


def score_heads(
    task: Task, measured: Measurement, sites: Sequence[Site], top_k: int, headless: tuple[int, ...] = ()
) -> HeadResult:
    """S(l, h) and H* from what was measured: the unedited model, and for each of the sites the arm of its name.

    headless: the layers without heads.
    """
    # S(l, h) = P(theta) - P(theta under I(l, h))
    scores = [
        HeadScore(
            layer=layer,
            head=head,
            score=measured.drop((layer, head)),
            baseline=measured.value(UNEDITED),
            intervened=measured.value((layer, head)),
            items=measured.items,
        )
        for layer, head in sites
    ]

    # H*: the K of largest S
    level = measured.level(UNEDITED)
    return HeadResult(task.metric_name, level, measured.items, by_score(scores), top_k, headless=headless)


def by_score(scores: Sequence[HeadScore]) -> tuple[HeadScore, ...]:
    """Largest score first, the earlier layer and head among equals."""
    return tuple(sorted(scores, key=lambda h: (-h.score.value, h.layer, h.head)))


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
    rules.check()
    k = critical_count(vlm, top_k)
    if not examples:
        raise HonesError("no items to score heads on", expected="at least one")

    # The sweep of `localize_heads`, which heads leave; a head has seen the items that came before it left
    replaced = replacements(vlm)
    sites = [*replaced]
    race = Race(task, k, len(sites), len(examples), rules, seed)
    progress = f"{task.name}: racing heads"
    job = (task, examples)
    kept = KeptAnswers([0])
    (cells,) = sweep_tasks(vlm, [job], [BASELINE, *replaced.values()], sweep, progress, race, kept)
    if sweep is not None and sweep.answers is not None:
        sweep.answers.take([job], sweep.answers.rows({UNEDITED: [0]}), kept, [cells])
    statistics = dict(zip([UNEDITED, *sites], cells[:, None], strict=True))
    seen = {site: len(race.items_of(entrant)) for entrant, site in enumerate(sites, 1)}
    dropped = {sites[entrant - 1] for entrant in race.dropped}

    # S(l, h) of those that have seen the same items, against the unedited model on these
    scores: list[HeadScore] = []
    for count in set(seen.values()):
        together = [site for site in sites if seen[site] == count]
        arms = {arm: statistics[arm][:, race.seen[:count]] for arm in (UNEDITED, *together)}
        scores += score_heads(task, Measurement(arms, task.score, seed), together, k).heads
    scores = [replace(h, dropped=(h.layer, h.head) in dropped) for h in scores]

    # H*: those that were dropped come last
    scores.sort(key=lambda h: (h.dropped, -h.score.value, h.layer, h.head))
    unedited = Measurement({UNEDITED: statistics[UNEDITED][:, race.seen]}, task.score, seed)
    level, headless = unedited.level(UNEDITED), vlm.anatomy.headless
    return HeadResult(task.metric_name, level, len(race.seen), tuple(scores), k, rules, headless=headless)


def default_top_k(heads: int) -> int:
    """3 % of all heads, at least 5, at most all."""
    return min(heads, max(5, round(0.03 * heads)))


def critical_count(vlm: VLM, top_k: int | None) -> int:
    """K: as asked for, or the default.

    Raises:
        HonesError: an impossible K, a model without heads, or with one head in a layer.
    """
    heads = len(head_sites(vlm))
    if heads == 0:
        raise HonesError(f"{vlm.name} has no heads", expected="layers whose output projection reads heads")
    check_top_k(top_k, heads)
    if 1 in vlm.anatomy.head_counts:
        raise HonesError(f"{vlm.name} has one head per layer", expected="two or more: a head is replaced by the others")
    return default_top_k(heads) if top_k is None else top_k


def replacements(vlm: VLM) -> dict[Site, Intervention]:
    """I(l, h) of every head alone, by (layer, head)."""
    return {site: Intervention(heads=frozenset({site})) for site in head_sites(vlm)}


def head_sites(vlm: VLM) -> list[Site]:
    """(layer, head) of every head that there is, in order."""
    return vlm.anatomy.head_sites
