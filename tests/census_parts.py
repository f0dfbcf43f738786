"""Parts of `census_settings`: what several families share, and what a vocabulary decides."""

from typing import Any

from census_files import CensusWords

QWEN_PICTURES = "Qwen2VLImageProcessorPil"
TURNED = {"rope_type": "default", "rope_theta": 10000.0}
MROPE = {"rope_parameters": {**TURNED, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}}
GLM = {"text_config": MROPE, "vision_config": {"depth": 2}}
GLM_PICTURE = "<|begin_of_image|><|image|><|end_of_image|>"
GLM_MARKS = ("<|begin_of_image|>", "<|end_of_image|>")
SMALL_VQ = {
    "embed_dim": 4,
    "num_embeddings": 8,
    "latent_channels": 4,
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
}
MINIMAX = tuple(f"]<]{mark}[>[" for mark in ("image", "video", "start of image", "end of image"))
DOTS_SLIDING = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "head_dim": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
ERNIE = {
    "text_config": {
        "rope_parameters": {**TURNED, "mrope_section": [1, 1, 2]},
        "moe_intermediate_size": [24, 12],
    }
}
STEP = {
    "sliding_window": 24,
    "share_expert_dim": 24,
    "moe_router_scaling_factor": 3.0,
    "swiglu_limits": [0.0, 0.0, 0.5],
}
FASTVIT = {
    "hidden_size": 64,
    "model_args": {"inference_mode": True, "layers": [1] * 5, "embed_dims": [8, 8, 8, 32, 32]},
}
PE = {
    "architecture": "vit_pe_core_tiny_patch16_384",
    "do_pooling": False,
    "model_args": {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": [32, 32], "patch_size": 8},
}
CODES = {f"IMGIMG{chr(65 + code)}Z": code for code in range(8)}
VISUAL = tuple(f"<|visual token {code:06d}|>" for code in range(8))


def chameleon(words: CensusWords) -> dict[str, Any]:
    names = ("<image>", *CODES)
    return {"vq_config": SMALL_VQ | {"resolution": 32}, "vocabulary_map": {name: words[name] for name in names}}


def emu3(words: CensusWords) -> dict[str, Any]:
    names = ("<|extra_200|>", *VISUAL)
    vq = SMALL_VQ | {"channel_multiplier": [1] * 4, "codebook_size": 8, "hidden_size": 32, "num_attention_heads": 1}
    vocabulary = {name: words[name] for name in names} | {"<image>": words["<|image|>"]}
    return {"vq_config": vq, "vocabulary_map": vocabulary}


def ovis2(words: CensusWords) -> dict[str, Any]:
    indicators = ("<IMG_START>", "<IMG_END>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>")
    return {"image_token_id": words["<IMG_ATOM>"], "visual_indicator_token_ids": [words[mark] for mark in indicators]}


def chart(words: CensusWords) -> dict[str, Any]:
    return {"image_token_index": words["<imgpad>"], "vision_config": {"image_size": 64}}


def omni(words: CensusWords) -> dict[str, Any]:
    return {"text_config": MROPE, "vision_start_token_id": words["<|vision_bos|>"]}
