"""A random LLaVA with the real one's 576 picture tokens, wide enough that arithmetic dominates."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from hones import VLM, load_vlm
from hones.models.place import BUILT_IN_FOLDER


def wide_llava(
    folder: Path, spread: float, layers: int = 6, width: int = 1024, heads: int = 16, neurons: int = 2752
) -> VLM:
    """Saved and loaded like a user's model; pictures of 336 x 336 in patches of 14. spread: initializer_range."""
    built_in = AutoConfig.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
    ids: dict[str, Any] = {name: getattr(built_in.text_config, name) for name in ("bos_token_id", "eos_token_id")}
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=336,
        patch_size=14,
        projection_dim=256,
    )
    text = LlamaConfig(
        vocab_size=built_in.text_config.vocab_size,
        hidden_size=width,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        initializer_range=spread,
        max_position_embeddings=4096,
        **ids,
    )
    picture_token: dict[str, Any] = {"image_token_id": built_in.image_token_id}
    config = LlavaConfig(**picture_token, vision_config=vision, text_config=text, image_seq_length=576)
    model = LlavaForConditionalGeneration(config)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = built_in.text_config.eos_token_id
    model.save_pretrained(folder)
    for file in (BUILT_IN_FOLDER / "tiny-llava").iterdir():
        if "token" in file.name:
            shutil.copy(file, folder / file.name)
    processor = json.loads((BUILT_IN_FOLDER / "tiny-llava" / "processor_config.json").read_text())
    sizes = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    processor |= {"patch_size": 14, "image_processor": processor["image_processor"] | sizes}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return load_vlm(str(folder))
