"""What an analysis found, as it is written to RUN/analysis/analysis.json, and to explanation.json."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.stats import Interval
from hones.tabular import Rows, Tabular, heat_map_html


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
class Group:
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
    groups: tuple[Group, ...]
    ablations: tuple[Ablation, ...]
    lens: tuple[LensRow, ...]
    cards: tuple[NeuronCard, ...]

    def tables(self) -> dict[str, Rows]:
        """The ablations, groups, layers, overlaps, neuron cards and the lens."""
        shared = [("heads", x) for x in self.heads_overlap] + [("neurons", x) for x in self.neurons_overlap]
        return {
            "ablations": [{**vars(x), "group": "+".join(x.group)} for x in self.ablations],
            "groups": [{"group": "+".join(x.tasks), "neurons": x.neurons, **_layers(x.per_layer)} for x in self.groups],
            "layers": [{"task": x.task, **_layers(x.per_layer)} for x in self.tasks],
            "overlap": [{"of": what, **vars(x)} for what, x in shared],
            "cards": [
                {
                    **{k: getattr(x, k) for k in ("task", "rank", "layer", "neuron", "importance")},
                    "group": "+".join(x.group),
                    **_read(x.promotes, x.suppresses, x.heads),
                    "items": ", ".join(driver.item for driver in x.drivers),
                }
                for x in self.cards
            ],
            "lens": [{**vars(x), "group": "+".join(x.group), "falls": texts(x.falls)} for x in self.lens],
        }


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

    def tables(self) -> dict[str, Rows]:
        """The answer, every head and the neurons they feed."""
        about = ("model", "picture", "question", "answer", "probability", "cut")
        numbers = ("layer", "neuron", "contribution", "dependence")
        return {
            "answer": [{name: getattr(self, name) for name in about}],
            "neurons": [
                {**{k: getattr(x, k) for k in numbers}, **_read(x.promotes, x.suppresses, x.heads)}
                for x in self.neurons
            ],
            "heads": [{**vars(h)} for h in self.all_heads],
        }

    def map_html(self) -> str:
        """The map of heads."""
        marked = {(h.layer, h.head) for h in self.all_heads[: self.top_k]}
        return heat_map_html(self.drops(), marked, "drop of the answer's log-probability")


def texts(tokens: Sequence[Token]) -> str:
    """The tokens, quoted, in a line."""
    return " ".join(repr(token.text) for token in tokens)


def _layers(counts: Sequence[int]) -> dict[str, int]:
    return {f"layer {number}": count for number, count in enumerate(counts)}


def _read(promotes: Sequence[Token], suppresses: Sequence[Token], heads: Sequence[HeadRef]) -> dict[str, str]:
    shares = ", ".join(f"({h.layer}, {h.head}) {h.value:.0%}" for h in heads)
    return {"promotes": texts(promotes), "suppresses": texts(suppresses), "heads": shares}
