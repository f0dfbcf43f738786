"""Inputs of wrapped prompts, with or without pictures, on the model's device."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import HonesError


def input_device(model: PreTrainedModel) -> torch.device:
    """The device of the input embeddings."""
    return next(model.get_input_embeddings().parameters()).device


def encode(
    model: PreTrainedModel, processor: ProcessorMixin, pictures: Sequence[Image.Image | None], texts: Sequence[str]
) -> dict[str, Tensor]:
    """Model inputs of wrapped texts, on the model's device; everything that the processor gives.

    Raises:
        HonesError: some prompts have a picture and others have none.
    """
    prepare: Any = processor
    shown = [picture for picture in pictures if picture is not None]
    if len(shown) not in (0, len(pictures)):
        raise HonesError("prompts with and without a picture at once", expected="a task that always or never shows one")
    images = {"images": [[picture] for picture in shown]} if shown else {}
    batch = prepare(**images, text=list(texts), padding=True, return_tensors="pt")
    device = input_device(model)
    unused = () if shown else ("mm_token_type_ids",)  # without a picture positions are counted, padding left out
    return {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor) and k not in unused}
