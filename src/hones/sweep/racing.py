"""Racing, an approximation: heads leave the sweep once a confidence bound decides whether they can be critical.

After every look (16 pictures in random order) a head's score S has the bounds

    S +- z sqrt((var_boot + 1 / n^2) (1 - n / N)),    n of N items seen, z two-sided at the confidence,

var_boot being its paired bootstrap variance; 1 / n^2 keeps a head that changed nothing so far from looking
certain. With k places left, the best undecided head is kept once its lower bound is above the upper bounds of all after
the k-th, less a margin; the worst is dropped once its upper bound is below the lower bounds of the first k, plus the
margin; and so on while either holds. Heads within the margin of each other thus count as equal, so that a race of ties
ends. A head leaves the sweep with the score it has. Bounds are per head and look, not adjusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.stats import PairedBootstrap
from hones.tasks.base import Task

RESAMPLES = 200


@dataclass(frozen=True)
class RaceRules:
    """confidence: of the bounds. margin: of the metric, below which heads count as equal. look: pictures per look."""

    confidence: float = 0.95
    margin: float = 0.005
    look: int = 16

    def check(self) -> None:
        """Raises HonesError for impossible rules."""
        if not 0 < self.confidence < 1:
            raise HonesError(f"--racing {self.confidence}", expected="a confidence between 0 and 1, such as 0.95")
        if not 0 <= self.margin < 1:
            raise HonesError(f"--racing-margin {self.margin}", expected="a part of the metric, such as 0.01")


@dataclass
class Race:
    """A race of interventions 1.. for the K largest drops against intervention 0; only the first task counts.

    seen: items by number in the order they came. decided: how many items an intervention had seen when it left.
    """

    task: Task
    top_k: int
    entrants: int
    items: int
    rules: RaceRules = RaceRules()
    seed: int = 0
    seen: list[int] = field(default_factory=list)
    kept: dict[int, int] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)

    @property
    def alive(self) -> list[int]:
        """The baseline and the undecided; nothing when all is decided."""
        racing = [e for e in range(1, self.entrants + 1) if e not in self.kept and e not in self.dropped]
        return [0, *racing] if racing else []

    def items_of(self, entrant: int) -> list[int]:
        """The items that an intervention has seen."""
        left = {**self.kept, **self.dropped}.get(entrant, len(self.seen))
        return self.seen[:left]

    def take(self, statistics: Float[np.ndarray, "edits items k"], new: Sequence[int]) -> None:
        """Decide what can be decided after the items `new`."""
        self.seen += new
        racing = self.alive[1:]
        n = len(self.seen)
        if n >= self.items:
            return
        bootstrap = PairedBootstrap(n, self.seed, RESAMPLES)
        base, resampled = self._scores(bootstrap, statistics[0, self.seen])
        score = np.zeros(len(racing))
        spread = np.zeros(len(racing))
        for at, entrant in enumerate(racing):
            edited, edited_resampled = self._scores(bootstrap, statistics[entrant, self.seen])
            score[at] = base - edited
            spread[at] = np.nanvar(resampled - edited_resampled)
        z = NormalDist().inv_cdf(0.5 + self.rules.confidence / 2)
        width = z * np.sqrt((spread + 1 / n**2) * (1 - n / self.items))
        order = np.argsort(-score, kind="stable")
        kept, dropped = decided((score - width)[order], (score + width)[order], self.top_k - len(self.kept), self.rules)
        self.kept |= {racing[order[place]]: n for place in kept}
        self.dropped |= {racing[order[place]]: n for place in dropped}

    def _scores(
        self, bootstrap: PairedBootstrap, cells: Float[np.ndarray, "items k"]
    ) -> tuple[float, Float[np.ndarray, " resamples"]]:
        return float(self.task.score(cells.sum(0, dtype=np.float64))), bootstrap.scores(cells, self.task.score)


def decided(
    low: Float[np.ndarray, " racing"], high: Float[np.ndarray, " racing"], places: int, rules: RaceRules
) -> tuple[list[int], list[int]]:
    """Which of the undecided, best first, are kept for the places left, and which are dropped."""
    first = 0
    end = len(low)
    while first < end:
        border = first + places
        if places == 0 or border >= end:
            break
        if low[first] > high[border:end].max() - rules.margin:
            first += 1
            places -= 1
        elif high[end - 1] < low[first:border].min() + rules.margin:
            end -= 1
        else:
            return [*range(first)], [*range(end, len(low))]
    rest = [*range(first, end)]
    return [*range(first), *(rest if places else [])], [*(rest if not places else []), *range(end, len(low))]
