"""Finding a model's heads and neurons.

Only the language model's layers count: a vision tower often has modules of the same names. Sites are data: a layer's
attention and FFN each have one output projection; of the names that families give to such a part, the first that is
there is taken. So is what stands between down_proj and the residual in some families: a norm, a gate, a number.

How many heads attention has is what the configuration says; how many another mixer of positions has, what it says
itself, if so many of the width that it says are what enters its output projection; one that says nothing has none.
"""

from dataclasses import replace
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hones.errors import HonesError
from hones.models.anatomy import ACTIVATIONS, Anatomy, Layer, Projection, is_norm, sizes
from hones.models.finding_mixtures import find_mixture

INNER = ("model", "decoder", "transformer")  # what has the layers, where get_decoder gives what is around it
LAYERS = ("layers", "h", "blocks")
ATTENTIONS = ("self_attn", "cross_attn", "self_attention", "attention", "attn.attention", "attn")
MIXERS = ("linear_attn", "mamba", "conv", "temporal_block")  # in the place of attention: they keep a state
DECAY = "A_log"  # of a state; also of one that a mixer under attention's name keeps (Kimi Linear)
OUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "Wo", "linear_out")
HEADS = ("num_v_heads", "num_heads", "n_mamba_heads", "num_attention_heads")
HEAD_WIDTHS = ("head_v_dim", "head_dim", "mamba_head_dim")
FFNS = ("mlp", "ffn", "feed_forward", "mlp_block", "shared_mlp", "")  # "": the layer holds its FFN's parts itself
DOWN_PROJECTIONS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "Wo", "w2", "output_linear")
POST_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2", "post_ffn_norm")
FACTORS = ("residual_multiplier", "layer_scalar")
GATES = ("cross_attn_mlp_gate",)
UNCOUNTED = ("experts",)  # of the layer itself, beside its FFN (Gemma 4)
BRANCHES = ("post_per_layer_input_norm",)

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
        and len(blocks) == len(anatomy.layers)
        and all(
            x.heads == (_own_heads(x.attention, x.o_proj, "a layer") if x.keeps_state else _attention_heads(model, i))
            for i, x in enumerate(anatomy.layers)
        )
        and all(layer.is_within(block) for layer, block in zip(anatomy.layers, blocks, strict=True))
    )


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The part of a model that has the layers; what `get_decoder` gives where none has."""
    found = model.get_decoder()
    for outer in (found, model.base_model):  # ModernBERT calls its output embeddings a decoder
        within: nn.Module | None = outer
        while isinstance(within, nn.Module):
            if blocks_of(within) is not None:
                return within
            within = _first(within, INNER)
    return found


def blocks_of(decoder: nn.Module) -> nn.ModuleList | None:
    """The decoder's layers."""
    blocks = _first(decoder, LAYERS)
    return blocks if isinstance(blocks, nn.ModuleList) and len(blocks) > 0 else None


def _norm_of(decoder: nn.Module) -> nn.Module | None:
    return next((module for module in reversed([*decoder.children()]) if is_norm(module)), None)


def _attention_heads(model: PreTrainedModel, layer: int) -> int:
    """How many heads a layer's attention has, by the configuration, which may be another one for each layer."""
    config = model.config.get_text_config()
    of_layer = config.per_layer_config[layer] if getattr(config, "is_heterogeneous", False) else config
    return int(of_layer.num_attention_heads)


def _locate(model: PreTrainedModel) -> Anatomy:
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise HonesError(f"{name}: an encoder and a decoder", expected="a decoder alone, which reads prompt and answer")
    generation = getattr(model, "generation_config_class", GenerationConfig)
    if generation is not GenerationConfig:
        raise HonesError(
            f"{name}: it generates in a way of its own ({generation.__name__})",
            expected="a model that writes one token after another",
        )
    decoder = decoder_of(model)
    blocks = blocks_of(decoder)
    lm_head = model.get_output_embeddings()
    if blocks is None:
        raise HonesError(
            f"{name}: its decoder {type(decoder).__name__} has no list of layers",
            expected=" or ".join(f"`.{layers}`" for layers in LAYERS),
        )
    if not isinstance(lm_head, nn.Linear):
        raise HonesError(f"{name}: no linear output embeddings", expected="an lm_head")
    for beside, module in decoder.named_children():
        if module is not blocks and isinstance(module, nn.ModuleList) and any(map(_has_both, module)):
            raise HonesError(
                f"{name}: its decoder has further layers in {beside}, whose heads and neurons would be missed",
                expected="all its layers in one list",
            )
    layers = tuple(_layer(block, model, i) for i, block in enumerate(blocks))
    width, _ = sizes(layers[0].o_proj)
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
        heads=max(layer.heads for layer in layers),
        head_dim=max(layer.head_dim for layer in layers),
        neurons=neurons,
        width=width,
        norm=_norm_of(decoder),
    )
    for i, layer in enumerate(layers):
        _check_shapes(layer, anatomy, f"{name} layer {i}")
    return anatomy


