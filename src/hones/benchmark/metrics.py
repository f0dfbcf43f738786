"""How well a ranking finds a planted set: hits, precision, recall and average precision, ties taken as they are.

A ranking is an importance of all N = L * I neurons. Neurons of importance <= 0 are never selected by a method: they
rank last and are tied. Tied neurons have no order, so every number is its mean over all orders of the ties, in closed
form:

    hits(k)  = sum over groups of equal importance of r_g * (share of the group among the first k)
    AP       = 1/|P| sum over groups sum over j = 1..n_g of  r_g/n_g * (R_g + 1 + (j-1) (r_g-1)/(n_g-1)) / (a_g + j)

with n_g neurons and r_g planted ones in the group, a_g neurons and R_g planted ones in the groups before it (McSherry
and Najork 2008). None of several copies is among the first k with the probability

    product over groups of C(n_g - r_g, t_g) / C(n_g, t_g),    t_g of the group among the first k, r_g copies in it

Precision and recall at k = |P| are the same number: hits(|P|) / |P|. A ranking without any preference
has the precision |P|/N at every k.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from hones.errors import HonesError
from hones.models.sites import Site

BUDGETS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)  # multiples of |P|
WIDE = 10.0  # recall is also reported at 10 |P|


@dataclass(frozen=True)
class TiedRanking:
    """The groups of equal importance, best first: sizes [groups], and the group of every neuron [neurons]."""

    sizes: Int[np.ndarray, " groups"]
    group: Int[np.ndarray, " neurons"]

    def hits(self, wanted: Bool[np.ndarray, " neurons"], ks: Sequence[int]) -> Float[np.ndarray, " ks"]:
        """Expected number of wanted neurons among the first k, for every k."""
        found, before = self._wanted(wanted), np.cumsum(self.sizes) - self.sizes
        taken = np.clip(np.asarray(ks)[:, None] - before, 0, self.sizes)
        return (taken * (found / self.sizes)).sum(1)

    def average_precision(self, wanted: Bool[np.ndarray, " neurons"]) -> float:
        """Expected mean, over the wanted neurons, of the precision at each one's rank."""
        found, sizes = self._wanted(wanted).astype(np.float64), self.sizes
        before, found_before = np.cumsum(sizes) - sizes, np.cumsum(found) - found
        harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(self.group) + 1))])
        reciprocals = harmonic[before + sizes] - harmonic[before]  # sum over j of 1 / (a + j)
        slopes = (found - 1) / np.maximum(sizes - 1, 1)
        growing = sizes - (before + 1) * reciprocals  # sum over j of (j - 1) / (a + j)
        sums = found / sizes * ((found_before + 1) * reciprocals + slopes * growing)
        return float(sums.sum() / found.sum())

    def any_of(self, wanted: Bool[np.ndarray, " neurons"], k: int) -> float:
        """The probability that at least one of the wanted neurons is among the first k."""
        found = self._wanted(wanted)
        left = self.sizes - np.clip(k - (np.cumsum(self.sizes) - self.sizes), 0, self.sizes)
        missed = 1.0
        for group in np.flatnonzero(found):
            for drawn in range(found[group]):
                missed *= max(0, left[group] - drawn) / (self.sizes[group] - drawn)
        return float(1 - missed)

    def _wanted(self, wanted: Bool[np.ndarray, " neurons"]) -> Int[np.ndarray, " groups"]:
        return np.bincount(self.group[wanted], minlength=len(self.sizes))


def tied_ranking(
    importance: Float[np.ndarray, "layers neurons"], without: Collection[Site] = ()
) -> tuple[TiedRanking, Bool[np.ndarray, " all"]]:
    """The ranking of an importance, and which of the neurons (flat) it ranks: all but those of `without`.

    Raises:
        HonesError: numbers that are not finite.
    """
    if not np.isfinite(importance).all():
        raise HonesError("the importance holds numbers that are not finite", expected="a finite number per neuron")
    kept = ~membership(without, importance.shape)
    values = np.maximum(importance.ravel()[kept], 0)
    _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
    return TiedRanking(sizes, group), kept


def membership(sites: Collection[Site], shape: tuple[int, ...]) -> Bool[np.ndarray, " neurons"]:
    """Which neurons of [L, I], flat, are among the sites."""
    found = np.zeros(shape, dtype=bool)
    for site in sites:
        found[site] = True
    return found.ravel()


def budget(planted: int, multiple: float, total: int) -> int:
    """How many neurons a multiple of |P| is: rounded, at least 1, at most all."""
    return min(total, max(1, round(multiple * planted)))


@dataclass(frozen=True)
class Found:
    """What a ranking finds of a planted set; every number is its mean over the orders of ties.

    precision: at |P|, where recall is the same. wide_recall: of P among the first 10 |P|. without_general: average
    precision of the ranking of all neurons but those that every task shares. curve: precision at each of BUDGETS.
    others: how many of each other set (decoys by kind, shared neurons, other tasks' neurons) are among the first |P|.
    either: of U things to find, each by any of its copies, the share of which a copy is among the first U neurons; None
    where nothing has copies. ranked: neurons with an importance above 0.
    """

    average_precision: float
    precision: float
    wide_recall: float
    without_general: float
    curve: tuple[float, ...]
    others: dict[str, float]
    ranked: int
    either: float | None = None


def judge(
    importance: Float[np.ndarray, "layers neurons"],
    planted: Collection[Site],
    general: Collection[Site] = (),
    others: dict[str, Collection[Site]] | None = None,
    copies: Sequence[Collection[Site]] = (),
) -> Found:
    """Compare an importance with what was planted.

    Args:
        planted: P of the task. general: neurons that every task shares. others: further sets to count, by name.
        copies: neurons that stand in for each other.

    Raises:
        HonesError: nothing planted, or numbers that are not finite.
    """
    if not planted:
        raise HonesError("nothing is planted", expected="at least one neuron")
    shape, total = importance.shape, importance.size
    wanted, count = membership(planted, shape), len(set(planted))
    ranking, _ = tied_ranking(importance)
    ks = [budget(count, multiple, total) for multiple in BUDGETS]
    curve = ranking.hits(wanted, ks) / ks
    inside, wide = ranking.hits(wanted, [count, budget(count, WIDE, total)])
    rest, kept = tied_ranking(importance, without=set(general) - set(planted))
    return Found(
        average_precision=ranking.average_precision(wanted),
        precision=float(inside / count),
        wide_recall=float(wide / count),
        without_general=rest.average_precision(wanted[kept]),
        curve=tuple(float(x) for x in curve),
        others={
            name: float(ranking.hits(membership(sites, shape), [count])[0]) for name, sites in (others or {}).items()
        },
        ranked=int((importance > 0).sum()),
        either=_either(ranking, [membership(c, shape) for c in copies]) if copies else None,
    )


def _either(ranking: TiedRanking, copies: Sequence[Bool[np.ndarray, " neurons"]]) -> float:
    return float(np.mean([ranking.any_of(of_one, len(copies)) for of_one in copies]))
