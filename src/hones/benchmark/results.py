"""What a benchmark found: cells (model, task, seed, method), rows over seeds, a leaderboard per role of the models."""

from dataclasses import dataclass

from hones.stats import Interval
from hones.tabular import Rows, Tabular

HONES, SHARED = "hones", "shared by all"


@dataclass(frozen=True)
class Cell:
    """One method on one task of one planted model, discovery items of one seed.

    planted: |P|. average_precision to ranked: see `hones.benchmark.metrics.Found`. baseline, masked, masked_planted:
    the metric on the test items with nothing, with the method's first |P| neurons and with P zeroed; masked_neurons:
    how many of them have an importance above 0. seconds: of the ranking; head_seconds: of the head sweep that it needs.
    refused: why the method gave no ranking (it is then scored as one without preference). through: of the heads through
    which P is read, the share that are critical heads; None where there are none, or the method uses no heads.
    """

    model: str
    base: str
    role: str
    task: str
    seed: int
    method: str
    planted: int
    neurons: int
    average_precision: float
    precision: float
    wide_recall: float
    without_general: float
    curve: tuple[float, ...]
    others: dict[str, float]
    ranked: int
    metric_name: str
    items: int
    test_items: int
    baseline: float
    masked: float
    masked_planted: float
    masked_neurons: int
    seconds: float
    head_seconds: float
    refused: str | None = None
    through: float | None = None

    @property
    def drop_per_neuron(self) -> float:
        """What zeroing one of the method's neurons costs, on average; 0 where it names none."""
        return (self.baseline - self.masked) / self.masked_neurons if self.masked_neurons else 0.0

    @property
    def planted_drop_per_neuron(self) -> float:
        """What zeroing one neuron of P costs, on average over P zeroed together."""
        return (self.baseline - self.masked_planted) / self.planted


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, with the smallest and the largest."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A method on one task of one model, over seeds.

    drop: of the metric when the method's first |P| neurons are zeroed; planted_drop: when P is; 95 % over test items,
    drop also over seeds. relative: drop per neuron over that of P, None where P's zeroing lowers nothing.
    """

    model: str
    role: str
    task: str
    method: str
    seeds: int
    planted: int
    average_precision: Spread
    precision: Spread
    wide_recall: Spread
    without_general: Spread
    drop: Interval
    planted_drop: Interval
    relative: float | None
    others: dict[str, float]
    seconds: float
    head_seconds: float
    refused: int


@dataclass(frozen=True)
class Standing:
    """A method on a leaderboard: means over cells.

    Intervals at 95 % over (model, task) pairs and, within each, seeds; plain numbers where there is one cell only.
    ahead: average precision minus that of HONES, paired by cell; p_value: two-sided, sign flips over pairs. relative:
    drop per masked neuron over that of P.
    """

    method: str
    cells: int
    average_precision: Interval | float
    precision: Interval | float
    wide_recall: Interval | float
    without_general: Interval | float
    relative: Interval | float | None
    ahead: Interval | None
    p_value: float | None
    curve: tuple[float, ...]
    seconds: float
    head_seconds: float
    refused: int


@dataclass(frozen=True)
class Leaderboard:
    """The methods on the models of one role, best first. chance: precision of a ranking without preference."""

    role: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    chance: float
    standings: tuple[Standing, ...]


@dataclass(frozen=True)
class Benchmark(Tabular):
    """Everything: leaderboards (`report` first), rows and cells."""

    leaderboards: tuple[Leaderboard, ...]
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]
    budgets: tuple[float, ...]

    def tables(self) -> dict[str, Rows]:
        """Standings of both roles, rows over seeds, and every cell."""
        standings = [{"role": b.role, **vars(s)} for b in self.leaderboards for s in b.standings]
        return {
            "leaderboard": [{k: v for k, v in s.items() if k != "curve"} for s in standings],
            "tasks": [vars(r) for r in self.rows],
            "cells": [vars(c) for c in self.cells],
        }

    def __str__(self) -> str:
        from rich.console import Console

        from hones.benchmark.tables import leaderboard_table

        console = Console(width=100, no_color=True)
        with console.capture() as captured:
            console.print(*map(leaderboard_table, self.leaderboards))
        return captured.get()
