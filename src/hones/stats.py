"""What a sweep measured: the metric of named arms, their differences, and how sure these are.

With the statistics x[a, d, i] of item i under draw d of arm a, a task's score of summed statistics, and items that
count w_i times,

    P(a, d; w) = score( sum_i w_i x[a, d, i] )
    P(a; w)    = mean over draws d of P(a, d; w)

A value is that of all items once, w = 1. Its interval is the paired bootstrap's over items: a resample of N items with
replacement is a vector of multinomial counts w, and all arms share the resamples, so an interval of a difference is
paired. Draws are either a random sample themselves, such as controls, and drawn again in every resample, or are just
those that were run, such as the seeds of a training, and averaged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95
UNEDITED = "unedited"
"""The arm of the model itself."""

Score = Callable[[Float[np.ndarray, "*batch k"]], Float[np.ndarray, "*batch"]]
Draws = Literal["resampled", "averaged"]
ArmName = Any
"""Anything hashable: a word, a head's (layer, head)."""


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap percentile interval at 95 %.

    A format specification holds for all three numbers: f"{change:+.3f}" is "+0.123 [+0.100, +0.150]", f"{level:.3f}" is
    "0.123 [0.100, 0.150]"; without one it is that of a change. `bounds` gives the bracket alone, where the value stands
    elsewhere or has other digits.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return format(self)

    def __format__(self, spec: str) -> str:
        spec = spec or "+.3f"
        return f"{self.value:{spec}} {self.bounds(spec)}"

    def bounds(self, spec: str = "+.3f") -> str:
        """The interval alone, as "[+0.100, +0.150]"; without width it is no certainty, and says what it is."""
        if self.low == self.high == self.value:
            if "+" in spec:
                return "[no change]" if self.value == 0 else "[no spread]"
            return {0.0: "[at floor]", 1.0: "[at ceiling]"}.get(self.value, "[no spread]")
        return f"[{self.low:{spec}}, {self.high:{spec}}]"

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class PairedBootstrap:
    """The same resamples for every arm over the same N items.

    Args:
        items: N.
        seed: of the resamples.
        resamples: how many; their counts take resamples * N * 8 bytes.
    """

    def __init__(self, items: int, seed: int, resamples: int = RESAMPLES) -> None:
        rng = np.random.default_rng(seed)
        self.counts = rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)

    def scores(self, statistics: Float[np.ndarray, "items k"], score: Score) -> Float[np.ndarray, " resamples"]:
        """The score of every resample."""
        return score(self.counts @ statistics)


def interval_of(value: float, resampled: Float[np.ndarray, " resamples"]) -> Interval:
    """The percentile interval of resampled values around a value; NaN among them are left out."""
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


