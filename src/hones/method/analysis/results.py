"""What an analysis found, as it is written to RUN/analysis/analysis.json."""

from collections.abc import Sequence
from dataclasses import dataclass

from hones.method.found import expert_column
from hones.models.sites import Expert
from hones.stats import Interval
from hones.tabular import Column, Table, Tabular


@dataclass(frozen=True)
class Token:
    """A token's text and its weight: a change of its logit, or of a lens logit."""

    text: str
    weight: float


@dataclass(frozen=True)
class HeadRef:
    """A head and a number about it: a score, or its share of a neuron's importance."""

    layer: int
    head: int
    value: float


@dataclass(frozen=True)
class TaskSets:
    """What one task selected: critical heads with their scores, and neurons per layer [L]."""

    task: str
    metric_name: str
    heads: tuple[HeadRef, ...]
    per_layer: tuple[int, ...]


@dataclass(frozen=True)
class Overlap:
    """Critical heads or neurons that two tasks share: how many, of how many together (Jaccard = shared / union)."""

    first: str
    second: str
    shared: int
    union: int


@dataclass(frozen=True)
class ExclusiveGroup:
    """An exclusive group: the neurons that exactly these tasks selected. per_layer [L]."""

    tasks: tuple[str, ...]
    neurons: int
    per_layer: tuple[int, ...]


@dataclass(frozen=True)
class Ablation:
    """One group masked, one task asked. drop: baseline - masked; random_drop: of random neurons, as many per layer;
    advantage: drop - random_drop, paired; relative_drop in per cent, None where the baseline is 0.
    """

    group: tuple[str, ...]
    task: str
    baseline: Interval
    masked: Interval
    drop: Interval
    relative_drop: Interval | None
    random_drop: Interval
    advantage: Interval


@dataclass(frozen=True)
class LensRow:
    """Delta logit lens of one item and layer: the tokens whose lens logit falls most when a group is masked."""

    task: str
    item: str
    prompt: str
    target: str
    picture: str
    group: tuple[str, ...]
    layer: int
    falls: tuple[Token, ...]


@dataclass(frozen=True)
class Driver:
    """An item that drives a neuron: its contribution c toward the item's answer, its prompt, target and thumbnail.

    picture: a file relative to the analysis's folder, "" where the item has none.
    """

    item: str
    task: str
    contribution: float
    prompt: str
    target: str
    picture: str


@dataclass(frozen=True)
class NeuronCard:
    """One neuron to read: which heads feed it, which items drive it, which tokens its write vector promotes.

    importance: by task. heads: the critical heads' shares of its importance for `task`, largest first, summing to 1;
    none where the neurons were ranked by a method without heads.
    """

    task: str
    rank: int
    layer: int
    neuron: int
    importance: float
    group: tuple[str, ...]
    promotes: tuple[Token, ...]
    suppresses: tuple[Token, ...]
    heads: tuple[HeadRef, ...]
    drivers: tuple[Driver, ...]
    expert: Expert = None


