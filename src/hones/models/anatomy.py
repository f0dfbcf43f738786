"""Where a model's heads and neurons are.

For each decoder layer l: `o_proj`, whose input is [.., H * d_h] (head h owns the slice h * d_h : (h + 1) * d_h), and
`down_proj`, whose input is z [.., I]: with a gate z = act(gate) * up, without one z = act(fc1). The down_proj of a
mixture of experts is that of all its experts, and no module of the model's (`hones.models.mixtures`). They are found in
`hones.models.finding`.

A layer may mix positions otherwise than by attention: by a gated delta rule or a state space, whose heads are slices of
the input of its own output projection, as many and as wide as the mixer says; or by a short convolution or a state
space without heads, which has none. Such heads do not exist: they are no heads with a score of 0.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hones.errors import HonesError
from hones.models.experts import Experts
from hones.models.mixtures import ExpertProjection
from hones.models.normed import NormedProjection
from hones.models.sites import Site

ACTIVATIONS = ("act_fn", "activation_fn", "act")

Projection = nn.Linear | Conv1D | ExpertProjection


def matrix(projection: Projection) -> Float[Tensor, "out in"]:
    """W of x -> W x + b, a view of the weights: a Conv1D (GPT-2) keeps them transposed."""
    return projection.weight.T if isinstance(projection, Conv1D) else projection.weight


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm, by its class's name, which transformers gives to all of them."""
    return "Norm" in type(module).__name__


def sizes(projection: Projection) -> tuple[int, int]:
    """(out, in), also where a quantisation packs the weights."""
    if isinstance(projection, Conv1D):
        return projection.nf, projection.nx
    return projection.out_features, projection.in_features


@dataclass(frozen=True)
class Layer:
    """One decoder layer: the two projections whose inputs are edited, and the modules that they belong to.

    attention: what mixes positions, be it attention or not. heads: how many it has; 0 where it has none. keeps_state:
    whether it goes on from a state, not from keys and values.
    mlp: what gives the FFN's output; down_proj where the layer holds the FFN's parts itself (OPT), or where the module
    that does adds the residual to it (MPT), and the norm that the sum of its parts enters where they are several (Gemma
    4 with experts). down_proj: an `ExpertProjection` where the FFN is a mixture. absent: how
    many neurons it lacks to have I, as a dense layer may beside mixtures; their z is 0, and so is what they write.
    post_norm: a norm between down_proj and the residual; gate: what the FFN's output is multiplied by, its tanh.
    factor: a number that it is multiplied by.
    branch: what gives the output of a further branch, which reads the residual behind the FFN and is added to it
    (Gemma 4's per-layer inputs); of what leaves the layer that is no neuron's write-in, as what a next layer adds.
    uncounted: a part beside the FFN whose neurons are not among these, so that what the FFN adds is not known.
    activation: the FFN's activation function, where it is a module.
    """

    block: nn.Module
    attention: nn.Module
    mlp: nn.Module
    o_proj: Projection
    down_proj: Projection
    heads: int
    keeps_state: bool = False
    post_norm: nn.Module | None = None
    gate: nn.Parameter | None = None
    factor: float | Tensor = 1.0
    branch: nn.Module | None = None
    uncounted: str | None = None
    activation: nn.Module | None = None
    absent: int = 0

    @property
    def neurons(self) -> int:
        """How many there are."""
        return sizes(self.down_proj)[1]

    @property
    def head_dim(self) -> int:
        """The width of its heads; 0 where it has none."""
        return sizes(self.o_proj)[1] // self.heads if self.heads else 0

    @property
    def holds_ffn(self) -> bool:
        """Whether no module but the layer itself runs the FFN, perhaps on the positions of all rows in one."""
        return self.mlp is self.down_proj

    @property
    def ffn_enters(self) -> bool:
        """Whether what the FFN gives is what enters `mlp`, as it is before an edit, not what leaves it."""
        return isinstance(self.down_proj, NormedProjection)

    @property
    def experts(self) -> Experts | None:
        """Whose neuron is which, in a mixture of experts."""
        return self.down_proj.layout if isinstance(self.down_proj, ExpertProjection) else None

    @property
    def by_position(self) -> bool:
        """Whether its FFN can be run at some positions alone."""
        return not self.holds_ffn and self.experts is None

    def is_within(self, block: nn.Module) -> bool:
        """Whether these still are the modules of a decoder layer."""
        within = {*block.modules()}
        downs = self.down_proj.groups if isinstance(self.down_proj, ExpertProjection) else (self.down_proj,)
        named = (self.attention, self.mlp, self.o_proj, *downs, self.post_norm, self.branch, self.activation)
        same = all(module is None or module in within for module in named)
        return block is self.block and same and (self.gate is None or any(p is self.gate for p in block.parameters()))


