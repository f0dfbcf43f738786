"""Random models small enough to check every cell by hand, saved as a user's checkpoint would be.

LLaVA: grouped-query attention and H * d_h = 32 different from d = 24, or with the text models of other families.
Qwen2.5-VL, Qwen2-VL: grouped-query, positions on three axes. Qwen3-VL: picture features added between layers.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from hones.models.place import BUILT_IN_FOLDER


def save_random_llava(folder: Path, family: Any = LlamaConfig, **more: Any) -> Path:
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
    text = family(
        vocab_size=built_in.text_config.vocab_size,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        bos_token_id=built_in.text_config.bos_token_id,
        eos_token_id=built_in.text_config.eos_token_id,
        **more,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=96,
        patch_size=12,
        projection_dim=16,
    )
    picture_token: dict[str, Any] = {"image_token_id": built_in.image_token_id}
    config = LlavaConfig(
        **picture_token,
        vision_config=vision,
        text_config=text,
        image_seq_length=64,
        vision_feature_layer=-1,
    )
    return _save(LlavaForConditionalGeneration(config), "tiny-llava", folder)


def save_random_qwen(folder: Path) -> Path:
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-qwen2.5-vl")
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 20,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        **_qwen_parts(built_in),
    )
    return _save(Qwen2_5_VLForConditionalGeneration(config), "tiny-qwen2.5-vl", folder)


def save_random_llava_mistral(folder: Path) -> Path:
    """Sliding-window attention over 40 positions, fewer than a prompt has."""
    return save_random_llava(folder, MistralConfig, sliding_window=40)


def save_random_llava_qwen3(folder: Path) -> Path:
    """Norms on queries and keys."""
    return save_random_llava(folder, Qwen3Config)


def save_random_qwen2_vl(folder: Path) -> Path:
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-qwen2.5-vl")
    vision = {"depth": 2, "embed_dim": 16, "num_heads": 2, "patch_size": 8, "mlp_ratio": 2, "hidden_size": 32}
    config = Qwen2VLConfig(vision_config=vision, **_qwen_parts(built_in))
    return _save(Qwen2VLForConditionalGeneration(config), "tiny-qwen2.5-vl", folder)


def save_random_qwen3_vl(
    folder: Path, config_class: Any = Qwen3VLConfig, model_class: Any = Qwen3VLForConditionalGeneration, **more: Any
) -> Path:
    """more: settings of its text model."""
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-qwen2.5-vl")
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_heads": 2,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 144,
        "deepstack_visual_indexes": [0, 1],
    }
    parts = _qwen_parts(built_in)
    parts["text_config"] |= {
        "head_dim": 8,
        "rope_parameters": parts["text_config"]["rope_parameters"] | {"mrope_interleaved": True},
        **more,
    }
    return _save(model_class(config_class(vision_config=vision, **parts)), "tiny-qwen2.5-vl", folder)


def save_random_internvl(folder: Path) -> Path:
    """Its processor writes a closing token after the picture's own."""
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    marks["video_token"] = "<video>"
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks.values()]})
    ends: dict[str, Any] = {name: getattr(built_in.text_config, name) for name in ("bos_token_id", "eos_token_id")}
    shape: dict[str, Any] = {
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    text = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **shape, **ends)
    vision: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(image_size=[32, 32], patch_size=[8, 8], **vision),
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    _save(InternVLForConditionalGeneration(config), "tiny-llava", folder)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"extra_special_tokens": marks}
    settings.pop("processor_class", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}USER: {% for part in m['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}ASSISTANT:"
    )
    pixels = {
        "size": {"height": 32, "width": 32},
        "crop_to_patches": False,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    processor = {"image_processor_type": "GotOcr2ImageProcessor", "processor_class": "InternVLProcessor", **pixels}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "InternVLProcessor", "image_seq_length": 4})
    )
    return folder


def _qwen_parts(built_in: Any) -> dict[str, Any]:
    text = {
        "vocab_size": built_in.text_config.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        "bos_token_id": None,
        "eos_token_id": built_in.text_config.eos_token_id,
    }
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {"text_config": text, **{name: getattr(built_in, name) for name in ids}}


def fill_weights(model: PreTrainedModel) -> None:
    """Random weights; norms near 1, gates open."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        of_norm = any(part in name for part in ("norm", "ln_1", "ln_2", "ln_f"))
        if (of_norm and parameter.ndim == 1) or name.endswith(("attn_gate", "mlp_gate")):
            parameter.data = 1 + 0.2 * noise
        else:
            parameter.data = noise * (0.2 if parameter.ndim > 1 else 0.1)


def _save(model: PreTrainedModel, processor_of: str, folder: Path) -> Path:
    """Weights large enough that every edit shows; processor files copied from the built-in model of the family."""
    fill_weights(model)
    config = AutoConfig.from_pretrained(BUILT_IN_FOLDER / processor_of)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = config.text_config.eos_token_id
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    for file in (BUILT_IN_FOLDER / processor_of).iterdir():
        if "token" in file.name or "processor" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder / file.name)
    return folder
