"""Where a model's heads and neurons are.

For each decoder layer l: `o_proj`, whose input is [.., H * d_h] (head h owns the slice h * d_h : (h + 1) * d_h), and
`down_proj`, whose input is z [.., I]. Only the language model's layers count: a vision tower often has modules of the
same names. Sites are data: paths below a decoder layer, the first that exists is taken. So is what stands between
down_proj and the residual in some families, a norm or a gate.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from hones.errors import HonesError

OUT_PROJECTIONS = ("self_attn.o_proj", "cross_attn.o_proj")
DOWN_PROJECTIONS = ("mlp.down_proj",)
POST_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm")
GATES = ("cross_attn_mlp_gate",)
ACTIVATIONS = ("act_fn", "activation_fn")


@dataclass(frozen=True)
class Layer:
    """One decoder layer: the two projections whose inputs are edited, and the modules that they belong to.

    post_norm: a norm between down_proj and the residual; gate: what the FFN's output is multiplied by, its tanh.
    activation: the FFN's activation function, where it is a module.
    """

    block: nn.Module
    attention: nn.Module
    mlp: nn.Module
    o_proj: nn.Linear
    down_proj: nn.Linear
    post_norm: nn.Module | None = None
    gate: nn.Parameter | None = None
    activation: nn.Module | None = None

    def is_within(self, block: nn.Module) -> bool:
        """Whether these still are the modules of a decoder layer."""
        within = {*block.children(), *self.attention.children(), *self.mlp.children()}
        named = (self.attention, self.mlp, self.o_proj, self.down_proj, self.post_norm, self.activation)
        same = all(module is None or module in within for module in named)
        return block is self.block and same and (self.gate is None or any(p is self.gate for p in block.parameters()))


@dataclass(frozen=True)
class Anatomy:
    """A model's layers and shapes: L layers, H heads of width d_h, I neurons, residual width d."""

    decoder: nn.Module
    layers: tuple[Layer, ...]
    lm_head: nn.Linear
    heads: int
    head_dim: int
    neurons: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, H, I)."""
        return len(self.layers), self.heads, self.neurons

    @property
    def total_neurons(self) -> int:
        return len(self.layers) * self.neurons

    def check_head(self, layer: int, head: int) -> None:
        """Raises HonesError unless the model has this head."""
        self._check("head", layer, head, self.heads)

    def check_neuron(self, layer: int, neuron: int) -> None:
        """Raises HonesError unless the model has this neuron."""
        self._check("neuron", layer, neuron, self.neurons)

    def _check(self, what: str, layer: int, index: int, count: int) -> None:
        if not (0 <= layer < len(self.layers) and 0 <= index < count):
            raise HonesError(
                f"no {what} ({layer}, {index})",
                expected=f"layer < {len(self.layers)} and {what} < {count}",
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
    blocks = getattr(anatomy.decoder, "layers", ())
    return (
        model.get_decoder() is anatomy.decoder
        and model.get_output_embeddings() is anatomy.lm_head
        and model.config.get_text_config().num_attention_heads == anatomy.heads
        and len(blocks) == len(anatomy.layers)
        and all(layer.is_within(block) for layer, block in zip(anatomy.layers, blocks, strict=True))
    )


def _locate(model: PreTrainedModel) -> Anatomy:
    decoder = model.get_decoder()
    blocks = getattr(decoder, "layers", None)
    lm_head = model.get_output_embeddings()
    name = type(model).__name__
    if not isinstance(blocks, nn.ModuleList) or len(blocks) == 0:
        raise HonesError(f"{name}: its decoder {type(decoder).__name__} has no list of layers", expected="`.layers`")
    if not isinstance(lm_head, nn.Linear):
        raise HonesError(f"{name}: no linear output embeddings", expected="an lm_head")
    layers = tuple(_layer(block, f"{name} layer {i}") for i, block in enumerate(blocks))
    first = layers[0]
    heads = int(model.config.get_text_config().num_attention_heads)
    anatomy = Anatomy(
        decoder=decoder,
        layers=layers,
        lm_head=lm_head,
        heads=heads,
        head_dim=first.o_proj.in_features // heads,
        neurons=first.down_proj.in_features,
        width=lm_head.in_features,
    )
    for i, layer in enumerate(layers):
        _check_shapes(layer, anatomy, f"{name} layer {i}")
    return anatomy


def _layer(block: nn.Module, where: str) -> Layer:
    attention, o_proj = _site(block, OUT_PROJECTIONS, where)
    mlp, down_proj = _site(block, DOWN_PROJECTIONS, where)
    activation = _first(mlp, ACTIVATIONS)
    return Layer(
        block=block,
        attention=attention,
        mlp=mlp,
        o_proj=o_proj,
        down_proj=down_proj,
        post_norm=_first(block, POST_NORMS),
        gate=_first(block, GATES),
        activation=activation if isinstance(activation, nn.Module) else None,
    )


def _first(module: nn.Module, names: tuple[str, ...]) -> Any:
    """The first of these attributes that the module has."""
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _site(block: nn.Module, paths: tuple[str, ...], where: str) -> tuple[nn.Module, nn.Linear]:
    """The projection at the first path that exists, and the module that owns it."""
    for path in paths:
        try:
            module = block.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(module, nn.Linear):
            return block.get_submodule(path.rpartition(".")[0]), module
        kind = f"{type(module).__module__}.{type(module).__name__}"
        raise HonesError(f"{where}: {path} is a {kind}", expected="a torch.nn.Linear or a class of it")
    raise HonesError(f"{where}: none of {', '.join(paths)}", expected="a decoder layer with that projection")


def _check_shapes(layer: Layer, anatomy: Anatomy, where: str) -> None:
    o_proj = layer.o_proj
    down_proj = layer.down_proj
    mapped = f"{o_proj.in_features} -> {o_proj.out_features} and {down_proj.in_features} -> {down_proj.out_features}"
    inner = anatomy.heads * anatomy.head_dim
    expected = f"{inner} -> {anatomy.width} and {anatomy.neurons} -> {anatomy.width}"
    if mapped != expected:
        raise HonesError(f"{where}: o_proj and down_proj map {mapped}", expected=f"{expected} ({anatomy.heads} heads)")
