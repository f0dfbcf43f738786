"""A family's configuration made small by rule: what a setting is called says what it becomes.

A class's own defaults are taken, every number that is a width, a depth or a count is replaced by a small one, and what
follows of the others is made to fit (kinds of layers, sections of rotary positions, layers that are named by number).
Text parts have the shape of `family_files.SHAPE`: three layers, width 32, 4 heads of width 8, 24 neurons.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import transformers

LAYERS = 3
WIDTH = 32
HEADS = 4
HEAD = 8
SIDE = 32
PATCH = 8

Small = Callable[[Any, "Part"], Any]


class Part:
    """Whose settings these are: the text model's, or another part's."""

    def __init__(self, text: bool, tokens: int) -> None:
        self.text = text
        self.tokens = tokens
        self.width = WIDTH if text else 16
        self.layers = LAYERS if text else 2
        self.heads = HEADS if text else 2


def _same(value: Any, number: int) -> Any:
    """A number, or as many as there were."""
    return [number] * len(value) if isinstance(value, list | tuple) else number


RULES: tuple[tuple[str, Small], ...] = (
    (r"(out|text|lm|llm|language|output|llm_input|text_embed)_hidden_(size|dim)", lambda v, p: WIDTH),
    (r"vocab_size|vocab_size_per_layer_input|text_vocab_size|\w+_vocab_size", lambda v, p: p.tokens),
    (r"moe_intermediate_size|\w*shared_expert\w*_size|expert_hidden_size", lambda v, p: _same(v, 24)),
    (r"(n|num)_routed_experts|num_experts|num_local_experts|moe_num_experts|n_experts", lambda v, p: _same(v, 4)),
    (r"num_experts_per_tok|moe_topk|moe_k|top_k_experts|num_selected_experts", lambda v, p: 2),
    (r"n_group|topk_group|n_shared_experts|num_shared_experts|moe_num_shared_experts", lambda v, p: 1),
    (r"linear_num_key_heads", lambda v, p: 3),
    (r"linear_num_value_heads|linear_num_heads", lambda v, p: 6),
    (r"linear_value_head_dim", lambda v, p: 2 * HEAD),
    (r"linear_(key_)?head_dim|mamba_d_head|mamba_head_?dim", lambda v, p: HEAD),
    (r"mamba_n_heads|n_mamba_heads|mamba_num_heads", lambda v, p: 2 * WIDTH // HEAD),
    (r"mamba_d_state|ssm_state_size|state_size", lambda v, p: 16),
    (r"mamba_n_groups|n_groups", lambda v, p: 1),
    (r"mamba_d_ssm", lambda v, p: 2 * WIDTH),
    (r"lru_width", lambda v, p: WIDTH),
    (r"q_lora_rank|kv_lora_rank|o_lora_rank", lambda v, p: 16),
    (r"qk_nope_head_dim|qk_rope_head_dim|v_head_dim|(global_|qk_|key_|value_)?head_dim|head_width", lambda v, p: HEAD),
    (r"hidden_size_per_layer_input", lambda v, p: 8),
    (
        r"(\w+_)?hidden_size|d_model|n_embd|embed_dim|embedding_size|hidden_dim|width|word_embed_proj_dim|dim",
        lambda v, p: _same(v, p.width),
    ),
    (r"projection_dim|projector_dim|\w+_output_dim", lambda v, p: p.width),
    (
        r"(\w+_)?intermediate_size|(\w+_)?ffn_(hidden_)?(size|dim)|mlp_dim|n_inner|d_ff|inner_dim|ffn_hidden_size",
        lambda v, p: _same(v, 24),
    ),
    (
        r"num_hidden_layers|n_layers?|num_layers|depth|n_blocks|encoder_layers|decoder_layers|num_blocks",
        lambda v, p: p.layers,
    ),
    (
        r"num_global_layers|num_kv_shared_layers|num_nextn_predict_layers|mtp_num_hidden_layers|first_k_dense_replace",
        lambda v, p: min(v, 0 if p.text else 1),
    ),
    (
        r"(num_)?(global_)?(key_value_heads|kv_heads)|\w*num_key_value_heads|n_head_kv|num_kv_heads",
        lambda v, p: _same(v, 2),
    ),
    (
        r"(num_)?(\w*attention_)?heads|n_heads?|num_heads|encoder_attention_heads|decoder_attention_heads|n_heads",
        lambda v, p: _same(v, p.heads),
    ),
    (r"max_position_embeddings|n_positions|max_sequence_length|max_window_layers|n_ctx", lambda v, p: 1024),
    (r"original_max_position_embeddings", lambda v, p: 1024),
    (r"(force_)?image_size|img_size|input_size", lambda v, p: _same(v, SIDE)),
    (r"(spatial_)?patch_size", lambda v, p: _same(v, PATCH)),
    (r"sliding_window|attention_chunk_size|sliding_window_size|local_window_size", lambda v, p: 24),
    (r"rotary_dim", lambda v, p: HEAD),
    (r"query_pre_attn_scalar", lambda v, p: HEAD),
    (r"cross_attention_layers|no_rope_layers", lambda v, p: v[: p.layers] if v and max(v) <= 1 else [1]),
    (
        r"deepstack_visual_indexes|fullatt_block_indexes|full_attn_layer_indexes|\w*layers_indices|global_attn_indexes",
        lambda v, p: [*range(p.layers)][-len(v) :] if v else v,
    ),
    (r"window_size|fullatt_window", lambda v, p: _same(v, SIDE)),
    (r"image_grid_pinpoints", lambda v, p: [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]),
    (r"num_position_embeddings", lambda v, p: (SIDE // PATCH) ** 2),
    (r"num_query_tokens|query_length|num_queries|resampler_n_latents|num_latents", lambda v, p: 4),
    (r"mm_tokens_per_image|vision_soft_tokens_per_image", lambda v, p: 4),
    (r"image_seq_length|image_seq_len|num_image_tokens|max_num_tiles", lambda v, p: 16),
)
"""By a setting's whole name, the first that matches."""


