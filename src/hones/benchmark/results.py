"""What a benchmark found: cells (model, task, seed, method), rows over seeds, a leaderboard per role of the models."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from hones.stats import Interval
from hones.tabular import Column, Table, Tabular, pivot

HONES = "hones"
SHARED = "shared by all"
FURTHER = {
    "faithfulness": Column("faithfulness", "F", "interval", ".2f", full="faithfulness at P", missing="-"),
    "completeness": Column("completeness", "left", "interval", ".2f", full="left without the first P", missing="-"),
    "cpr": Column("cpr", "CPR", "interval", ".2f", missing="-"),
    "cmd": Column("cmd", "CMD", "interval", ".2f", missing="-"),
    "selective_drop": Column("selective_drop", "selective", "interval", "+.2f", full="selective drop", missing="-"),
}
"""What may be measured beside (`hones.benchmark.scored.Scored.further`): numbers of a row or standing, None without."""
WHAT_INTERVALS_ARE = (
    "95 % intervals over (model, task) pairs and, within each, seeds: for plants of this kind, not for models at large"
)


@dataclass(frozen=True)
class Cell:
    """One method on one task of one planted model, discovery items of one seed.

    planted: |P|. average_precision to ranked, either: see `hones.benchmark.metrics.Found`. baseline, masked,
    masked_planted: the metric on the test items with nothing, with the method's first |P| neurons and with P zeroed;
    masked_neurons: how many of them have an importance above 0. seconds: of the ranking; head_seconds: of the head
    sweep that it needs. refused: why the method gave no ranking (it is then scored as one without preference).
    through: of the heads through which P is read, the share that are critical heads; None where there are none, or the
    method uses no heads.
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
    either: float | None = None


@dataclass(frozen=True)
class Row:
    """A method on one task of one model, over seeds.

    average_precision to without_general, either: the mean over seeds, with the smallest and the largest. drop: of the
    metric when the method's first |P| neurons are zeroed; planted_drop: when P is; 95 % over test items, drop also over
    seeds. relative: drop per neuron over that of P, None where P's zeroing lowers nothing. faithfulness to
    selective_drop: FURTHER, 95 % over test items and seeds.
    """

    model: str
    role: str
    task: str
    method: str
    seeds: int
    planted: int
    average_precision: Interval
    precision: Interval
    wide_recall: Interval
    without_general: Interval
    drop: Interval
    planted_drop: Interval
    relative: float | None
    others: dict[str, float]
    seconds: float
    head_seconds: float
    refused: int
    faithfulness: Interval | None = None
    completeness: Interval | None = None
    cpr: Interval | None = None
    cmd: Interval | None = None
    selective_drop: Interval | None = None
    either: Interval | None = None


