"""Families that differ from LLaVA in how a picture becomes tokens; their decoders are plain ones."""

from importlib import import_module
from pathlib import Path
from typing import Any

from family_files import CLIP_VISION, PIXELS, SIGLIP_VISION, SQUARE, VISION, Words, save


def save_llava_next(folder: Path) -> Path:
    words = Words({"image_token": "<image>"})
    pinpoints = [[32, 64], [64, 32]]
    config = {
        "model_type": "llava_next",
        "vision_config": CLIP_VISION,
        "text_config": words.text("mistral", sliding_window=None),
        "image_token_index": words["<image>"],
        "image_grid_pinpoints": pinpoints,
        "vision_feature_layer": -1,
        "image_seq_length": 16,
    }
    return save(
        folder,
        config,
        words,
        picture="<image>",
        image_processor={
            "image_processor_type": "LlavaNextImageProcessor",
            "image_grid_pinpoints": pinpoints,
            "crop_size": {"height": 32, "width": 32},
            "size": {"shortest_edge": 32},
            **PIXELS,
        },
        processor={
            "processor_class": "LlavaNextProcessor",
            "patch_size": 8,
            "vision_feature_select_strategy": "default",
            "num_additional_image_tokens": 1,
            "image_token": "<image>",
        },
    )


def save_llava_onevision(folder: Path) -> Path:
    words = Words({"image_token": "<image>", "video_token": "<video>"})
    pinpoints = [[32, 64], [64, 32]]
    config = {
        "model_type": "llava_onevision",
        "vision_config": SIGLIP_VISION | {"vision_use_head": False},
        "text_config": words.text("qwen2"),
        "image_token_index": words["<image>"],
        "video_token_index": words["<video>"],
        "image_grid_pinpoints": pinpoints,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    }
    return save(
        folder,
        config,
        words,
        picture="<image>",
        image_processor={
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "image_grid_pinpoints": pinpoints,
            **SQUARE,
        },
        processor={
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": 16,
            "vision_feature_select_strategy": "full",
            "image_token": "<image>",
            "video_token": "<video>",
        },
    )


def save_pixtral_llava(folder: Path) -> Path:
    """Pixtral's vision part in a model of type llava, with its own processor and template."""
    marks = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    words = Words(marks)
    config = {
        "model_type": "llava",
        "vision_config": {"model_type": "pixtral", **VISION, "head_dim": 8},
        "text_config": words.text("mistral", head_dim=8, sliding_window=None),
        "image_token_index": words["[IMG]"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_seq_length": 1,
    }
    return save(
        folder,
        config,
        words,
        picture="[IMG]",
        image_processor={
            "image_processor_type": "PixtralImageProcessor",
            "patch_size": {"height": 8, "width": 8},
            "size": {"longest_edge": 32},
            **PIXELS,
        },
        processor={"processor_class": "PixtralProcessor", "patch_size": 8, **marks},
    )


def save_mistral3(folder: Path) -> Path:
    marks = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    words = Words(marks)
    config = {
        "model_type": "mistral3",
        "vision_config": {"model_type": "pixtral", **VISION, "head_dim": 8},
        "text_config": words.text("mistral", head_dim=8, sliding_window=None),
        "image_token_index": words["[IMG]"],
        "vision_feature_layer": -1,
        "spatial_merge_size": 2,
    }
    return save(
        folder,
        config,
        words,
        picture="[IMG]",
        image_processor={
            "image_processor_type": "PixtralImageProcessor",
            "patch_size": 16,
            "size": {"longest_edge": 32},
            **PIXELS,
        },
        processor={"processor_class": "PixtralProcessor", "patch_size": 8, "spatial_merge_size": 2, **marks},
    )


def save_idefics3(folder: Path, model_type: str = "idefics3", named: str = "Idefics3") -> Path:
    marks = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>"}
    marks |= {"end_of_utterance_token": "<end_of_utterance>", "global_image_token": "<global-img>"}
    words = Words(marks)
    config = {
        "model_type": model_type,
        "vision_config": {"model_type": f"{model_type}_vision", **VISION},
        "text_config": words.text("llama"),
        "image_token_id": words["<image>"],
        "scale_factor": 2,
    }
    return save(
        folder,
        config,
        words,
        picture="<image>",
        image_processor={
            "image_processor_type": f"{named}ImageProcessor",
            "do_image_splitting": False,
            "size": {"longest_edge": 32},
            "max_image_size": {"longest_edge": 32},
            **PIXELS,
        },
        processor={"processor_class": f"{named}Processor", "image_seq_len": 4},
    )


def save_smolvlm(folder: Path) -> Path:
    """Its processor asks for the package num2words, which only writes the number of a video's frames."""
    own: Any = import_module("transformers.models.smolvlm.processing_smolvlm")
    own.num2words = own.num2words or str
    return save_idefics3(folder, "smolvlm", "SmolVLM")


def save_janus(folder: Path) -> Path:
    marks = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    words = Words(marks)
    vision = {**VISION, "projection_dim": 32, "num_image_tokens": 16, "mlp_ratio": 2, "depth": 2}
    vq = {
        "embed_dim": 4,
        "num_embeddings": 8,
        "latent_channels": 4,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "num_patches": 4,
        "projection_dim": 32,
        "image_token_embed_dim": 32,
        "num_hidden_layers": 1,
    }
    config = {
        "model_type": "janus",
        "vision_config": vision,
        "vq_config": vq,
        "text_config": words.text("llama"),
        "image_token_id": words["<image_placeholder>"],
    }
    return save(
        folder,
        config,
        words,
        picture="<image_placeholder>",
        image_processor={"image_processor_type": "JanusImageProcessor", "min_size": 14, **SQUARE},
        processor={"processor_class": "JanusProcessor", "num_image_tokens": 16},
    )