UNSET = {"head_dim": HEAD, "num_key_value_heads": HEADS, "num_experts_per_tok": 2}
"""What some classes leave open and then read."""


def small_config(model_type: str, tokens: int, more: Mapping[str, Any] | None = None) -> Any:
    """The configuration of a family, small.

    Args:
        tokens: of the vocabulary. more: settings that no rule gives, nested as in config.json; None takes one out.
    """
    more = more or {}
    plain = transformers.AutoConfig.for_model(model_type).to_dict()
    for name, part in more.items():
        if isinstance(part, Mapping) and "model_type" in part and plain.get(name) is None:
            plain[name] = transformers.AutoConfig.for_model(part["model_type"]).to_dict()
    return made_of(model_type, merged(_small(plain, tokens, None), more))


def made_of(model_type: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of these settings."""
    given = {k: v for k, v in settings.items() if k not in ("model_type", "transformers_version", "architectures")}
    return transformers.AutoConfig.for_model(model_type, **given)


def merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others in their place; a part's are merged into that part's, None takes a setting out."""
    found = dict(settings)
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(found.get(name), Mapping):
            found[name] = merged(found[name], value)
        else:
            found[name] = value
    return found


def _small(settings: Mapping[str, Any], tokens: int, name: str | None) -> dict[str, Any]:
    """One part and those within it."""
    others = [key for key in settings if isinstance(settings[key], Mapping) and "model_type" in settings[key]]
    text = "text" in name or name in ("decoder", "llm_config") if name is not None else True
    part = Part(text, tokens)
    found = {}
    for key, value in settings.items():
        found[key] = _small(value, tokens, key) if key in others else _of_rule(key, value, part)
    return _fitting(found, part)


def _of_rule(name: str, value: Any, part: Part) -> Any:
    if value is None and part.text and name in UNSET:
        return UNSET[name]
    if value is None or isinstance(value, bool | str):
        return value
    rule = next((small for pattern, small in RULES if re.fullmatch(pattern, name)), None)
    return value if rule is None else rule(value, part)


def _fitting(settings: dict[str, Any], part: Part) -> dict[str, Any]:
    """What follows of what was made small."""
    former = settings.get("layer_types")
    if isinstance(former, list) and former:
        settings["layer_types"] = _kinds(former, part.layers)
        for name in ("num_hidden_layers", "n_layer"):
            if name in settings:
                settings[name] = len(settings["layer_types"])
    for name in ("mlp_layer_types", "layers_block_type", "mlp_types"):
        if isinstance(settings.get(name), list) and settings[name]:
            settings[name] = _kinds(settings[name], part.layers)
    if isinstance(settings.get("per_layer_config"), dict):  # other shapes of some layers, by number
        settings["per_layer_config"] = _of_layers(settings, former, part) if former else None
    if isinstance(settings.get("pad_token_id"), int):
        settings["pad_token_id"] = 0
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(settings.get(name), dict):
            settings[name] = _rope(settings[name])
    return settings


def _kinds(former: list[str], count: int) -> list[str]:
    """The kinds of the last layers, of as many as it takes to have each."""
    last = former[-count:]
    absent = [kind for kind in dict.fromkeys(former) if kind not in last]
    return [*absent, *last[len(absent) :]]


def _of_layers(settings: Mapping[str, Any], former: list[str], part: Part) -> dict[int, Any]:
    """The other shapes of the layers of some kinds: where their heads are wider, twice as wide."""
    by_kind = {former[int(number)]: shape for number, shape in settings["per_layer_config"].items()}
    found = {}
    for number, kind in enumerate(settings["layer_types"]):
        if kind in by_kind:
            small = {key: _of_rule(key, value, part) for key, value in by_kind[kind].items()}
            found[number] = {key: 2 * HEAD if key.endswith("head_dim") else value for key, value in small.items()}
    return found


def _rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Of heads of width 8: sections of three axes, if there are any, for half of what is turned."""
    if any(isinstance(inner, Mapping) for inner in rope.values()):
        return {kind: _rope(inner) if isinstance(inner, Mapping) else inner for kind, inner in rope.items()}
    found = dict(rope)
    if found.get("mrope_section"):
        half = int(HEAD * (found.get("partial_rotary_factor") or 1)) // 2
        count = len(found["mrope_section"])
        found["mrope_section"] = [half - (count - 1) * max(1, half // count), *[max(1, half // count)] * (count - 1)]
    return found
