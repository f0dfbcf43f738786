"""Why a model gave one answer, as it is written to explanation.json."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.method.analysis.picture_map import PictureMap
from hones.method.analysis.results import HeadRef, Token, shown
from hones.method.found import expert_column
from hones.models.sites import Expert
from hones.tabular import Column, Table, Tabular, heat_map_html


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
    expert: Expert = None


@dataclass(frozen=True)
class Explanation(Tabular):
    """Why a model gives its answer to one question about one picture, or about none (picture "").

    question: as asked of vqa; of another task its whole prompt.
    probability: of the answer and its end token. all_heads: every head, best first. cut: the model had not ended its
    answer where it was cut; the end token is then not its own. maps: where in the picture it comes from; no_maps: why
    there are none although there is a picture, and they were asked for.
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
    maps: tuple[PictureMap, ...] = ()
    no_maps: str = ""

    @property
    def critical(self) -> tuple[ExplainedHead, ...]:
        """Of the first `top_k` heads those whose replacement lowers the answer's probability."""
        return tuple(head for head in self.all_heads[: self.top_k] if head.log_probability_drop > 0)

    def drops(self) -> Float[np.ndarray, "layers heads"]:
        """How much each head's replacement lowers the answer's log-probability; NaN where there is no head."""
        matrix = np.full((self.layers, self.heads_per_layer), np.nan, dtype=np.float32)
        for h in self.all_heads:
            matrix[h.layer, h.head] = h.log_probability_drop
        return matrix

    def tables(self) -> list[Table]:
        """The answer, the neurons that its heads feed, and every head."""
        about = ("model", "picture", "question", "answer", "probability", "cut")
        neurons = (
            Column("layer", "layer"),
            *expert_column(self.neurons),
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
        places = (
            Column("kind", "map"),
            Column("row", "row"),
            Column("column", "column"),
            Column("value", "value", "number", ".3g"),
            Column("unit", "unit", "text"),
        )
        fed = [vars(x) | shown(x.heads, x.promotes, x.suppresses) for x in self.neurons]
        strongest = [
            {"kind": x.kind, "row": row, "column": column, "value": value, "unit": x.unit}
            for x in self.maps
            for row, column, value in x.strongest()
        ]
        return [
            Table("answer", "The answer", tuple(Column(name, name) for name in about), [vars(self)]),
            Table("neurons", "Neurons that these heads feed", neurons, fed),
            Table("heads", "Every head, strongest first", heads, [vars(h) for h in self.all_heads]),
            Table("places", "The strongest patches of the picture, counted from 0 at the top left", places, strongest),
        ]

    def map_html(self) -> str:
        """The map of heads."""
        marked = {(h.layer, h.head) for h in self.critical}
        return heat_map_html(self.drops(), marked, "drop of the answer's log-probability")
