"""From cells to rows over seeds and to leaderboards with intervals.

A leaderboard's value is the mean over (model, task) pairs of the mean over seeds. Its interval comes from resampling
pairs with replacement and, within each drawn pair, its seeds: cells of one pair share the planted set, so they are no
independent witnesses. All methods share the resamples, so a difference to HONES is paired by cell. Drops are also
resampled over the test items, which all cells share. With few pairs such an interval is on the narrow side, and it
speaks of plants of this kind only. p is that of a sign-flip test over the pairs. A row, on one model and task, gives
the smallest and largest value over its seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from hones.benchmark.metrics import BUDGETS
from hones.benchmark.results import HONES, Benchmark, Cell, Leaderboard, Row, Spread, Standing
from hones.benchmark.stage import Scored
from hones.benchmark.variants import REPORT, SELECT
from hones.stats import RESAMPLES, UNEDITED, Interval, Measurement

SEED, MOST_FLIPPED = 3407, 16

ByPair = Float[np.ndarray, "pairs seeds"]


def summarise(scored: Sequence[Scored]) -> Benchmark:
    """Leaderboards of both roles, rows and cells."""
    cells = tuple(s.cell for s in scored)
    roles = [role for role in (REPORT, SELECT) if any(c.role == role for c in cells)]
    boards = tuple(_Grid([s for s in scored if s.cell.role == role]).leaderboard(role) for role in roles)
    return Benchmark(boards, _rows(scored), cells, BUDGETS)


class _Grid:
    """The cells of one role as arrays [pairs, seeds] per method, and the resamples that all methods share."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        cells = [s.cell for s in scored]
        self.pairs = [*dict.fromkeys((c.model, c.task) for c in cells)]
        self.seeds = [*dict.fromkeys(c.seed for c in cells)]
        self.methods = [*dict.fromkeys(c.method for c in cells)]
        self.at = {(s.cell.method, s.cell.model, s.cell.task, s.cell.seed): s for s in scored}
        rng = np.random.default_rng(SEED)
        shape = (RESAMPLES, len(self.pairs))
        self.drawn_pairs: Int[np.ndarray, "resamples pairs"] = rng.integers(len(self.pairs), size=shape)
        self.drawn_seeds: Int[np.ndarray, "resamples pairs seeds"] = rng.integers(
            len(self.seeds), size=(*shape, len(self.seeds))
        )

    def leaderboard(self, role: str) -> Leaderboard:
        """Best average precision first."""
        cells = [s.cell for s in self.at.values()]
        standings = [self.standing(method) for method in self.methods]
        standings.sort(key=lambda s: (-value_of(s.average_precision), -value_of(s.precision), s.method))
        return Leaderboard(
            role=role,
            models=tuple(dict.fromkeys(c.model for c in cells)),
            tasks=tuple(dict.fromkeys(c.task for c in cells)),
            seeds=tuple(self.seeds),
            chance=float(np.mean([c.planted / c.neurons for c in cells])),
            standings=tuple(standings),
        )

    def standing(self, method: str) -> Standing:
        """One method's means with intervals."""
        ahead = None
        p_value = None
        if HONES in self.methods and method != HONES and self.is_many:
            difference = self.values(method, _ap) - self.values(HONES, _ap)
            ahead = self.over_cells(difference)
            p_value = sign_flip_p(difference.mean(1))
        cells = [self.at[method, *pair, seed].cell for pair in self.pairs for seed in self.seeds]
        return Standing(
            method=method,
            cells=len(cells),
            average_precision=self.mean(method, _ap),
            precision=self.mean(method, lambda c: c.precision),
            wide_recall=self.mean(method, lambda c: c.wide_recall),
            without_general=self.mean(method, lambda c: c.without_general),
            relative=self.relative(method),
            ahead=ahead if isinstance(ahead, Interval) else None,
            p_value=p_value,
            curve=tuple(float(x) for x in np.mean([c.curve for c in cells], 0)),
            seconds=float(np.mean([c.seconds for c in cells])),
            head_seconds=float(np.mean([c.head_seconds for c in cells])),
            refused=sum(c.refused is not None for c in cells),
        )

    @property
    def is_many(self) -> bool:
        return len(self.pairs) * len(self.seeds) > 1

    def values(self, method: str, of: Callable[[Cell], float]) -> ByPair:
        """A number of every cell of a method."""
        return np.array([[of(self.at[method, *pair, seed].cell) for seed in self.seeds] for pair in self.pairs])

    def mean(self, method: str, of: Callable[[Cell], float]) -> Interval | float:
        """Its mean over cells."""
        return self.over_cells(self.values(method, of))

    def over_cells(self, values: ByPair) -> Interval | float:
        """The mean over cells, with its interval where there are several."""
        return percentiles(float(values.mean()), self.resampled(values)) if self.is_many else float(values.mean())

    def resampled(self, values: ByPair) -> Float[np.ndarray, " resamples"]:
        """The mean over pairs drawn with replacement, each over its seeds drawn with replacement."""
        return values[self.drawn_pairs[..., None], self.drawn_seeds].mean((1, 2))

    def relative(self, method: str) -> Interval | float | None:
        """Drop per masked neuron over that of P: ratio of the means over cells; None where P's drop is not above 0."""
        cells = [[self.at[method, *pair, seed] for seed in self.seeds] for pair in self.pairs]
        own = np.array([[drops_per_neuron(s)[0] for s in row] for row in cells])
        planted = np.array([[drops_per_neuron(s)[1] for s in row] for row in cells])
        if not planted[..., 0].mean() > 0:
            return None
        ratio = float(own[..., 0].mean() / planted[..., 0].mean())
        if not self.is_many:
            return ratio
        r = np.arange(RESAMPLES)[:, None, None]
        chosen = self.drawn_pairs[..., None], self.drawn_seeds, 1 + r
        below = planted[chosen].mean((1, 2))
        return percentiles(ratio, own[chosen].mean((1, 2))[below > 0] / below[below > 0])


