"""What steps 1 and 2 find: heads with their scores, and selected neurons."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from hones.method.head_ways import FoundBy, StepsTaken, SubsetFit
from hones.models.sites import Expert, Site
from hones.stats import Interval
from hones.tabular import Column, Table, Tabular, heat_map_html

if TYPE_CHECKING:
    from hones.sweep.racing import RaceRules


@dataclass(frozen=True)
class HeadScore:
    """One head: its score S with interval, and the metric without (`baseline`) and with its replacement.

    items: how many it was scored on. dropped: it left a race as one that cannot be critical.
    step, growth: of `hones.method.head_steps` the step that the score is of, and E(u | S) - E(u). By subsets
    `intervened` is what the linear model has without this head alone, baseline - S.
    """

    layer: int
    head: int
    score: Interval
    baseline: float
    intervened: float
    items: int = 0
    dropped: bool = False
    step: int | None = None
    growth: Interval | None = None


@dataclass(frozen=True)
class HeadResult(Tabular):
    """All heads, best first, and the critical ones among the first K. racing: the rules of a race, None: all cells were
    run. found_by: how, other than each head alone. headless: the layers that have no heads.
    """

    metric_name: str
    baseline: Interval
    items: int
    heads: tuple[HeadScore, ...]
    top_k: int
    racing: "RaceRules | None" = None
    found_by: FoundBy | None = None
    headless: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Layers and heads of the smallest map that has all of them."""
        layers = 1 + max(*(h.layer for h in self.heads), *self.headless, 0)
        return layers, 1 + max(h.head for h in self.heads)

    @property
    def without_heads(self) -> str:
        """How many layers have no heads, in words; empty where all have some."""
        return f"{len(self.headless)} of {self.shape[0]} layers have no heads" if self.headless else ""

    @property
    def critical(self) -> tuple[HeadScore, ...]:
        """H*: of the K heads of largest score, or of those chosen in steps, those whose replacement costs something."""
        most = min(self.top_k, self.found_by.count) if isinstance(self.found_by, StepsTaken) else self.top_k
        return tuple(head for head in self.heads[:most] if head.score.value > 0)

    def matrix(self, layers: int, heads: int) -> Float[np.ndarray, "layers heads"]:
        """The scores as float32 [L, H]; NaN where there is no head."""
        matrix = np.full((layers, heads), np.nan, dtype=np.float32)
        for h in self.heads:
            matrix[h.layer, h.head] = h.score.value
        return matrix

    def tables(self) -> list[Table]:
        """Every head, best first."""
        title = f"Critical heads, {self.metric_name} {self.baseline:.3f} on {self.items} items"
        if self.racing is not None:
            dropped = sum(h.dropped for h in self.heads)
            title += f"; racing at {self.racing.confidence:g}, within {self.racing.margin:g}: {dropped} dropped early"
        elif self.found_by is not None:
            title += f"; {self.found_by.way}: {self.found_by}"
        title += f"; {self.without_heads}" if self.headless else ""
        drop, without, growth = "drop when replaced", "metric without it", ()
        if isinstance(self.found_by, SubsetFit):
            drop, without = "drop it adds to a subset", ""
        elif isinstance(self.found_by, StepsTaken):
            drop, without = "drop beside those before", "metric without all"
            more = Column("growth", "more than alone", "interval", "+.3f", full="more than when it is replaced alone")
            growth = (Column("step", "step"), more)
        columns = (
            Column("layer", "layer"),
            Column("head", "head"),
            Column("score", f"{drop} [95 %]", "interval", "+.3f", full=drop),
            *growth,
            Column("baseline"),
            Column("intervened", without, "number"),
            Column("items"),
            Column("dropped"),
            Column("critical", "critical", detail=True),
        )
        count = len(self.critical)
        rows = [{**vars(h), "critical": rank < count} for rank, h in enumerate(self.heads)]
        fewer = f"{count} critical instead of {self.top_k}: no other head's replacement lowers the metric"
        if isinstance(self.found_by, StepsTaken):
            fewer += " by an interval above zero"
        return [Table("heads", title, columns, rows, fewer if count < self.top_k else "", shown=max(count, 1))]

    def map_html(self) -> str:
        """The map of heads."""
        marked = {(h.layer, h.head) for h in self.critical}
        return heat_map_html(self.matrix(*self.shape), marked, f"drop of {self.metric_name}")


@dataclass(frozen=True)
class RankedNeuron:
    """A selected neuron; rank 1 has the largest importance. expert: whose it is, in a mixture of experts."""

    rank: int
    layer: int
    neuron: int
    score: float
    expert: Expert = None


def sites_of(neurons: Iterable[RankedNeuron | Site]) -> list[Site]:
    """The (layer, neuron) of each."""
    return [(n.layer, n.neuron) if isinstance(n, RankedNeuron) else n for n in neurons]


def expert_column(neurons: Iterable[Any]) -> tuple[Column, ...]:
    """The column of a table that says whose neurons they are, where they are of a mixture of experts."""
    return (Column("expert", "expert"),) if any(n.expert is not None for n in neurons) else ()


class RankedNeurons(Tabular, list[RankedNeuron]):
    """Selected neurons, best first."""

    def tables(self) -> list[Table]:
        """The neurons."""
        per_layer = sorted(Counter(n.layer for n in self).items())
        caption = f"per layer {', '.join(f'{layer}: {count}' for layer, count in per_layer)}"
        columns = (
            Column("rank", "rank"),
            Column("layer", "layer"),
            *expert_column(self),
            Column("neuron", "neuron"),
            Column("score", "importance", "number", form=".4g"),
        )
        return [Table("neurons", f"{len(self):,} neurons", columns, [vars(n) for n in self], caption, shown=10)]
