"""Builders of vision-language families whose FFNs are mixtures of experts."""

from functools import partial

from family_models_apart import save_glm4v
from random_models import save_random_qwen3_vl
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

save_qwen3_vl_moe = partial(
    save_random_qwen3_vl,
    config_class=Qwen3VLMoeConfig,
    model_class=Qwen3VLMoeForConditionalGeneration,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
)
save_glm4v_moe = partial(
    save_glm4v,
    family="glm4v_moe",
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
    n_shared_experts=1,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=0,
    head_dim=8,
)
