"""What an analysis found, as it is written to RUN/analysis/analysis.json and RUN/explain/NAME/explanation.json."""

from dataclasses import dataclass

from hones.uncertainty import Interval


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

    picture: a file relative to the analysis's folder.
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

    importance: by task. heads: the critical heads' shares of its importance for `task`, largest first, summing to 1.
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
class Analysis:
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
class Explanation:
    """Why a model gives its answer to one question about one picture. all_heads: every head, best first."""

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
