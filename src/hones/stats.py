"""Uncertainty: paired bootstrap over items of scores that are functions of summed statistics.

A resample of N items with replacement is a vector of multinomial counts w [N]; its score is score(w @ statistics [N,
k]). All arms of a comparison share the counts, so an interval of a difference is paired.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95

Score = Callable[[Float[np.ndarray, "*batch k"]], Float[np.ndarray, "*batch"]]


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
        """The interval alone, as "[+0.100, +0.150]"."""
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

    def interval(self, value: float, resampled: Float[np.ndarray, " resamples"]) -> Interval:
        """The percentile interval of resampled values around the value on all items."""
        low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(value), float(low), float(high))


def two_sided_p(differences: Float[np.ndarray, " resamples"]) -> float:
    """Twice the smaller share of resamples on one side of 0, ties on both; never 0, at most 1."""
    counts = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return float(min(1.0, 2 * (counts + 1) / (len(differences) + 1)))
