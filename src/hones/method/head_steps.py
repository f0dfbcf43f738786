"""Heads by co-ablation: what a head costs where others are replaced already, chosen step by step.

    E(u | S) = P(theta under I(S)) - P(theta under I(S + u)),        E(u) = E(u | none)

S begins empty, so the first step is the paper's sweep, and its strongest heads are the first of S. Each further step
sweeps all other heads with S replaced and adds those of largest E(u | S). A head that another one makes up for has a
small E(u); once the other is in S it has what both do. The growth E(u | S) - E(u) says so, CoAx's number (arXiv
2607.01940) on heads; chosen is by E(u | S) itself, since a head that stands alone grows by nothing and is critical all
the same. After R steps S has K heads, ceil(K r / R) after step r.

The first step takes heads with E > 0, as the paper does. Later ones take those whose interval lies above zero, and end
the search where there are none. Heads replaced at once: see `hones.method.head_subsets`.

A score is E(u | S) of the step in which the head was chosen, of all others that of the last sweep; `baseline` and
`intervened` are the two terms of it. All steps share items and resamples, so growths are paired too.
"""

from collections.abc import Callable, Sequence

from hones.errors import HonesError
from hones.method.found import HeadResult, HeadScore
from hones.method.head_ways import Conditional, StepsTaken
from hones.method.heads import by_score, critical_count, head_sites
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName, Measurement, interval_of
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task

GIVEN = "given"
"""The arm of the model with S replaced."""


def localize_heads_conditionally(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    conditional: Conditional | None = None,
    *,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
    sweep_of_step: Callable[[int, Sequence[Site]], SweepSettings] | None = None,
    seed: int = 3407,
) -> HeadResult:
    """Choose heads one step after the other.

    Args:
        examples: the discovery items.
        top_k: K; default 3 % of the heads, at least 5.
        sweep_of_step: how each step runs, from its number, 1 the first, and S; in place of `sweep`.
        seed: of the bootstrap.

    Raises:
        HonesError: as `localize_heads`, or no steps.
    """
    k = critical_count(vlm, top_k)
    sites = head_sites(vlm)
    conditional = (conditional or Conditional()).of(len(sites))
    if not examples:
        raise HonesError("no items to score heads on", expected="at least one")

    chosen: list[HeadScore] = []
    after: list[int] = []
    others: list[HeadScore] = []
    alone: Measurement | None = None
    for step, count in enumerate(conditional.chosen(k), 1):
        # P(theta under I(S)), and P(theta under I(S + u)) of every other head u
        given = [(h.layer, h.head) for h in chosen]
        rest = [site for site in sites if site not in given]
        arms: dict[ArmName, Intervention] = {GIVEN: Intervention(heads=frozenset(given)) if given else BASELINE}
        arms |= {site: Intervention(heads=frozenset((*given, site))) for site in rest}
        if alone is None:
            arms = {UNEDITED: BASELINE, **arms}
        settings = sweep if sweep_of_step is None else sweep_of_step(step, given)
        progress = f"{task.name}: heads, step {step}"
        (measured,) = measure(vlm, [(task, examples)], arms, settings, seed=seed, progress=progress)
        alone = alone or measured

        # E(u | S) and its growth; S takes the largest
        found = by_score([_scored(measured, alone, site, step) for site in rest])
        wanted = [h for h in found if (h.score.value if step == 1 else h.score.low) > 0][: count - len(chosen)]
        others = [h for h in found if h not in wanted]
        if not wanted:
            break
        chosen += wanted
        after.append(len(chosen))

    assert alone is not None
    taken = StepsTaken(conditional.steps, tuple(after))
    scores = (*chosen, *others)
    level, headless = alone.level(UNEDITED), vlm.anatomy.headless
    return HeadResult(task.metric_name, level, alone.items, scores, k, found_by=taken, headless=headless)


def _scored(measured: Measurement, alone: Measurement, site: Site, step: int) -> HeadScore:
    """E(u | S) and its growth, from what was measured with S replaced and without."""
    effect = measured.difference(GIVEN, site)
    more = effect.value - alone.drop(site).value
    resampled = measured.resampled(GIVEN) - measured.resampled(site)
    resampled_alone = alone.resampled(UNEDITED) - alone.resampled(site)
    return HeadScore(
        layer=site[0],
        head=site[1],
        score=effect,
        baseline=measured.value(GIVEN),
        intervened=measured.value(site),
        items=measured.items,
        step=step,
        growth=interval_of(more, resampled - resampled_alone),
    )
