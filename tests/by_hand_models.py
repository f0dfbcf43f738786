"""The three families whose image processors need torchvision, in their own files, as on the hub.

Where torchvision is here they are loaded as every other family is. Where it is not, a stand-in makes the inputs by
hand: what it returns has the names, shapes and meaning of what the family's own image processor returns for a square
picture that takes one crop; it is resized PIL's way, not torchvision's. The families' processors are their own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from family_files import PIXELS, SHAPE, SQUARE, Words, save
from family_models import FAMILIES
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import is_torchvision_available

from hones import attach, load_vlm
from hones.models.loading import auto_model
from hones.models.processors import picture_processor
from hones.models.vlm import VLM

SIDE, PATCH = 32, 8
PHI_SIDE, PHI_PATCH = (96, 3) if is_torchvision_available() else (SIDE, PATCH)
"""Phi-4's own image processor counts 16 x 16 tokens for the whole of every picture, so that its patches are 32 x 32."""
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def pixels(images: Any) -> list[Tensor]:
    """Each picture [3, 32, 32], in [-1, 1]."""
    flat = [x for group in images for x in (group if isinstance(group, list) else [group])]
    found = []
    for picture in flat:
        small = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
        small = small.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1)
    return found


class Molmo2Pictures(BaseImageProcessor):
    """As Molmo2ImageProcessor: a view of the whole picture and one crop (here the same pixels), in patches.

    pixel_values [crops, patches, 3 p p]; image_token_pooling [tokens, 4]: the patches that a token is pooled from,
    counted through all pictures; image_grids [n, 4]: rows and columns of tokens of both views; image_num_crops [n].
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "image_token_pooling", "image_grids", "image_num_crops"]

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        side, crops, pooling = SIDE // PATCH, [], []
        windows = torch.arange(side**2).view(side // 2, 2, side // 2, 2).transpose(1, 2).reshape(-1, 4)
        for picture in pixels(images):
            patches = picture.permute(1, 2, 0).reshape(side, PATCH, side, PATCH, 3).transpose(1, 2)
            for _ in range(2):
                pooling.append(windows + len(crops) * side**2)
                crops.append(patches.reshape(side**2, -1))
        count = len(crops) // 2
        return BatchFeature(
            {
                "pixel_values": torch.stack(crops),
                "image_token_pooling": torch.cat(pooling),
                "image_grids": torch.full((count, 4), side // 2),
                "image_num_crops": torch.full((count,), 2),
            }
        )


class Phi4Pictures(BaseImageProcessor):
    """As Phi4MultimodalImageProcessor: a view of the whole picture and one crop (here the same pixels).

    image_pixel_values [n, 2, 3, s, s]; image_sizes [n, 2]; image_attention_mask [n, 2, s / p, s / p]: all patches are
    of the picture; num_img_tokens: both views' tokens, a line break after each of their rows, one token between them.
    """

    model_input_names: ClassVar[list[str]] = ["image_pixel_values", "image_sizes", "image_attention_mask"]

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        pictures = pixels(images)
        side = SIDE // PATCH // 2
        return BatchFeature(
            {
                "image_pixel_values": torch.stack([torch.stack([x, x]) for x in pictures]),
                "image_sizes": torch.full((len(pictures), 2), SIDE),
                "image_attention_mask": torch.ones(len(pictures), 2, 2 * side, 2 * side),
                "num_img_tokens": [2 * side * (side + 1) + 1] * len(pictures),
            }
        )


class Llama4Pictures(BaseImageProcessor):
    """As Llama4ImageProcessor: one tile of every picture. pixel_values [n, 3, s, s], bfloat16; aspect_ratios [n, 2]."""

    model_input_names: ClassVar[list[str]] = ["pixel_values", "aspect_ratios"]

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        pictures = pixels(images)
        ratios = torch.ones(len(pictures), 2, dtype=torch.long)
        return BatchFeature({"pixel_values": torch.stack(pictures).bfloat16(), "aspect_ratios": ratios})


def save_molmo2(folder: Path) -> Path:
    """Pictures between marks of their own, pooled by attention; an embedding for the marks beyond the vocabulary."""
    names = ("<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>", "<frame_start>", "<im_end>", "<frame_end>")
    words = Words({"image_token": "<|image|>", "video_token": "<|video|>"}, (*names, "<im_low>"))
    vision = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
    config = {
        "model_type": "molmo2",
        "vision_config": {**vision, "image_size": [SIDE, SIDE], "patch_size": PATCH},
        "adapter_config": {
            **{k: v for k, v in vision.items() if k != "num_hidden_layers"},
            "text_hidden_size": 32,
            "vision_feature_layer": [-1, -2],
        },
        "text_config": words.text("molmo2_text", head_dim=8, additional_vocab_size=8)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        "image_start_token_id": words["<im_start>"],
        "low_res_image_start_token_id": words["<low_res_im_start>"],
        "image_end_token_id": words["<im_end>"],
        "image_patch_id": words["<im_patch>"],
        "frame_start_token_id": words["<frame_start>"],
        "frame_end_token_id": words["<frame_end>"],
    }
    pictures = {"image_processor_type": "Molmo2ImageProcessor", "patch_size": PATCH, "overlap_margins": [1, 1]}
    return save(
        folder,
        config,
        words,
        picture="<|image|>",
        image_processor=pictures | SQUARE,
        processor={"processor_class": "Molmo2Processor"},
    )


def save_phi4_multimodal(folder: Path) -> Path:
    """Its decoder merges the pictures itself; gate and up in one projection."""
    words = Words({"image_token": "<|image|>", "audio_token": "<|audio|>"})
    audio = {"hidden_size": 16, "intermediate_size": 24, "num_blocks": 1, "num_attention_heads": 2, "input_size": 8}
    audio |= {"nemo_conv_channels": 8, "ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16}
    vision = {**SMALL, "image_size": PHI_SIDE, "crop_size": PHI_SIDE, "patch_size": PHI_PATCH, "feature_layer": -2}
    config = words.text("phi4_multimodal", max_position_embeddings=1024) | {
        "vision_config": vision | {"image_token_id": words["<|image|>"]},
        "audio_config": {**audio, "audio_token_id": words["<|audio|>"]},
        "original_max_position_embeddings": SHAPE["max_position_embeddings"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    }
    square = {"size": {"height": PHI_SIDE, "width": PHI_SIDE}, "patch_size": PHI_PATCH, **PIXELS}
    return save(
        folder,
        config,
        words,
        picture="<|image|>",
        image_processor={"image_processor_type": "Phi4MultimodalImageProcessor", **square},
        processor={"processor_class": "Phi4MultimodalProcessor"},
    )


def save_llama4(folder: Path) -> Path:
    """Four experts, whose input the router weighs, and a shared one; a picture's tokens between marks of their own."""
    words = Words(
        {"image_token": "<|image|>", "start_of_image_token": "<|image_start|>", "end_of_image_token": "<|image_end|>"},
        ("<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"),
    )
    vision = {**SMALL, "intermediate_size": 64}
    vision |= {"projector_input_dim": 24, "projector_output_dim": 24, "vision_output_dim": 24}
    routed = {"num_local_experts": 4, "num_experts_per_tok": 2, "interleave_moe_layer_step": 1}
    config = {
        "model_type": "llama4",
        "vision_config": {**vision, "image_size": SIDE, "patch_size": PATCH},
        "text_config": words.text("llama4_text", head_dim=8, **routed) | {"intermediate_size": 12},
        "boi_token_index": words["<|image_start|>"],
        "eoi_token_index": words["<|image_end|>"],
        "image_token_index": words["<|patch|>"],
    }
    return save(
        folder,
        config,
        words,
        picture="<|image|>",
        image_processor={"image_processor_type": "Llama4ImageProcessor"} | SQUARE,
        processor={"processor_class": "Llama4Processor", "patch_size": PATCH},
    )


