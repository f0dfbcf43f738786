"""Racing, an approximation: heads leave the sweep once a confidence bound decides whether they can be critical.

After every group of items (in random order, from the 16th item on) a head's score S has the bounds

    S +- z sqrt((var_boot + 1 / n^2) (1 - n / N)),    n of N items seen, z two-sided at the confidence,

var_boot being its paired bootstrap variance; 1 / n^2 keeps a head that has changed nothing so far from looking certain.
A head whose upper bound is below the K-th largest lower bound is dropped; one whose lower bound is above the (K + 1)-th
largest upper bound is kept. Either leaves the sweep with the score it has. Bounds are per head and look, not adjusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from hones.tasks.base import Task
from hones.uncertainty import PairedBootstrap

RESAMPLES, LEAST = 200, 16


@dataclass
class Race:
    """A race of interventions 1.. for the K largest drops against intervention 0; only the first task counts.

    seen: items by number in the order they came. decided: how many items an intervention had seen when it left.
    """

    task: Task
    top_k: int
    entrants: int
    items: int
    confidence: float = 0.95
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
        racing, n = self.alive[1:], len(self.seen)
        if n >= self.items or n < LEAST:
            return
        bootstrap = PairedBootstrap(n, self.seed, RESAMPLES)
        base, resampled = self._scores(bootstrap, statistics[0, self.seen])
        score, spread = np.zeros(len(racing)), np.zeros(len(racing))
        for at, entrant in enumerate(racing):
            own, own_resampled = self._scores(bootstrap, statistics[entrant, self.seen])
            score[at], spread[at] = base - own, np.nanvar(resampled - own_resampled)
        z = NormalDist().inv_cdf(0.5 + self.confidence / 2)
        width = z * np.sqrt((spread + 1 / n**2) * (1 - n / self.items))
        low, high, places = score - width, score + width, self.top_k - len(self.kept)
        least = np.sort(low)[::-1][places - 1] if 0 < places <= len(racing) else (np.inf if places <= 0 else -np.inf)
        most = np.sort(high)[::-1][places] if places < len(racing) else -np.inf
        self.dropped |= {entrant: n for entrant, above in zip(racing, high, strict=True) if above < least}
        self.kept |= {entrant: n for entrant, below in zip(racing, low, strict=True) if below > most}

    def _scores(
        self, bootstrap: PairedBootstrap, cells: Float[np.ndarray, "items k"]
    ) -> tuple[float, Float[np.ndarray, " resamples"]]:
        return float(self.task.score(cells.sum(0, dtype=np.float64))), bootstrap.scores(cells, self.task.score)