@dataclass(frozen=True)
class Anatomy:
    """A model's layers and shapes: L layers, H heads of width d_h, I neurons, residual width d.

    heads: H, of the layer with most of them; `head_counts` are the layers'. head_dim: the widest heads' where layers
    differ (Gemma 4); `head_dim_of` is a layer's own. neurons: I, of the layer with most of them where dense layers
    stand beside mixtures. norm: the decoder's own, behind its layers, the last of
    several; None in a family without one.
    """

    decoder: nn.Module
    layers: tuple[Layer, ...]
    lm_head: nn.Linear
    heads: int
    head_dim: int
    neurons: int
    width: int
    norm: nn.Module | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, H, I)."""
        return len(self.layers), self.heads, self.neurons

    @property
    def head_counts(self) -> tuple[int, ...]:
        """How many heads each layer has."""
        return tuple(layer.heads for layer in self.layers)

    @property
    def head_sites(self) -> list[Site]:
        """(layer, head) of every head that there is, in order."""
        return [(layer, head) for layer, count in enumerate(self.head_counts) for head in range(count)]

    @property
    def headless(self) -> tuple[int, ...]:
        """The layers without heads."""
        return tuple(layer for layer, count in enumerate(self.head_counts) if count == 0)

    @property
    def inner(self) -> int:
        """The width of all heads of a layer together, where they are widest."""
        return max(layer.heads * layer.head_dim for layer in self.layers)

    def head_dim_of(self, layer: int) -> int:
        """The width of a layer's heads."""
        return self.layers[layer].head_dim

    @property
    def is_mixture(self) -> bool:
        """Whether some layers are mixtures of experts."""
        return any(layer.experts is not None for layer in self.layers)

    def expert_of(self, layer: int, neuron: int) -> int | None:
        """Whose neuron it is, in a mixture of experts."""
        experts = self.layers[layer].experts
        return None if experts is None else experts.of(neuron)

    def alike(self, layer: int, neuron: int) -> range:
        """The neurons of the same expert, or of the same layer where that is no mixture."""
        experts = self.layers[layer].experts
        return range(self.layers[layer].neurons) if experts is None else experts.neurons_of(experts.of(neuron))

    @property
    def total_neurons(self) -> int:
        return len(self.layers) * self.neurons

    def check_head(self, layer: int, head: int) -> None:
        """Raises HonesError unless the model has this head."""
        if layer in self.headless:
            raise HonesError(
                f"no head ({layer}, {head}): layer {layer} has no heads",
                expected=f"one of the {len(self.layers) - len(self.headless)} layers with heads",
            )
        self._check("head", layer, head, [*self.head_counts])

    def check_neuron(self, layer: int, neuron: int) -> None:
        """Raises HonesError unless the model has this neuron."""
        self._check("neuron", layer, neuron, [x.neurons for x in self.layers])

    def _check(self, what: str, layer: int, index: int, counts: list[int]) -> None:
        if not (0 <= layer < len(counts) and 0 <= index < counts[layer]):
            raise HonesError(
                f"no {what} ({layer}, {index})",
                expected=f"layer < {len(counts)} and {what} < {counts[layer if 0 <= layer < len(counts) else 0]}",
                do="was the file made with another model?",
            )
