"""Where a model's heads and neurons are.

For each decoder layer l: `o_proj`, whose input is [.., H * d_h] (head h owns the slice h * d_h : (h + 1) * d_h), and
`down_proj`, whose input is z [.., I]: with a gate z = act(gate) * up, without one z = act(fc1). Only the language
model's layers count: a vision tower often has modules of the same names. Sites are data: a layer's attention and FFN
each have one output projection; of the names that families give to such a part, the first that is there is taken. So is
what stands between down_proj and the residual in some families, a norm or a gate. The down_proj of a mixture of experts
is that of all its experts, and no module of the model's (`hones.models.mixtures`).
"""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hones.errors import HonesError
from hones.models.mixtures import ExpertProjection, Experts, find_mixture

LAYERS = ("layers", "h")
ATTENTIONS = ("self_attn", "cross_attn", "self_attention", "attention", "attn")
OUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense")
FFNS = ("mlp", "")  # "": the layer holds its FFN's parts itself
DOWN_PROJECTIONS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h")
POST_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm")
GATES = ("cross_attn_mlp_gate",)
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

    mlp: what gives the FFN's output; down_proj where the layer holds the FFN's parts itself (OPT). down_proj: an
    `ExpertProjection` where the FFN is a mixture. absent: how many neurons it lacks to have I, as a dense layer may
    beside mixtures; their z is 0, and so is what they write.
    post_norm: a norm between down_proj and the residual; gate: what the FFN's output is multiplied by, its tanh.
    activation: the FFN's activation function, where it is a module.
    """

    block: nn.Module
    attention: nn.Module
    mlp: nn.Module
    o_proj: Projection
    down_proj: Projection
    post_norm: nn.Module | None = None
    gate: nn.Parameter | None = None
    activation: nn.Module | None = None
    absent: int = 0

    @property
    def neurons(self) -> int:
        """How many there are."""
        return sizes(self.down_proj)[1]

    @property
    def holds_ffn(self) -> bool:
        """Whether no module but the layer itself runs the FFN, perhaps on the positions of all rows in one."""
        return self.mlp is self.down_proj

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
        within = {*block.children(), *self.attention.children(), *self.mlp.children()}
        down = self.down_proj.experts if isinstance(self.down_proj, ExpertProjection) else self.down_proj
        named = (self.attention, self.mlp, self.o_proj, down, self.post_norm, self.activation)
        same = all(module is None or module in within for module in named)
        return block is self.block and same and (self.gate is None or any(p is self.gate for p in block.parameters()))


@dataclass(frozen=True)
class Anatomy:
    """A model's layers and shapes: L layers, H heads of width d_h, I neurons, residual width d.

    neurons: I, of the layer with most of them where dense layers stand beside mixtures. norm: the decoder's own, behind
    its layers, the last of several; None in a family without one.
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
        self._check("head", layer, head, [self.heads] * len(self.layers))

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


_FOUND: WeakKeyDictionary[PreTrainedModel, Anatomy] = WeakKeyDictionary()


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """The decoder's heads and neurons, located once for each model; anew where its modules were replaced since.

    Raises:
        HonesError: a site is missing or its shape does not fit the configuration; the line names it.
    """
    anatomy = _FOUND.get(model)
    if anatomy is None or not _is_current(anatomy, model):
        anatomy = _locate(model)
        _FOUND[model] = anatomy
    return anatomy


def _is_current(anatomy: Anatomy, model: PreTrainedModel) -> bool:
    """Whether a model still has these modules: a quantisation or an adapter puts others in their place."""
    blocks = blocks_of(anatomy.decoder)
    return (
        blocks is not None
        and decoder_of(model) is anatomy.decoder
        and model.get_output_embeddings() is anatomy.lm_head
        and _norm_of(anatomy.decoder) is anatomy.norm
        and model.config.get_text_config().num_attention_heads == anatomy.heads
        and len(blocks) == len(anatomy.layers)
        and all(layer.is_within(block) for layer, block in zip(anatomy.layers, blocks, strict=True))
    )


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The language model without its head; Llama 4 says that it is all of it."""
    decoder = model.get_decoder()
    inner = getattr(decoder, "model", None)
    return inner if blocks_of(decoder) is None and isinstance(inner, nn.Module) else decoder


def blocks_of(decoder: nn.Module) -> nn.ModuleList | None:
    """The decoder's layers."""
    blocks = _first(decoder, LAYERS)
    return blocks if isinstance(blocks, nn.ModuleList) and len(blocks) > 0 else None


