"""One small random model of each family of text-only models, in the family's on-disk format."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from family_files import Words
from random_models import fill_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_text(folder: Path, family: str, *, template: bool = True, pads: bool = True, **more: Any) -> Path:
    """A causal language model with random weights and a tokenizer that puts a start token before every text.

    template: with a chat template, which writes that token too, as those of the hub do. pads: with a padding token.
    """
    words = Words({})
    settings = words.text(family, **more)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    fill_weights(model)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = words["</s>"]
    model.generation_config.pad_token_id = words["<pad>"]
    model.save_pretrained(folder)
    if not pads:
        words.tokenizer.pad_token = None
    words.save(folder, CHAT if template else None)
    return folder


MIXTURE: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
LATENT = {
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    **MIXTURE,
}
TEXT_REMARKS = {
    "Llama": "tiny model without a chat template: the prompt as it is",
    "Phi-3": "gate and up in one projection",
    "OLMo 2": "norm after down_proj: the true write-in through it",
    "Cohere 2": "attention and FFN side by side; logits are scaled behind lm_head",
    "Granite": "a factor after down_proj: the true write-in with it; logits are scaled behind lm_head",
    "Gemma 2": "norm after down_proj: the true write-in through it; logits are capped behind lm_head",
    "Gemma 3": "norm after down_proj: the true write-in through it",
    "GPT-2": "weights kept transposed (Conv1D), learned positions",
    "OPT": "learned positions; the layer holds its FFN itself; OPT-350M (projections around its layers) is refused",
    "Falcon": "attention and FFN side by side, keys of one head; attention of its own, so no `relp` and `gim`",
    "Falcon-RW": "ALiBi; attention of its own, so no `relp` and `gim`",
    "Phi": "attention and FFN side by side; lm_head has a bias",
    "GPT-NeoX": "Pythia; attention and FFN side by side",
    "Qwen2-MoE": "a shared expert behind a gate",
    "Granite-MoE": "a factor after its mixture, so no write-in; logits are scaled behind lm_head",
    "ERNIE 4.5 MoE": "a shared expert",
    "GLM-4.5": "a shared expert; the first layer is dense",
    "DeepSeek-V2": "shared experts; the first layer is dense; latent attention",
    "DeepSeek-V3": "shared experts; the first layers are dense; latent attention",
    "Gemma 4 with experts": "its text part; experts beside a dense FFN, norms behind each and behind their sum",
    "Llama 4": "its text part; the router weighs what enters an expert; a shared expert",
}

TEXT_FAMILIES: dict[str, Callable[[Path], Path]] = {
    "Llama": partial(save_text, family="llama", head_dim=8, template=False, pads=False),
    "Mistral": partial(save_text, family="mistral", head_dim=8, sliding_window=12),
    "Qwen2": partial(save_text, family="qwen2"),
    "Qwen3": partial(save_text, family="qwen3", head_dim=8),
    "Phi-3": partial(save_text, family="phi3"),
    "OLMo 2": partial(save_text, family="olmo2"),
    "Cohere 2": partial(save_text, family="cohere2", head_dim=8, sliding_window=12),
    "Granite": partial(save_text, family="granite", logits_scaling=4.0, residual_multiplier=0.5),
    "Gemma": partial(save_text, family="gemma", head_dim=8),
    "Gemma 2": partial(
        save_text, family="gemma2", head_dim=8, query_pre_attn_scalar=8, sliding_window=12, final_logit_softcapping=5.0
    ),
    "Gemma 3": partial(save_text, family="gemma3_text", head_dim=8, query_pre_attn_scalar=8, sliding_window=12),
    "GPT-2": partial(save_text, family="gpt2", n_inner=24),
    "OPT": partial(save_text, family="opt", ffn_dim=24, word_embed_proj_dim=32),
    "Falcon": partial(save_text, family="falcon", ffn_hidden_size=24),
    "Falcon-RW": partial(
        save_text, family="falcon", ffn_hidden_size=24, alibi=True, multi_query=False, parallel_attn=False, bias=True
    ),
    "Phi": partial(save_text, family="phi"),
    "StarCoder2": partial(save_text, family="starcoder2", sliding_window=12),
    "GPT-NeoX": partial(save_text, family="gpt_neox"),
    "Mixtral": partial(save_text, family="mixtral", num_local_experts=4),
    "Qwen2-MoE": partial(
        save_text,
        family="qwen2_moe",
        num_experts=4,
        shared_expert_intermediate_size=20,
        norm_topk_prob=False,
        **MIXTURE,
    ),
    "Qwen3-MoE": partial(save_text, family="qwen3_moe", num_experts=4, norm_topk_prob=True, head_dim=8, **MIXTURE),
    "OLMoE": partial(save_text, family="olmoe", num_experts=4, num_local_experts=4, num_experts_per_tok=2),
    "Phi-3.5-MoE": partial(save_text, family="phimoe", num_local_experts=4),
    "Granite-MoE": partial(
        save_text,
        family="granitemoe",
        num_local_experts=4,
        num_experts_per_tok=2,
        logits_scaling=4.0,
        residual_multiplier=0.5,
    ),
    "ERNIE 4.5 MoE": partial(
        save_text,
        family="ernie4_5_moe",
        moe_num_experts=4,
        moe_k=2,
        moe_intermediate_size=12,
        moe_num_shared_experts=1,
        moe_layer_start_index=0,
        moe_layer_interval=1,
        moe_layer_end_index=2,
    ),
    "GLM-4.5": partial(
        save_text,
        family="glm4_moe",
        n_routed_experts=4,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
        head_dim=8,
        **MIXTURE,
    ),
    "DeepSeek-V2": partial(save_text, family="deepseek_v2", q_lora_rank=None, topk_method="greedy", **LATENT),
    "DeepSeek-V3": partial(save_text, family="deepseek_v3", q_lora_rank=8, **LATENT),
    "Gemma 4 with experts": partial(
        save_text,
        family="gemma4_text",
        enable_moe_block=True,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=12,
        head_dim=8,
        global_head_dim=8,
        hidden_size_per_layer_input=0,
        sliding_window=24,
    ),
    "Llama 4": partial(
        save_text,
        family="llama4_text",
        num_local_experts=4,
        num_experts_per_tok=2,
        head_dim=8,
        intermediate_size=12,
        interleave_moe_layer_step=1,
    ),
}
OTHER_SHAPES = ("GPT-2", "OPT", "Falcon", "Falcon-RW", "Phi", "StarCoder2", "GPT-NeoX")
"""Those without a gate, with biases and layer norms, and with other names than o_proj and down_proj."""
MIXTURES = ("Mixtral", "Qwen2-MoE", "Qwen3-MoE", "OLMoE", "Llama 4")
"""Those with a router, whose z the tests of mixtures make by hand."""
