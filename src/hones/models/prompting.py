"""Inputs of wrapped prompts, with or without pictures, on the model's device."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import BadItem, HonesError, seam

REFUSED = "refused by the model's processor"


def input_device(model: PreTrainedModel) -> torch.device:
    """The device of the input embeddings."""
    return next(model.get_input_embeddings().parameters()).device


def encode(
    model: PreTrainedModel, processor: ProcessorMixin, pictures: Sequence[Image.Image | None], texts: Sequence[str]
) -> dict[str, Tensor]:
    """Model inputs of wrapped texts, on the model's device; everything that the processor gives.

    Raises:
        BadItem: the processor does not take a picture or a text.
        HonesError: some prompts have a picture and others have none.
    """
    prepare: Any = processor
    shown = [picture for picture in pictures if picture is not None]
    if len(shown) not in (0, len(pictures)):
        raise HonesError("prompts with and without a picture at once", expected="a task that always or never shows one")
    images = {"images": [[picture] for picture in shown]} if shown else {}
    try:
        with seam(f"prepare {'the picture' if shown else 'the prompt'} for the model"):
            batch = prepare(**images, text=list(texts), padding=True, return_tensors="pt")
    except HonesError as error:
        if isinstance(error.__cause__, MemoryError):  # fewer at once may fit
            raise error.__cause__ from None
        raise BadItem(str(error), kind=REFUSED) from error
    device = input_device(model)
    unused = () if shown else ("mm_token_type_ids",)  # without a picture positions are counted, padding left out
    return {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor) and k not in unused}