def _ap(cell: Cell) -> float:
    return cell.average_precision


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


def _rows(scored: Sequence[Scored]) -> tuple[Row, ...]:
    by_row: dict[tuple[str, str, str], list[Scored]] = {}
    for s in scored:
        by_row.setdefault((s.cell.model, s.cell.task, s.cell.method), []).append(s)
    return tuple(_row(members) for members in by_row.values())


def _row(members: Sequence[Scored]) -> Row:
    cells = [s.cell for s in members]
    first = cells[0]
    per_neuron = np.stack([drops_per_neuron(s) for s in members])
    own = per_neuron[:, 0] * np.array([[c.masked_neurons] for c in cells])
    planted = per_neuron[0, 1] * first.planted
    drawn = np.random.default_rng(SEED).integers(len(cells), size=(RESAMPLES, len(cells)))
    resampled = own[drawn, 1 + np.arange(RESAMPLES)[:, None]].mean(1)
    below = float(planted[0]) / first.planted
    return Row(
        model=first.model,
        role=first.role,
        task=first.task,
        method=first.method,
        seeds=len(cells),
        planted=first.planted,
        average_precision=spread([c.average_precision for c in cells]),
        precision=spread([c.precision for c in cells]),
        wide_recall=spread([c.wide_recall for c in cells]),
        without_general=spread([c.without_general for c in cells]),
        drop=percentiles(float(own[:, 0].mean()), resampled),
        planted_drop=percentiles(float(planted[0]), planted[1:]),
        relative=float(per_neuron[:, 0, 0].mean()) / below if below > 0 else None,
        others={name: float(np.mean([c.others[name] for c in cells])) for name in first.others},
        seconds=float(np.mean([c.seconds for c in cells])),
        head_seconds=float(np.mean([c.head_seconds for c in cells])),
        refused=sum(c.refused is not None for c in cells),
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean, smallest and largest."""
    return Spread(float(np.mean(values)), min(values), max(values))
