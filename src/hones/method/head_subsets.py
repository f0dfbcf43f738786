"""Heads by subsets: what a head costs on average where others are replaced too, by a linear model.

    P(theta under I(R)) = a - sum over h in R of S(h) + what is not additive

R is a random subset of all heads, each head in it with chance p, drawn N times; I(R) replaces the heads of R at once
(`hones.models.interventions.replace_heads`), each by the mean of its layer's other heads as they were before the
edit, replaced ones included: so a replaced head is the same whichever others are, and a layer all of whose heads are
replaced is defined too. a and S are the least-squares fit over subsets, or with a ridge r

    minimise  sum over R of (P(R) - a + sum over h in R of S(h))^2 + r v sum over h of S(h)^2,

v the mean over heads of their column's squared deviations, so that r is free of units. This is component attribution
(Shah et al. 2024, arXiv 2404.11534), which 2509.17588 applies to the heads of vision-language models. Of two heads that
make up for each other, each is met in subsets with the other, and S has its share of what both cost.

P is what the sweep measured of any task; the fit is linear in it, so for a mean over items it is the mean of the fits
of each item. It is meant for the log-probability of the answer, which is nearly additive and has no floor; a metric is
often at its floor where a tenth of the heads are replaced, and then tells subsets no longer apart.

Intervals are the paired bootstrap's over items, the subsets as they were drawn; S of each resample is the fit of its P.
What another draw of subsets would change is told apart (`hones.method.head_ways.SubsetFit`).
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from hones.errors import HonesError, HonesWarning
from hones.method.found import HeadResult, HeadScore
from hones.method.head_ways import SubsetFit, Subsets
from hones.method.heads import by_score, critical_count, head_sites
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName, Measurement, interval_of
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task

Design = Bool[np.ndarray, "subsets heads"]


def localize_heads_by_subsets(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    subsets: Subsets | None = None,
    *,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> HeadResult:
    """Score every head by the subsets that it is replaced in.

    Args:
        task: by what answers are scored, `hones.tasks.log_probability.LogProbability` of a task by preference.
        examples: the discovery items.
        top_k: K; default 3 % of the heads, at least 5.
        seed: of the subsets and of the bootstrap.

    Raises:
        HonesError: as `localize_heads`; too few subsets to tell the heads apart.
    """
    return localize_heads_of_tasks_by_subsets(vlm, [(task, examples)], subsets, top_k=top_k, sweep=sweep, seed=seed)[0]


def localize_heads_of_tasks_by_subsets(
    vlm: VLM,
    jobs: Sequence[tuple[Task, Sequence[Example]]],
    subsets: Subsets | None = None,
    *,
    top_k: int | None = None,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> list[HeadResult]:
    """`localize_heads_by_subsets` for several tasks in one sweep under the same subsets."""
    k = critical_count(vlm, top_k)
    sites = head_sites(vlm)
    drawn = (subsets or Subsets()).of(len(sites))
    if not all(examples for _, examples in jobs):
        raise HonesError("no items to score heads on", expected="at least one")
    design = draw_subsets(drawn, len(sites), seed)
    if len(design) <= len(sites):
        few = f"{len(design)} subsets of {len(sites)} heads: of the fits that are as good the ridge takes the smallest"
        warnings.warn(few, HonesWarning, stacklevel=2)
    regression = Regression(design, drawn.ridge)

    # P(theta), and P(theta under I(R)) of every subset R
    arms: dict[ArmName, Intervention] = {UNEDITED: BASELINE}
    for number, row in enumerate(design):
        arms[number] = Intervention(heads=frozenset(sites[at] for at in row.nonzero()[0]))
    names = ", ".join(task.name for task, _ in jobs)
    measured = measure(vlm, jobs, arms, sweep, seed=seed, progress=f"{names}: subsets of heads")

    return [
        replace(_scored(task, of_task, sites, regression, drawn, k), headless=vlm.anatomy.headless)
        for (task, _), of_task in zip(jobs, measured, strict=True)
    ]


def draw_subsets(subsets: Subsets, heads: int, seed: int) -> Design:
    """Which heads are in which subset, a row each; heads in the order of their layers."""
    assert subsets.count is not None
    return np.random.default_rng(seed).random((subsets.count, heads)) < subsets.share


class Regression:
    """The linear model of a design: an intercept, which no ridge shrinks, and a coefficient for each head.

    Everything is linear in the values that are fitted, so the design is solved once for all tasks and resamples.

    Args:
        ridge: r above.

    Raises:
        HonesError: the subsets leave a combination of heads open, and there is no ridge to decide it.
    """

    def __init__(self, design: Design, ridge: float = 0.0) -> None:
        self.means = design.mean(0)
        self.centred = design - self.means
        heads = design.shape[1]
        gram = self.centred.T @ self.centred
        if ridge == 0 and (rank := int(np.linalg.matrix_rank(self.centred))) < heads:
            raise HonesError(
                f"{len(design)} subsets tell {rank} of {heads} heads apart",
                expected="all",
                do="draw more (--subsets), give each head a chance nearer 0.5 (--share), or a --ridge",
            )
        penalty = ridge * np.trace(gram) / heads
        self.solved = np.linalg.solve(gram + penalty * np.eye(heads), self.centred.T)

    def coefficients(self, values: Float[np.ndarray, "subsets *more"]) -> Float[np.ndarray, "heads *more"]:
        """What being in a subset adds to the values, for each head."""
        return self.solved @ (values - values.mean(0))

    def fit(self, values: Float[np.ndarray, " subsets"], subsets: Subsets) -> SubsetFit:
        """How well the linear model describes the values."""
        count = len(values)
        coefficients = self.coefficients(values)
        deviations = values - values.mean()
        residuals = deviations - self.centred @ coefficients
        total = float((deviations**2).sum())
        # the share of its own value in what is fitted to a subset; the intercept's is 1 / N
        own = 1 / count + (self.centred * self.solved.T).sum(1)
        free = count - float(own.sum())
        judged = total > 0 and free > 1e-6
        left_out = error = None
        if judged and float(own.max()) < 1 - 1e-9:
            # without subset i the fit misses it by e_i / (1 - own_i), and the mean by d_i n / (n - 1)
            missed = float(((residuals / (1 - own)) ** 2).sum())
            left_out = 1 - missed / (total * (count / (count - 1)) ** 2)
        if judged:
            variance = float((residuals**2).sum()) / free
            error = float(np.sqrt(variance * (self.solved**2).sum(1)).mean())
        return SubsetFit(
            share=subsets.share,
            count=count,
            ridge=subsets.ridge,
            intercept=float(values.mean() - self.means @ coefficients),
            r2=1 - float((residuals**2).sum()) / total if total > 0 else None,
            left_out=left_out,
            draw_error=error,
        )


def _scored(
    task: Task, measured: Measurement, sites: Sequence[Site], regression: Regression, subsets: Subsets, top_k: int
) -> HeadResult:
    """S of every head and H* from what was measured under the subsets, arms 0 to N - 1."""
    numbers = range(len(regression.centred))
    values = np.array([measured.value(number) for number in numbers])
    resampled = np.stack([measured.resampled(number) for number in numbers])
    drops = -regression.coefficients(values)
    drops_resampled = -regression.coefficients(resampled)
    unedited = measured.value(UNEDITED)
    scores = [
        HeadScore(
            layer=layer,
            head=head,
            score=interval_of(drops[at], drops_resampled[at]),
            baseline=unedited,
            intervened=unedited - float(drops[at]),
            items=measured.items,
        )
        for at, (layer, head) in enumerate(sites)
    ]
    found_by = regression.fit(values, subsets)
    level = measured.level(UNEDITED)
    return HeadResult(task.metric_name, level, measured.items, by_score(scores), top_k, found_by=found_by)