def _layer(block: nn.Module, model: PreTrainedModel, number: int) -> Layer:
    where = f"{type(model).__name__} layer {number}"
    attention, o_proj = _site(block, (*ATTENTIONS, *MIXERS), OUT_PROJECTIONS, where)
    beside = next((name for name in MIXERS if _has(block, name) and block.get_submodule(name) is not attention), None)
    if beside is not None:
        raise HonesError(f"{where}: a {beside} beside its attention", expected="one of them in a layer")
    keeps_state = any(getattr(block, name, None) is attention for name in MIXERS)
    keeps_state = keeps_state or any(name.endswith(DECAY) for name, _ in attention.named_parameters())
    mixture = find_mixture(block, where)
    ffn, down_proj = mixture or _site(block, FFNS, DOWN_PROJECTIONS, where)
    activation = _first(ffn, ACTIVATIONS)
    post_norm = _first(block, POST_NORMS)
    return Layer(
        block=block,
        attention=attention,
        mlp=down_proj if ffn is block or "residual" in signature(ffn.forward).parameters else ffn,
        o_proj=o_proj,
        down_proj=down_proj,
        heads=_own_heads(attention, o_proj, where) if keeps_state else _attention_heads(model, number),
        keeps_state=keeps_state,
        post_norm=post_norm if post_norm is not None and is_norm(post_norm) else None,
        gate=_first(block, GATES),
        factor=1.0 if (factor := _first(block, FACTORS)) is None else factor,
        branch=_first(block, BRANCHES),
        uncounted=None if mixture else _first_named(block, UNCOUNTED),
        activation=activation if isinstance(activation, nn.Module) else None,
    )


def _own_heads(mixer: nn.Module, o_proj: Projection, where: str) -> int:
    """How many heads a layer has that mixes positions otherwise than by attention.

    Raises:
        HonesError: so many heads of the width that it says are not what enters its output projection.
    """
    count, width, inner = _first(mixer, HEADS), _first(mixer, HEAD_WIDTHS), sizes(o_proj)[1]
    if not isinstance(count, int) or not isinstance(width, int):
        return 0
    if count * width != inner:
        reads = f"{inner}, which its output projection reads"
        raise HonesError(f"{where}: {count} heads of width {width}", expected=reads)
    return count


def _first_named(module: nn.Module, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if getattr(module, name, None) is not None), None)


def _first(module: nn.Module, names: tuple[str, ...]) -> Any:
    """The first of these attributes that the module has."""
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _site(
    block: nn.Module, owners: tuple[str, ...], names: tuple[str, ...], where: str
) -> tuple[nn.Module, Projection]:
    """The first of these projections of the first of these parts that the layer has, and that part."""
    owner = next((owner for owner in owners if _has(block, owner)), None)
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


def _has_both(block: nn.Module) -> bool:
    """Whether a module has an attention and an FFN, as a decoder layer has."""
    return all(any(path and _has(block, path) for path in paths) for paths in (ATTENTIONS, FFNS))


def _has(block: nn.Module, path: str) -> bool:
    return not path or any(name == path for name, _ in block.named_modules())


def _check_shapes(layer: Layer, anatomy: Anatomy, where: str) -> None:
    (width, inner), (out, neurons) = sizes(layer.o_proj), sizes(layer.down_proj)
    neurons += layer.absent
    mapped = f"{inner} -> {width} and {neurons} -> {out}"
    of_heads = inner
    # a layer's own width may be larger (Gemma 4); what is not attention was found to fit
    if not layer.keeps_state and layer.heads * (getattr(layer.attention, "head_dim", None) or 0) != inner:
        first = next(x for x in anatomy.layers if not x.keeps_state and x.heads == layer.heads)
        of_heads = first.heads * first.head_dim
    expected = f"{of_heads} -> {anatomy.width} and {anatomy.neurons} -> {anatomy.width}"
    if mapped != expected:
        raise HonesError(f"{where}: o_proj and down_proj map {mapped}", expected=f"{expected} ({layer.heads} heads)")
