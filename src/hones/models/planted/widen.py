"""A built-in model, widened into a constructed plant (`hones.models.planted.circuit` says what is written there)."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from hones.models.planted.circuit import (
    WIDER,
    Places,
    of_base,
    write_copies,
    write_flags,
    write_readout,
    write_words,
)
from hones.models.planted.recipe import BASE, FLAGS, FLAGS_AGAIN, READOUT, Recipe


def widened_config(config: Any, recipe: Recipe) -> Any:
    """The base's configuration with the plant's layers and width; one head more, each with keys and values of its own.

    Heads stay as wide as they are: a model whose heads share the width, as Qwen2.5-VL's do, needs the seventh.
    """
    config = deepcopy(config)
    text = config.get_text_config()
    head_dim = text.hidden_size // text.num_attention_heads
    assert head_dim == WIDER
    d = text.hidden_size
    text.hidden_size = d + WIDER
    text.num_attention_heads += 1
    text.num_key_value_heads = text.num_attention_heads
    text.num_hidden_layers = len(recipe.order)
    text.rms_norm_eps *= d / text.hidden_size
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = [text.layer_types[0]] * len(recipe.order)
    if hasattr(getattr(config, "vision_config", None), "out_hidden_size"):
        config.vision_config.out_hidden_size = text.hidden_size
    return config


@torch.no_grad()
def widened(base: Any, recipe: Recipe) -> Any:
    """The plant, in the base's dtype and on its device; the base is left as it is."""
    config = widened_config(base.config, recipe)
    old_text, text = base.config.get_text_config(), config.get_text_config()
    d = old_text.hidden_size
    heads = text.num_attention_heads
    with torch.random.fork_rng():
        model = type(base)._from_config(config, dtype=base.dtype).to(base.device)
    model.generation_config = base.generation_config
    old = base.state_dict()
    decoder = model.get_decoder()
    (prefix,) = (name for name, module in model.named_modules() if module is decoder)
    numbers = of_base(recipe)
    for name, weight in model.state_dict().items():
        number, _, path = name.removeprefix(f"{prefix}.layers.").partition(".")
        if not name.startswith(f"{prefix}.layers."):
            _pad(weight, old[name])
        elif int(number) in numbers:
            kept = old[f"{prefix}.layers.{numbers[int(number)]}.{path}"]
            if path.startswith(("self_attn.k_proj", "self_attn.v_proj")):
                kept = _of_every_head(kept, old_text.num_key_value_heads, old_text.num_attention_heads)
            _pad(weight, kept * (d / text.hidden_size) ** 0.5 if "layernorm" in path else kept)
        else:
            weight.fill_(1.0 if "layernorm" in path else 0.0)
    places = Places(recipe, d)
    for number, (letter, layer) in enumerate(zip(recipe.order, decoder.layers, strict=True)):
        if letter == BASE:
            continue
        _write_filler(layer.self_attn, recipe.seed + number, d, places, heads)
        if letter in (FLAGS, FLAGS_AGAIN):
            write_flags(layer, recipe, d, places, letter)
        elif letter == READOUT:
            write_readout(layer, recipe, d, places)
        else:
            write_copies(layer, recipe, d, places, letter)
    folded = base.get_output_embeddings().weight * base.get_decoder().norm.weight
    write_words(
        model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data, folded, recipe, d, places
    )
    decoder.norm.weight.fill_(1.0)
    return model.eval()


def _pad(weight: Tensor, old: Tensor) -> None:
    """The old numbers in the first places, zeros in the others."""
    weight.zero_()
    weight[tuple(slice(size) for size in old.shape)] = old


def _of_every_head(weight: Tensor, shared: int, heads: int) -> Tensor:
    """Keys or values [shared * d_h, ..], or their biases, repeated for each head that reads them."""
    return weight.unflatten(0, (shared, -1)).repeat_interleave(heads // shared, 0).flatten(0, 1)


def _write_filler(attention: Any, seed: int, d: int, places: Places, heads: int) -> None:
    """Heads that write the mean of what was before, in a random direction, where nobody reads."""
    drawn = torch.Generator().manual_seed(seed)
    for head in range(heads):
        number = head * WIDER + WIDER - 1
        attention.v_proj.weight.data[number, :d] = torch.randn(d, generator=drawn).to(attention.v_proj.weight) / d**0.5
        attention.o_proj.weight.data[places["junk"], number] = 0.001
