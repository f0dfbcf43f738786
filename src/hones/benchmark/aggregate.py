"""From cells to rows over seeds and to leaderboards with intervals.

A leaderboard's value is the mean over (model, task) pairs of the mean over seeds. Its interval comes from resampling
pairs with replacement and, within each drawn pair, its seeds: cells of one pair share the planted set, so they are no
independent witnesses. All methods share the resamples, so a difference to HONES is paired by cell. Drops are also
resampled over the test items, which all cells share. With few pairs such an interval is on the narrow side, and it
speaks of plants of this kind only. p is that of a sign-flip test over the pairs. A row, on one model and task, gives
the smallest and largest value over its seeds.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hones.benchmark.metrics import BUDGETS
from hones.benchmark.results import FURTHER, HONES, Benchmark, Leaderboard, Row, Standing
from hones.benchmark.scored import SEED, Scored
from hones.benchmark.variants import REPORT, SELECT
from hones.stats import RESAMPLES, UNEDITED, Interval, Measurement, interval_of

MOST_FLIPPED = 16
MEASURES = ("average_precision", "precision", "wide_recall", "without_general")


def summarise(scored: Sequence[Scored]) -> Benchmark:
    """Leaderboards of both roles, rows and cells."""
    cells = tuple(s.cell for s in scored)
    roles = [role for role in (REPORT, SELECT) if any(c.role == role for c in cells)]
    boards = tuple(_Grid([s for s in scored if s.cell.role == role]).leaderboard(role) for role in roles)
    by_row: dict[tuple[str, str, str], list[Scored]] = {}
    for s in scored:
        by_row.setdefault((s.cell.model, s.cell.task, s.cell.method), []).append(s)
    return Benchmark(boards, tuple(_row(members) for members in by_row.values()), cells, BUDGETS)


class _Grid:
    """The cells of one role as arrays [pairs, seeds] per method, and the resamples that all methods share."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        cells = [s.cell for s in scored]
        self.cells = cells
        self.pairs = [*dict.fromkeys((c.model, c.task) for c in cells)]
        self.seeds = [*dict.fromkeys(c.seed for c in cells)]
        self.methods = [*dict.fromkeys(c.method for c in cells)]
        self.is_many = len(self.pairs) * len(self.seeds) > 1
        self.at = {(s.cell.method, s.cell.model, s.cell.task, s.cell.seed): s for s in scored}
        rng = np.random.default_rng(SEED)
        shape = (RESAMPLES, len(self.pairs))
        drawn_pairs = rng.integers(len(self.pairs), size=shape)
        # [resamples, pairs, 1] and [resamples, pairs, seeds]: pairs, and within each its seeds
        self.drawn = drawn_pairs[..., None], rng.integers(len(self.seeds), size=(*shape, len(self.seeds)))
        # of values whose last axis is that of `Resampled`: the resample of the items too
        self.drawn_with_items = *self.drawn, 1 + np.arange(RESAMPLES)[:, None, None]

    def leaderboard(self, role: str) -> Leaderboard:
        """Best average precision first."""
        standings = [self.standing(method) for method in self.methods]
        standings.sort(key=lambda s: (-value_of(s.average_precision), -value_of(s.precision), s.method))
        return Leaderboard(
            role=role,
            models=tuple(dict.fromkeys(c.model for c in self.cells)),
            tasks=tuple(dict.fromkeys(c.task for c in self.cells)),
            seeds=tuple(self.seeds),
            chance=float(np.mean([c.planted / c.neurons for c in self.cells])),
            standings=tuple(standings),
        )

    def standing(self, method: str) -> Standing:
        """One method's means with intervals."""
        ahead = None
        p_value = None
        if HONES in self.methods and method != HONES and self.is_many:
            difference = self.values(method, "average_precision") - self.values(HONES, "average_precision")
            ahead = self.mean(difference)
            p_value = sign_flip_p(difference.mean(1))
        cells = [s.cell for of_pair in self.of(method) for s in of_pair]
        return Standing(
            method=method,
            cells=len(cells),
            **{name: self.mean(self.values(method, name)) for name in MEASURES},
            either=self.mean(self.values(method, "either")) if all(c.either is not None for c in cells) else None,
            relative=self.relative(method),
            ahead=ahead if isinstance(ahead, Interval) else None,
            p_value=p_value,
            curve=tuple(float(x) for x in np.mean([c.curve for c in cells], 0)),
            seconds=float(np.mean([c.seconds for c in cells])),
            head_seconds=float(np.mean([c.head_seconds for c in cells])),
            refused=sum(c.refused is not None for c in cells),
            **self.further(method),
        )

    def of(self, method: str) -> list[list[Scored]]:
        """A method's cells, by pair and seed."""
        return [[self.at[method, *pair, seed] for seed in self.seeds] for pair in self.pairs]

    def values(self, method: str, name: str) -> Float[np.ndarray, "pairs seeds"]:
        """A number of every cell of a method."""
        return np.array([[getattr(s.cell, name) for s in of_pair] for of_pair in self.of(method)])

    def mean(self, values: Float[np.ndarray, "pairs seeds"]) -> Interval | float:
        """The mean over cells, with its interval where there are several."""
        value = float(values.mean())
        return percentiles(value, values[self.drawn].mean((1, 2))) if self.is_many else value

    def relative(self, method: str) -> Interval | float | None:
        """Drop per masked neuron over that of P: ratio of the means over cells; None where P's drop is not above 0."""
        drops = np.array([[drops_per_neuron(s) for s in of_pair] for of_pair in self.of(method)])
        own = drops[:, :, 0]
        planted = drops[:, :, 1]
        if not planted[..., 0].mean() > 0:
            return None
        ratio = float(own[..., 0].mean() / planted[..., 0].mean())
        if not self.is_many:
            return ratio
        below = planted[self.drawn_with_items].mean((1, 2))
        return percentiles(ratio, own[self.drawn_with_items].mean((1, 2))[below > 0] / below[below > 0])

    def further(self, method: str) -> dict[str, Interval | float]:
        """Means over cells of what was measured beside, resampled over test items too; those that every cell has."""
        cells = self.of(method)
        found: dict[str, Interval | float] = {}
        for name in FURTHER:
            if all(name in s.further for of_pair in cells for s in of_pair):
                values = np.array([[s.further[name] for s in of_pair] for of_pair in cells])
                value = float(values[..., 0].mean())
                resampled = values[self.drawn_with_items].mean((1, 2))
                found[name] = interval_of(value, resampled) if self.is_many else value
        return found


