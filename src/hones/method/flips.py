"""What rounding changes in a sweep of heads: the same cells in float32 and in the narrower numbers of another dtype.

A cell is an item, unedited or under one head's replacement. Rounding decides near-ties of the next token, so in
bfloat16 some cells end otherwise, *flips*, and S(l, h) moves by what they weigh. Two batch sizes in bfloat16 differ as
well; where a head is critical by one item alone, so may two runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hones.method.heads import score_heads
from hones.models.sites import Site
from hones.stats import UNEDITED, Interval, Measurement
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Task


@dataclass(frozen=True)
class Flips:
    """Of one task.

    items: of both sweeps. cells: all, the unedited model's among them; flipped: those whose statistics differ.
    exact, rounded: the unedited metric in float32 and in the other dtype. largest, mean: of the changes |S - S| of the
    heads' scores. critical: how many heads are critical in float32; shared: how many of them in the other dtype too.
    """

    task: str
    metric_name: str
    items: int
    cells: int
    flipped: int
    exact: Interval
    rounded: Interval
    largest: float
    mean: float
    critical: int
    shared: int


def flips_between(
    task: Task, exact: Measurement, rounded: Measurement, sites: Sequence[Site], top_k: int, dtype: str
) -> Flips:
    """Compare two sweeps of the same heads over the same items.

    Args:
        exact, rounded: the arm UNEDITED and an arm for each of the sites, in float32 and in the other dtype.
    """
    first, second = (score_heads(task, measured, sites, top_k) for measured in (exact, rounded))
    scores = [{(h.layer, h.head): h.score.value for h in found.heads} for found in (first, second)]
    changes = [abs(scores[0][site] - scores[1][site]) for site in sites]
    critical = [{(h.layer, h.head) for h in found.critical} for found in (first, second)]
    differ = [(exact.arms[arm] != rounded.arms[arm]).any(-1) for arm in (UNEDITED, *sites)]
    return Flips(
        task=task.name,
        metric_name=task.metric_name,
        items=exact.items,
        cells=exact.items * len(differ),
        flipped=int(np.sum(differ)),
        exact=first.baseline,
        rounded=second.baseline,
        largest=max(changes),
        mean=float(np.mean(changes)),
        critical=len(critical[0]),
        shared=len(critical[0] & critical[1]),
    )


@dataclass(frozen=True)
class Rounding(Tabular):
    """What a dtype changes on a model, task by task."""

    model: str
    dtype: str
    tasks: tuple[Flips, ...]

    def tables(self) -> list[Table]:
        """A row per task."""
        columns = (
            Column("task", "task", below="metric_name"),
            Column("metric_name", "metric", "metric"),
            Column("items", "items", "count", detail=True),
            Column("share", "flips, %", "number", ".2f", below="of", full="cells that flip, %"),
            Column("of"),
            Column("exact", "float32", "interval", ".3f", terse=True),
            Column("rounded", self.dtype, "interval", ".3f", terse=True),
            Column("mean", "score moves", "number", ".4f", below="most", full="a head's score moves by"),
            Column("most"),
            Column("heads", "heads", full="critical heads kept"),
        )
        rows = [
            vars(flips)
            | {"share": 100 * flips.flipped / flips.cells, "of": f"{flips.flipped:,} of {flips.cells:,}"}
            | {"most": f"at most {flips.largest:.3f}", "heads": f"{flips.shared} of {flips.critical}"}
            for flips in self.tasks
        ]
        caption = (
            "an item, unedited or under one head's replacement, flips where its result differs; score: what a head's "
            "replacement costs, mean over heads; heads: critical ones on these items that stay so"
        )
        return [Table("flips", f"{self.model}: {self.dtype} against float32", columns, rows, caption)]