@dataclass(frozen=True)
class Standing:
    """A method on a leaderboard: means over cells.

    Intervals at 95 % over (model, task) pairs and, within each, seeds; plain numbers where there is one cell only.
    ahead: average precision minus that of HONES, paired by cell; p_value: two-sided, sign flips over pairs. relative:
    drop per masked neuron over that of P. either: None unless every cell has neurons with copies. faithfulness to
    selective_drop: FURTHER, also over test items; None where not every cell has it.
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
    faithfulness: Interval | float | None = None
    completeness: Interval | float | None = None
    cpr: Interval | float | None = None
    cmd: Interval | float | None = None
    selective_drop: Interval | float | None = None
    either: Interval | float | None = None


@dataclass(frozen=True)
class Leaderboard:
    """The methods on the models of one role, best first. chance: precision of a ranking without preference."""

    role: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    chance: float
    standings: tuple[Standing, ...]

    def narrow(self) -> list[Table]:
        """The table as two, where space is scarce: what was measured beside stands in the second."""
        whole = self.table()
        beside = tuple(column for column in whole.columns if column.name in FURTHER)
        if not beside:
            return [whole]
        first = replace(whole, columns=tuple(column for column in whole.columns if column not in beside))
        caption = (
            "F: share of the metric that the first |P| bring back alone, left: what is left without them; CPR, CMD: "
        )
        caption += "mean of F, of |1 - F| over budgets; selective: own share lost less the largest of another task"
        method = Column("method", "method")
        return [first, Table("beside", "Both directions, and other tasks", (method, *beside), whole.rows, caption)]

    def table(self) -> Table:
        """One row per method."""
        measured = [name for name in FURTHER if any(getattr(s, name) is not None for s in self.standings)]
        pairs = self.standings[0].cells // len(self.seeds)
        where = f"{len(self.models)} models x {len(self.tasks)} tasks"
        if pairs < len(self.models) * len(self.tasks):
            where = f"{pairs} pairs of {len(self.models)} models and {len(self.tasks)} tasks"
        where += f" x {len(self.seeds)} seeds"
        has_copies = any(s.either is not None for s in self.standings)
        columns = (
            Column("role"),
            Column("method", "method", below="refusals"),
            Column("cells"),
            Column("average_precision", "avg. precision", "interval", full="average precision"),
            Column("precision", "precision at P", "interval"),
            Column("wide_recall", "recall at 10 P", "interval"),
            Column("without_general", "without shared" if has_copies else "", kind="interval"),
            Column("either", "either copy" if has_copies else "", "interval"),
            Column("relative", "drop/neuron", "interval", ".2f", full="drop per neuron, of P's", missing="-"),
            Column("ahead", f"ahead of {HONES}", "interval", "+.3f", beside="p_value", bold="ahead"),
            Column("p_value", "p", "p"),
            Column("seconds", "sec", "number", ".1f", below="of_heads"),
            Column("of_heads", "of heads", "number", "+.1f", " s"),
            Column("refused"),
            *(FURTHER[name] for name in measured),
        )
        rows = [
            {**vars(s), "role": self.role, "of_heads": s.head_seconds or None}
            | {"refusals": f"{s.refused} of {s.cells} refused" if s.refused else None}
            for s in self.standings
        ]
        caption = (
            f"{WHAT_INTERVALS_ARE}. P, recall: of the planted set P, at |P| the same number; chance {self.chance:.3f}. "
            "drop/neuron: over that of P. sec: of the ranking, + of the heads it needs"
        )
        return Table("leaderboard", f"Leaderboard, models to {self.role} on: {where}", columns, rows, caption)


@dataclass(frozen=True)
class Benchmark(Tabular):
    """Everything: leaderboards (`report` first), rows and cells."""

    leaderboards: tuple[Leaderboard, ...]
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]
    budgets: tuple[float, ...]

    def tables(self) -> list[Table]:
        """Standings of both roles, rows over seeds, and every cell."""
        boards = [board.table() for board in self.leaderboards]
        widest = max(boards, key=lambda table: len(table.columns))
        standings = replace(boards[0], columns=widest.columns, rows=[row for board in boards for row in board.rows])
        measured = {name for name in FURTHER if any(getattr(row, name) is not None for row in self.rows)}
        names = [f for f in fields(Row) if f.name not in FURTHER or f.name in measured]
        tasks = tuple(Column(f.name, kind="interval" if _is_interval(f.type) else "name") for f in names)
        cells = tuple(Column(f.name) for f in fields(Cell))
        return [
            standings,
            Table("tasks", "Every task of every model, over seeds", tasks, [vars(row) for row in self.rows]),
            Table("cells", "Every model, task, seed and method", cells, [vars(cell) for cell in self.cells]),
        ]

    def model_table(self, model: str) -> Table:
        """Average precision, and precision at |P|, of every method on each task of a model, mean over seeds."""
        of_model = [row for row in self.rows if row.model == model]
        rows = [vars(row) for row in best_first(of_model)]
        cell = Column("average_precision", kind="interval", beside="precision", terse=True)
        title = f"{model}: average precision, precision at |P|"
        table = Table("", title, (Column("method", "method"),), rows)
        return pivot(table, title, "task", cell, "{task}, |P| = {planted}", "mean over seeds")

    def __str__(self) -> str:
        from rich.console import Console

        from hones.views.terminal import show

        console = Console(width=100, no_color=True)
        with console.capture() as captured:
            console.print(show(*(table for board in self.leaderboards for table in board.narrow())))
        return captured.get()


def _is_interval(kind: object) -> bool:
    return kind in (Interval, Interval | None)


def best_first(rows: Sequence[Row]) -> list[Row]:
    """The rows method by method, best mean average precision first."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row)
    ranked = sorted(by_method.values(), key=lambda of: -sum(row.average_precision.value for row in of) / len(of))
    return [row for of_method in ranked for row in of_method]
