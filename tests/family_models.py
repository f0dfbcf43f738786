"""One small random model of each family beyond those of `random_models`, in the family's on-disk format.

Every folder holds config, safetensors, tokenizer, chat template and image processor, as on the hub. What differs
between the families is written in `FAMILIES`, a builder each; three layers, width 32, 4 heads of width 8, 24 neurons.
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import transformers
from random_models import (
    fill_weights,
    save_random_internvl,
    save_random_llava,
    save_random_qwen,
    save_random_qwen2_vl,
    save_random_qwen3_vl,
)
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel

from hones.models.loading import BUILT_IN_FOLDER

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CLIP_VISION = {"model_type": "clip_vision_model", "projection_dim": 16, **VISION}
SIGLIP_VISION = {"model_type": "siglip_vision_model", **VISION}
PIXELS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"size": {"height": 32, "width": 32}, **PIXELS}
TEMPLATE = (
    "{{% for m in messages %}}USER: {{% for part in m['content'] %}}{{% if part['type'] == 'image' %}}{mark}\n"
    "{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}\n{{% endfor %}}ASSISTANT:"
)


class Words:
    """The built-in tokenizer with a family's own marks, which are attributes of it (`image_token`) where named so."""

    def __init__(self, marks: Mapping[str, str], plain: tuple[str, ...] = ()) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
        self.marks = dict(marks)
        self.tokenizer.add_special_tokens({"additional_special_tokens": [*marks.values(), *plain]})

    def __getitem__(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def text(self, model_type: str, **more: Any) -> dict[str, Any]:
        """The settings of a text model with this vocabulary."""
        ends = {"bos_token_id": self["<s>"], "eos_token_id": self["</s>"], "pad_token_id": self["<pad>"]}
        return {"model_type": model_type, "vocab_size": len(self.tokenizer), **ends, **SHAPE, **more}

    def save(self, folder: Path, template: str | None) -> None:
        self.tokenizer.save_pretrained(folder)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text()) | {"extra_special_tokens": self.marks}
        for name in ("processor_class", "image_token", "additional_special_tokens"):
            settings.pop(name, None)
        file.write_text(json.dumps(settings | self.marks))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)


def save(
    folder: Path,
    config: dict[str, Any],
    words: Words,
    *,
    picture: str,
    image_processor: dict[str, Any],
    processor: dict[str, Any],
    template: bool = True,
) -> Path:
    """A model of this configuration with random weights, and its processor's files.

    picture: what the chat template writes for a picture.
    """
    settings = dict(config)
    made = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(made)
    fill_weights(model)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = words["</s>"]
    model.generation_config.pad_token_id = words["<pad>"]
    model.save_pretrained(folder)
    words.save(folder, TEMPLATE.format(mark=picture) if template else None)
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


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


def save_glm4v(folder: Path) -> Path:
    """Norms after o_proj and down_proj; gate and up in one projection."""
    marks = {"image_token": "<|image|>", "video_token": "<|video|>"}
    words = Words(marks, ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}
    config = {
        "model_type": "glm4v",
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
        "text_config": words.text("glm4v_text", rope_parameters=rope),
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
}
NOT_SERVED = {
    "Molmo 2": "its image processor needs torchvision, which has no build for the tests' torch: not tried",
    "Phi-4 multimodal": "its image processor needs torchvision: not tried; `--model` takes its path where it is there",
}
