"""What an analysis found, as it is written to RUN/analysis/analysis.json, and to explanation.json."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.stats import Interval
from hones.tabular import Column, Table, Tabular, heat_map_html


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
            Column("neuron", "neuron"),
            Column("importance", "importance", "number", ".3g", detail=True),
            Column("group", "group", "tasks", detail=True),
            Column("heads", "fed by heads", "list"),
            Column("promotes", "promotes", "tokens"),
            Column("suppresses", "suppresses", "tokens"),
            Column("items", "driven by items", "list", detail=True),
        )
        rows = [vars(x) | _written(x) | {"items": tuple(driver.item for driver in x.drivers)} for x in self.cards]
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


@dataclass(frozen=True)
class ExplainedHead:
    """A head, and by how much its replacement lowers the log-probability (nats) and probability of the answer."""

    layer: int
    head: int
    log_probability_drop: float
    probability_drop: float


@dataclass(frozen=True)
class ExplainedNeuron:
    """A neuron that these heads feed. contribution: c toward the answer; dependence: sum over the heads, weighted by
    their drops, of the part of c that vanishes without them; heads: who feeds it, shares.
    """

    layer: int
    neuron: int
    contribution: float
    dependence: float
    heads: tuple[HeadRef, ...]
    promotes: tuple[Token, ...]
    suppresses: tuple[Token, ...]


@dataclass(frozen=True)
class Explanation(Tabular):
    """Why a model gives its answer to one question about one picture, or about none (picture "").

    probability: of the answer and its end token. all_heads: every head, best first. cut: the model had not ended its
    answer where it was cut; the end token is then not its own.
    """

    model: str
    picture: str
    question: str
    answer: str
    probability: float
    layers: int
    heads_per_layer: int
    all_heads: tuple[ExplainedHead, ...]
    top_k: int
    neurons: tuple[ExplainedNeuron, ...]
    cut: bool = False

    def drops(self) -> Float[np.ndarray, "layers heads"]:
        """How much each head's replacement lowers the answer's log-probability."""
        matrix = np.zeros((self.layers, self.heads_per_layer), dtype=np.float32)
        for h in self.all_heads:
            matrix[h.layer, h.head] = h.log_probability_drop
        return matrix

    def tables(self) -> list[Table]:
        """The answer, the neurons that its heads feed, and every head."""
        about = ("model", "picture", "question", "answer", "probability", "cut")
        neurons = (
            Column("layer", "layer"),
            Column("neuron", "neuron"),
            Column("contribution", "contribution", "number"),
            Column("dependence", "dependence", "number"),
            Column("heads", "fed by", "list"),
            Column("promotes", "promotes", "tokens"),
            Column("suppresses", "suppresses", "tokens"),
        )
        heads = (
            Column("layer", "layer"),
            Column("head", "head"),
            Column("log_probability_drop", "drop of log-probability (nats)", "number"),
            Column("probability_drop", "drop of probability", "number"),
        )
        fed = [vars(x) | _written(x) for x in self.neurons]
        return [
            Table("answer", "The answer", tuple(Column(name, name) for name in about), [vars(self)]),
            Table("neurons", "Neurons that these heads feed", neurons, fed),
            Table("heads", "Every head, strongest first", heads, [vars(h) for h in self.all_heads]),
        ]

    def map_html(self) -> str:
        """The map of heads."""
        marked = {(h.layer, h.head) for h in self.all_heads[: self.top_k]}
        return heat_map_html(self.drops(), marked, "drop of the answer's log-probability")


def texts(tokens: Sequence[Token]) -> tuple[str, ...]:
    """What the tokens say."""
    return tuple(token.text for token in tokens)


def _written(neuron: NeuronCard | ExplainedNeuron) -> dict[str, tuple[str, ...]]:
    """Who feeds a neuron, and what it writes, as values of a table."""
    heads = tuple(f"L{h.layer} H{h.head} {h.value:.0%}" for h in neuron.heads)
    return {"heads": heads, "promotes": texts(neuron.promotes), "suppresses": texts(neuron.suppresses)}
