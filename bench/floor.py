"""Floating-point operations that no exact sweep avoids, counted from a model's own weights."""

import torch

from hones import VLM
from hones.models.processors import is_text_only


def positions_flop(vlm: VLM, count: int, past: int) -> float:
    """One decoder layer on `count` new positions that see `past` others."""
    anatomy, layer = vlm.anatomy, vlm.anatomy.layers[0]
    linears = sum(m.weight.numel() for m in layer.block.modules() if isinstance(m, torch.nn.Linear))
    seen = past + (count + 1) / 2
    return count * (2 * linears + 4 * seen * anatomy.heads * anatomy.head_dim)


def vision_flop(vlm: VLM) -> float:
    """Twice the vision part's weights for each patch, attention left out: a lower bound. 0 without pictures."""
    if is_text_only(vlm.model.config):
        return 0.0
    vision = getattr(vlm.model.model, "vision_tower", None) or vlm.model.model.visual
    config = vlm.model.config.vision_config
    patches = (getattr(config, "image_size", 96) // config.patch_size) ** 2
    return 2.0 * patches * sum(m.weight.numel() for m in vision.modules() if isinstance(m, torch.nn.Linear))