BY_HAND: dict[str, Callable[[Path], Path]] = {
    "Molmo 2": save_molmo2,
    "Phi-4 multimodal": save_phi4_multimodal,
    "Llama 4": save_llama4,
}
STAND_INS = {"Molmo 2": Molmo2Pictures, "Phi-4 multimodal": Phi4Pictures, "Llama 4": Llama4Pictures}
MADE = () if is_torchvision_available() else ("inputs made by hand: its image processor needs torchvision",)
BY_HAND_REMARKS = {
    "Molmo 2": "; ".join(MADE),
    "Phi-4 multimodal": "; ".join((*MADE, "pictures merged by its decoder")),
    "Llama 4": "; ".join((*MADE, "a mixture of experts")),
}


def load_family(family: str, folder: Path) -> VLM:
    """The small random model of any family, as a user loads it, or with a stand-in where torchvision is absent."""
    (FAMILIES | BY_HAND)[family](folder)
    if family in FAMILIES or is_torchvision_available():
        return load_vlm(str(folder))
    return attach(family, *stood_in(family, folder))


def stood_in(family: str, folder: Path) -> tuple[PreTrainedModel, Any]:
    """The model, and the family's own processor around the stand-in for its image processor."""
    model = auto_model(transformers.AutoConfig.from_pretrained(folder)).from_pretrained(folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    made: Any = picture_processor(getattr(transformers, settings.pop("processor_class")))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    parts = {"image_processor": STAND_INS[family](), "tokenizer": tokenizer}
    processor = made(*(parts.get(name) for name in made.get_attributes()), **settings)
    processor.chat_template = (folder / "chat_template.jinja").read_text()
    return model, processor
