"""Save a trained built-in model as a user would: save_pretrained, float16 safetensors, tokenizer, image processor.

The files are those of the real checkpoints of each family, so the package's ordinary loading code reads them.
"""

import shutil
from pathlib import Path

import torch
from transformers import LlavaProcessor

from hones.models.place import BUILT_IN_FOLDER

from .architecture import TinyParts, build


def export(name: str, checkpoint: Path, folder: Path | None = None) -> Path:
    """Write the model of a training checkpoint into the package (or `folder`)."""
    parts = build(name)
    parts.model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return save(parts, folder or BUILT_IN_FOLDER / name)


def save(parts: TinyParts, folder: Path) -> Path:
    """Write a model's parts into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    parts.model.generation_config.eos_token_id = parts.tokenizer.eos_token_id
    parts.model.generation_config.pad_token_id = parts.tokenizer.pad_token_id
    parts.model.half().save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    parts.image_processor.save_pretrained(folder)
    if parts.model.config.model_type == "llava":
        LlavaProcessor(
            parts.image_processor,
            parts.tokenizer,
            patch_size=12,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        ).save_pretrained(folder)
    return folder
