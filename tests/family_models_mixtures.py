"""Builders of vision-language families whose FFNs are mixtures of experts: four of them in every layer, two chosen."""

from pathlib import Path

from family_models_apart import save_glm4v
from random_models import save_random_qwen3_vl
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}


def save_qwen3_vl_moe(folder: Path) -> Path:
    return save_random_qwen3_vl(folder, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, num_experts=4, **ROUTED)


def save_glm4v_moe(folder: Path) -> Path:
    """A shared expert; the first layer is dense."""
    shared = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
    return save_glm4v(folder, "glm4v_moe", first_k_dense_replace=1, head_dim=8, **shared, **ROUTED)
