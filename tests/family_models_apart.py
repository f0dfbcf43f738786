"""Families with other decoders: more after down_proj, parallel blocks, cross-attention, prompts that see themselves."""

from pathlib import Path
from typing import Any

from family_files import PIXELS, SIGLIP_VISION, SQUARE, Words, save


def save_glm4v(folder: Path, family: str = "glm4v", **more: Any) -> Path:
    """Norms after o_proj and down_proj; gate and up in one projection. more: settings of its text model."""
    marks = {"image_token": "<|image|>", "video_token": "<|video|>"}
    words = Words(marks, ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}
    config = {
        "model_type": family,
        "vision_config": {
            "depth": 2,
            "hidden_size": 16,
            "num_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_size": 24,
            "out_hidden_size": 32,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        "text_config": words.text(f"{family}_text", rope_parameters=rope, **more),
        "image_token_id": words["<|image|>"],
        "video_token_id": words["<|video|>"],
        "image_start_token_id": words["<|begin_of_image|>"],
        "image_end_token_id": words["<|end_of_image|>"],
        "video_start_token_id": words["<|begin_of_video|>"],
        "video_end_token_id": words["<|end_of_video|>"],
    }
    return save(
        folder,
        config,
        words,
        picture="<|begin_of_image|><|image|><|end_of_image|>",
        image_processor={
            "image_processor_type": "Glm4vImageProcessor",
            "patch_size": 8,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "size": {"shortest_edge": 9216, "longest_edge": 36864},
            **PIXELS,
        },
        processor={"processor_class": "Glm4vProcessor"},
    )


def save_aya_vision(folder: Path) -> Path:
    """Attention and FFN read the same residual, side by side."""
    marks = {"image_token": "<image>", "start_of_img_token": "<|START_OF_IMG|>", "end_of_img_token": "<|END_OF_IMG|>"}
    marks |= {"img_patch_token": "<|IMG_PATCH|>", "img_line_break_token": "<|IMG_LINE_BREAK|>"}
    marks |= {"tile_token": "TILE", "tile_global_token": "TILE_GLOBAL"}
    words = Words(marks)
    config = {
        "model_type": "aya_vision",
        "vision_config": SIGLIP_VISION | {"vision_use_head": False},
        "text_config": words.text(
            "cohere2",
            head_dim=8,
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "image_token_index": words["<|IMG_PATCH|>"],
        "downsample_factor": 2,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "adapter_layer_norm_eps": 1e-6,
    }
    return save(
        folder,
        config,
        words,
        picture="<image>",
        image_processor={
            "image_processor_type": "GotOcr2ImageProcessor",
            "crop_to_patches": False,
            **SQUARE,
        },
        processor={
            "processor_class": "AyaVisionProcessor",
            "patch_size": 8,
            "img_size": 32,
            "downsample_factor": 2,
            **marks,
        },
    )


def save_gemma3(folder: Path) -> Path:
    """Norms after o_proj and down_proj; sliding windows in some layers; picture tokens see each other."""
    marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = Words(marks)
    text = words.text(
        "gemma3_text",
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    config = {
        "model_type": "gemma3",
        "vision_config": SIGLIP_VISION | {"vision_use_head": False},
        "text_config": text,
        "mm_tokens_per_image": 4,
        "boi_token_index": words["<start_of_image>"],
        "eoi_token_index": words["<end_of_image>"],
        "image_token_index": words["<image_soft_token>"],
    }
    return save(
        folder,
        config,
        words,
        picture="<start_of_image>",
        image_processor={"image_processor_type": "Gemma3ImageProcessor", "image_seq_length": 4, **SQUARE},
        processor={"processor_class": "Gemma3Processor", "image_seq_length": 4},
    )


def save_paligemma(folder: Path) -> Path:
    """The whole prompt sees itself; no chat template."""
    words = Words({"image_token": "<image>"})
    config = {
        "model_type": "paligemma",
        "vision_config": SIGLIP_VISION | {"vision_use_head": False, "projection_dim": 32},
        "text_config": words.text("gemma", head_dim=8),
        "image_token_index": words["<image>"],
        "projection_dim": 32,
        "hidden_size": 32,
    }
    return save(
        folder,
        config,
        words,
        picture="<image>",
        template=False,
        image_processor={"image_processor_type": "SiglipImageProcessor", "image_seq_length": 16, **SQUARE},
        processor={"processor_class": "PaliGemmaProcessor"},
    )


def save_mllama(folder: Path) -> Path:
    """Layer 1 attends to the picture, and to nothing else; its attention and FFN are gated."""
    words = Words({"image_token": "<|image|>"}, ("<|python_tag|>",))
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = {
        "model_type": "mllama",
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "max_num_tiles": 2,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 48,
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
        "text_config": words.text("mllama_text_model", cross_attention_layers=[1], rope_parameters=rope),
        "image_token_index": words["<|image|>"],
    }
    config["text_config"]["vocab_size"] = len(words.tokenizer)
    return save(
        folder,
        config,
        words,
        picture="<|image|>",
        image_processor={"image_processor_type": "MllamaImageProcessor", "max_image_tiles": 2, **SQUARE},
        processor={"processor_class": "MllamaProcessor"},
    )