def _norm_of(decoder: nn.Module) -> nn.Module | None:
    return next((module for module in reversed([*decoder.children()]) if is_norm(module)), None)


def _locate(model: PreTrainedModel) -> Anatomy:
    decoder = decoder_of(model)
    blocks = blocks_of(decoder)
    lm_head = model.get_output_embeddings()
    name = type(model).__name__
    if blocks is None:
        raise HonesError(
            f"{name}: its decoder {type(decoder).__name__} has no list of layers",
            expected=" or ".join(f"`.{layers}`" for layers in LAYERS),
        )
    if not isinstance(lm_head, nn.Linear):
        raise HonesError(f"{name}: no linear output embeddings", expected="an lm_head")
    layers = tuple(_layer(block, f"{name} layer {i}") for i, block in enumerate(blocks))
    heads = int(model.config.get_text_config().num_attention_heads)
    width, inner = sizes(layers[0].o_proj)
    if width != lm_head.in_features:
        raise HonesError(
            f"{name}: its layers have width {width}, its lm_head reads {lm_head.in_features}",
            expected="one width, no projection between them (as OPT-350M has)",
        )
    neurons = layers[0].neurons
    if any(layer.experts is not None for layer in layers):
        neurons = max(layer.neurons for layer in layers)
        layers = tuple(replace(layer, absent=neurons - layer.neurons) for layer in layers)
    anatomy = Anatomy(
        decoder=decoder,
        layers=layers,
        lm_head=lm_head,
        heads=heads,
        head_dim=inner // heads,
        neurons=neurons,
        width=width,
        norm=_norm_of(decoder),
    )
    for i, layer in enumerate(layers):
        _check_shapes(layer, anatomy, f"{name} layer {i}")
    return anatomy


def _layer(block: nn.Module, where: str) -> Layer:
    attention, o_proj = _site(block, ATTENTIONS, OUT_PROJECTIONS, where)
    ffn, down_proj = find_mixture(block, where) or _site(block, FFNS, DOWN_PROJECTIONS, where)
    activation = _first(ffn, ACTIVATIONS)
    return Layer(
        block=block,
        attention=attention,
        mlp=down_proj if ffn is block else ffn,
        o_proj=o_proj,
        down_proj=down_proj,
        post_norm=_first(block, POST_NORMS),
        gate=_first(block, GATES),
        activation=activation if isinstance(activation, nn.Module) else None,
    )


def _first(module: nn.Module, names: tuple[str, ...]) -> Any:
    """The first of these attributes that the module has."""
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _site(
    block: nn.Module, owners: tuple[str, ...], names: tuple[str, ...], where: str
) -> tuple[nn.Module, Projection]:
    """The first of these projections of the first of these parts that the layer has, and that part."""
    owner = next((owner for owner in owners if not owner or hasattr(block, owner)), None)
    if owner is None:
        raise HonesError(f"{where}: none of {', '.join(owners)}", expected="a decoder layer with that part")
    part = block.get_submodule(owner)
    paths = {name: f"{owner}.{name}".lstrip(".") for name in names}
    for name, path in paths.items():
        module = getattr(part, name, None)
        if isinstance(module, nn.Linear | Conv1D):
            return part, module
        if module is not None:
            kind = f"{type(module).__module__}.{type(module).__name__}"
            raise HonesError(f"{where}: {path} is a {kind}", expected="a torch.nn.Linear or a class of it")
    raise HonesError(f"{where}: none of {', '.join(paths.values())}", expected="a decoder layer with that projection")


def _check_shapes(layer: Layer, anatomy: Anatomy, where: str) -> None:
    (width, inner), (out, neurons) = sizes(layer.o_proj), sizes(layer.down_proj)
    neurons += layer.absent
    mapped = f"{inner} -> {width} and {neurons} -> {out}"
    of_heads = anatomy.heads * anatomy.head_dim
    expected = f"{of_heads} -> {anatomy.width} and {anatomy.neurons} -> {anatomy.width}"
    if mapped != expected:
        raise HonesError(f"{where}: o_proj and down_proj map {mapped}", expected=f"{expected} ({anatomy.heads} heads)")