def drops_per_neuron(s: Scored) -> Float[np.ndarray, "2 resampled"]:
    """Drop per masked neuron of the method and of P: on all test items, then on every resample of them."""
    arms = dict(zip((UNEDITED, "planted", "method"), s.statistics[:, None], strict=True))
    measured = Measurement(arms, s.task.score, SEED)
    scores = {arm: np.array([measured.value(arm), *measured.resampled(arm)]) for arm in arms}
    drops = np.stack([scores[UNEDITED] - scores[arm] for arm in ("method", "planted")])
    return drops / np.array([[max(1, s.cell.masked_neurons)], [s.cell.planted]])


def sign_flip_p(differences: Float[np.ndarray, " pairs"]) -> float:
    """The share of sign patterns of the pairs whose mean is as far from 0 as the one found, two-sided.

    Exact up to 16 pairs, beyond that 65,536 random patterns; few pairs cannot give a small number (8: at least 0.008).
    """
    pairs = len(differences)
    if pairs <= MOST_FLIPPED:
        signs = 1 - 2 * (np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1)
    else:
        signs = np.random.default_rng(SEED).choice([1, -1], size=(2**MOST_FLIPPED, pairs))
        signs[0] = 1
    found = np.abs(signs @ differences)
    return float(np.mean(found >= found[0] * (1 - 1e-9)))


def percentiles(value: float, resampled: Float[np.ndarray, " resamples"]) -> Interval:
    """The percentile interval at 95 %."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def value_of(x: Interval | float) -> float:
    """The value of a number with or without interval."""
    return x.value if isinstance(x, Interval) else x


def _row(members: Sequence[Scored]) -> Row:
    """A method on one task of one model: means over seeds, of its measures with the smallest and the largest."""
    cells = [s.cell for s in members]
    first = cells[0]
    per_neuron = np.stack([drops_per_neuron(s) for s in members])
    own = per_neuron[:, 0] * np.array([[c.masked_neurons] for c in cells])
    planted = per_neuron[0, 1] * first.planted
    drawn = np.random.default_rng(SEED).integers(len(cells), size=(RESAMPLES, len(cells)))
    resampled = own[drawn, 1 + np.arange(RESAMPLES)[:, None]].mean(1)
    below = float(planted[0]) / first.planted
    either = [c.either for c in cells if c.either is not None]
    measured = {name: [getattr(c, name) for c in cells] for name in MEASURES}
    further: dict[str, Interval] = {}
    for name in FURTHER:
        if all(name in s.further for s in members):
            values = np.stack([s.further[name] for s in members])
            further[name] = interval_of(values[:, 0].mean(), values[drawn, 1 + np.arange(RESAMPLES)[:, None]].mean(1))
    return Row(
        model=first.model,
        role=first.role,
        task=first.task,
        method=first.method,
        seeds=len(cells),
        planted=first.planted,
        **{name: Interval(float(np.mean(x)), min(x), max(x)) for name, x in measured.items()},
        drop=percentiles(float(own[:, 0].mean()), resampled),
        planted_drop=percentiles(float(planted[0]), planted[1:]),
        relative=float(per_neuron[:, 0, 0].mean()) / below if below > 0 else None,
        others={name: float(np.mean([c.others[name] for c in cells])) for name in first.others},
        seconds=float(np.mean([c.seconds for c in cells])),
        head_seconds=float(np.mean([c.head_seconds for c in cells])),
        refused=sum(c.refused is not None for c in cells),
        **further,
        either=Interval(float(np.mean(either)), min(either), max(either)) if either else None,
    )