@dataclass(frozen=True)
class Analysis(Tabular):
    """Everything `hones analyze` found. heads_overlap, neurons_overlap: every pair of tasks."""

    model: str
    layers: int
    heads: int
    neurons: int
    tasks: tuple[TaskSets, ...]
    heads_overlap: tuple[Overlap, ...]
    neurons_overlap: tuple[Overlap, ...]
    groups: tuple[ExclusiveGroup, ...]
    ablations: tuple[Ablation, ...]
    lens: tuple[LensRow, ...]
    cards: tuple[NeuronCard, ...]

    def tables(self) -> list[Table]:
        """The ablations, groups, layers, overlaps, neuron cards and the lens."""
        return [self._ablations(), *self._per_layer(), self._overlap(), self._cards(), self._lens()]

    def _ablations(self) -> Table:
        columns = (
            Column("group", "group masked", "tasks"),
            Column("task", "task"),
            Column("baseline", "baseline", "interval", terse=True),
            Column("masked", "masked", "interval", terse=True),
            Column("drop", "drop", "interval", "+.3f"),
            Column("relative_drop", "drop, %", "interval", ".1f", terse=True),
            Column("random_drop", "random drop", "interval", "+.3f", terse=True),
            Column("advantage", "drop - random", "interval", "+.3f", bold="advantage"),
        )
        sizes = {group.tasks: group.neurons for group in self.groups}
        rows = [vars(x) | {"neurons": sizes.get(x.group)} for x in self.ablations]
        return Table("ablations", "Masking each group", columns, rows)

    def _per_layer(self) -> list[Table]:
        counts = (Column("neurons", "neurons", "count"), Column("per_layer", "per layer", "layers"))
        caption = f"a bar per layer, 0 to {self.layers - 1}"
        tasks = [vars(x) | {"neurons": sum(x.per_layer)} for x in self.tasks]
        return [
            Table(
                "groups",
                "Neurons per layer, of exactly these tasks",
                (Column("group", "group", "tasks"), *counts),
                [vars(x) | {"group": x.tasks} for x in self.groups],
                caption,
            ),
            Table("layers", "Neurons per layer, of every task", (Column("task", "task"), *counts), tasks, caption),
        ]

    def _overlap(self) -> Table:
        columns = (
            Column("of", "of"),
            Column("first", "task"),
            Column("second", "and task"),
            Column("shared", "shared", "count"),
            Column("union", "together", "count"),
            Column("jaccard", "Jaccard", "number", ".0%"),
        )
        rows = [
            {"of": what, **vars(x), "jaccard": x.shared / x.union if x.union else None}
            | {"pair": f"{x.first}, {x.second}"}
            | {"said": f"{x.shared} of {x.union} ({x.shared / max(1, x.union):.0%})"}
            for what, overlaps in (("heads", self.heads_overlap), ("neurons", self.neurons_overlap))
            for x in overlaps
        ]
        return Table("overlap", "What two tasks share", columns, rows)

    def _cards(self) -> Table:
        columns = (
            Column("task", "task"),
            Column("rank", "rank"),
            Column("layer", "layer"),
            *expert_column(self.cards),
            Column("neuron", "neuron"),
            Column("importance", "importance", "number", ".3g", detail=True),
            Column("group", "group", "tasks", detail=True),
            Column("heads", "fed by heads", "list"),
            Column("promotes", "promotes", "tokens"),
            Column("suppresses", "suppresses", "tokens"),
            Column("items", "driven by items", "list", detail=True),
        )
        rows = [
            vars(x) | shown(x.heads, x.promotes, x.suppresses) | {"items": tuple(driver.item for driver in x.drivers)}
            for x in self.cards
        ]
        return Table("cards", "Neurons to read: heads -> neuron -> tokens", columns, rows)

    def _lens(self) -> Table:
        columns = (
            Column("task", "task"),
            Column("item", "item"),
            Column("prompt", "prompt", "text"),
            Column("target", "target", "text"),
            Column("picture"),
            Column("group", "group", "tasks"),
            Column("layer", "layer"),
            Column("falls", "falls", "tokens"),
        )
        rows = [vars(x) | {"falls": texts(x.falls)} for x in self.lens]
        return Table("lens", "Tokens whose lens logit falls most when a group is masked", columns, rows)


def texts(tokens: Sequence[Token]) -> tuple[str, ...]:
    """What the tokens say."""
    return tuple(token.text for token in tokens)


def shown(
    heads: Sequence[HeadRef], promotes: Sequence[Token], suppresses: Sequence[Token]
) -> dict[str, tuple[str, ...]]:
    """Who feeds a neuron, and what it writes, as values of a table."""
    fed_by = tuple(f"L{h.layer} H{h.head} {h.value:.0%}" for h in heads)
    return {"heads": fed_by, "promotes": texts(promotes), "suppresses": texts(suppresses)}