class Measurement:
    """The metric of named arms over the same items.

    Args:
        arms: the statistics of each arm, [draws, items, k]; most have one draw.
        score: the metric of summed statistics.
        seed: of the resamples.
        draws: "resampled": the draws of an arm are drawn again, with replacement, in every resample; "averaged": not.
    """

    def __init__(
        self,
        arms: Mapping[ArmName, Float[np.ndarray, "_ items k"]],
        score: Score,
        seed: int,
        *,
        draws: Draws = "resampled",
    ) -> None:
        self.arms = arms
        self.score = score
        self.items = next(iter(arms.values())).shape[1]
        bootstrap = PairedBootstrap(self.items, seed)
        self._by_draw = {arm: score(statistics.sum(1, dtype=np.float64)) for arm, statistics in arms.items()}
        self._resampled: dict[ArmName, Float[np.ndarray, " resamples"]] = {}
        for arm, statistics in arms.items():
            resampled = np.stack([bootstrap.scores(draw, score) for draw in statistics])
            if draws == "resampled":
                # Anew from the same seed, so that arms with as many draws are paired by draw too.
                chosen = np.random.default_rng(seed).integers(len(resampled), size=resampled.shape)
                resampled = np.take_along_axis(resampled, chosen, axis=0)
            self._resampled[arm] = resampled.mean(0)

    def value(self, arm: ArmName) -> float:
        """P(arm) on all items."""
        return float(self._by_draw[arm].mean())

    def by_draw(self, arm: ArmName) -> tuple[float, ...]:
        """P of every draw on all items."""
        return tuple(float(x) for x in self._by_draw[arm])

    def by_item(self, arm: ArmName) -> Float[np.ndarray, " items"]:
        """P of every item alone."""
        return self.score(self.arms[arm].astype(np.float64)).mean(0)

    def sums(self, arm: ArmName) -> Float[np.ndarray, " k"]:
        """The summed statistics of an arm's first draw."""
        return self.arms[arm][0].sum(0, dtype=np.float64)

    def resampled(self, arm: ArmName) -> Float[np.ndarray, " resamples"]:
        """P(arm) in every resample."""
        return self._resampled[arm]

    def level(self, arm: ArmName) -> Interval:
        """P(arm)."""
        return interval_of(self.value(arm), self.resampled(arm))

    def difference(self, arm: ArmName, other: ArmName) -> Interval:
        """P(arm) - P(other)."""
        return interval_of(self.value(arm) - self.value(other), self.resampled(arm) - self.resampled(other))

    def p_value(self, arm: ArmName, other: ArmName) -> float:
        """Of no difference, two-sided."""
        return two_sided_p(self.resampled(arm) - self.resampled(other))

    def drop(self, arm: ArmName) -> Interval:
        """What the arm loses: P(unedited) - P(arm)."""
        return self.difference(UNEDITED, arm)

    def relative_drop(self, arm: ArmName) -> Interval | None:
        """100 (P(unedited) - P(arm)) / P(unedited); None where there is nothing to lose.

        Resamples without any success are left out, as they have no relative drop.
        """
        lost = self.share_lost(arm)
        return None if lost is None else interval_of(100 * lost.value, 100 * lost.resampled)

    def share_lost(self, arm: ArmName) -> "Share | None":
        """(P(unedited) - P(arm)) / P(unedited), and of every resample, NaN where that has no success; None as above."""
        base = self.value(UNEDITED)
        if not base > 0:
            return None
        before = self.resampled(UNEDITED)
        lost = np.full_like(before, np.nan)
        np.divide(before - self.resampled(arm), before, out=lost, where=before > 0)
        return Share((base - self.value(arm)) / base, lost)

    def recovered(self, arm: ArmName, empty: ArmName) -> "Share | None":
        """(P(arm) - P(empty)) / (P(unedited) - P(empty)), and of every resample.

        None where the interval of P(unedited) - P(empty) is not above 0: of a difference that may be none no share is
        given. The few resamples where it is not above 0 are NaN, and left out.
        """
        if self.difference(UNEDITED, empty).low <= 0:
            return None
        span = self.resampled(UNEDITED) - self.resampled(empty)
        shares = np.full_like(span, np.nan)
        np.divide(self.resampled(arm) - self.resampled(empty), span, out=shares, where=span > 0)
        return Share((self.value(arm) - self.value(empty)) / (self.value(UNEDITED) - self.value(empty)), shares)


@dataclass(frozen=True)
class Share:
    """A share of a baseline or of a difference, and that share in every resample."""

    value: float
    resampled: Float[np.ndarray, " resamples"]

    @property
    def interval(self) -> Interval:
        """The share."""
        return interval_of(self.value, self.resampled)

    def beyond(self, others: Sequence["Share"]) -> Interval:
        """This share minus the largest of the others."""
        return self.ahead_of(others).interval

    def ahead_of(self, others: Sequence["Share"]) -> "Share":
        """This share minus the largest of the others, which is taken anew in every resample.

        The resamples of each are paired within themselves. Between tasks they are independent: resample r of this one
        meets resample r - k of the k-th other, which as resamples are drawn alike is as good as any.
        """
        value = self.value - max(other.value for other in others)
        largest = np.fmax.reduce([np.roll(other.resampled, k) for k, other in enumerate(others, 1)])
        return Share(value, self.resampled - largest)


def two_sided_p(differences: Float[np.ndarray, " resamples"]) -> float:
    """Twice the smaller share of resamples on one side of 0, ties on both; never 0, at most 1."""
    counts = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return float(min(1.0, 2 * (counts + 1) / (len(differences) + 1)))
