"""One small random model of each family, in the family's on-disk format, by name; and what is worth knowing of it.

Families whose image processors need torchvision: `by_hand_models`. Text-only ones: `text_models`.
"""

from collections.abc import Callable
from pathlib import Path

from family_models_apart import save_aya_vision, save_gemma3, save_glm4v, save_mllama, save_paligemma
from family_models_mixtures import save_glm4v_moe, save_qwen3_vl_moe
from family_models_plain import (
    save_idefics3,
    save_janus,
    save_llava_next,
    save_llava_onevision,
    save_mistral3,
    save_pixtral_llava,
    save_smolvlm,
)
from random_models import (
    save_random_internvl,
    save_random_llava,
    save_random_qwen,
    save_random_qwen2_vl,
    save_random_qwen3_vl,
)

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "LLaVA-1.5": save_random_llava,
    "LLaVA-NeXT": save_llava_next,
    "LLaVA-OneVision": save_llava_onevision,
    "Pixtral in LLaVA": save_pixtral_llava,
    "Mistral 3": save_mistral3,
    "Qwen2-VL": save_random_qwen2_vl,
    "Qwen2.5-VL": save_random_qwen,
    "Qwen3-VL": save_random_qwen3_vl,
    "GLM-4V": save_glm4v,
    "InternVL": save_random_internvl,
    "Idefics3": save_idefics3,
    "SmolVLM": save_smolvlm,
    "Janus": save_janus,
    "Aya Vision": save_aya_vision,
    "Gemma 3": save_gemma3,
    "PaliGemma": save_paligemma,
    "Mllama": save_mllama,
    "Qwen3-VL-MoE": save_qwen3_vl_moe,
    "GLM-4V-MoE": save_glm4v_moe,
}

REMARKS = {
    "LLaVA-1.5": "prompts are `USER: <image>\\n...\\nASSISTANT:`",
    "LLaVA-OneVision": "processor without its video part",
    "Pixtral in LLaVA": "processor from parts where torchvision is absent",
    "Mistral 3": "processor from parts where torchvision is absent",
    "Qwen2-VL": "processor without its video part",
    "Qwen2.5-VL": "processor without its video part",
    "Qwen3-VL": "picture features are added between layers",
    "GLM-4V": "norm after down_proj: the true write-in through it",
    "InternVL": "processor without its video part",
    "SmolVLM": "its processor needs the package num2words",
    "Aya Vision": "attention and FFN side by side: a head edit leaves z of its own layer unchanged",
    "Gemma 3": "norm after down_proj: the true write-in through it; picture tokens see each other",
    "PaliGemma": "base model: no chat template, prompts end in a line break; the prompt sees itself",
    "Mllama": "cross-attention layers: heads of cross_attn.o_proj, gated write-in",
    "Qwen3-VL-MoE": "a mixture of experts; picture features are added between layers",
    "GLM-4V-MoE": "GLM-4.5V; a mixture with a shared expert, the first layer is dense",
}
