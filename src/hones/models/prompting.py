"""Inputs of wrapped prompts, with or without pictures, on the model's device."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import BadItem, HonesError, seam
from hones.models.processors import OPEN_END, with_pictures

APART = "qformer_"  # InstructBLIP's picture part reads the question too
TYPES = "mm_token_type_ids"
HALVES = (torch.bfloat16, torch.float16)
REFUSED = "refused by the model's processor"


def input_device(model: PreTrainedModel) -> torch.device:
    """The device of the input embeddings."""
    return next(model.get_input_embeddings().parameters()).device


def encode(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    pictures: Sequence[Image.Image | None],
    texts: Sequence[str],
    asked: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Model inputs of wrapped texts, on the model's device; everything that the processor gives.

    Args:
        asked: the texts without their answers, where they have some; what reads a question apart gets these alone.

    Raises:
        BadItem: the processor does not take a picture or a text.
        HonesError: some prompts have a picture and others have none.
    """
    shown = [picture for picture in pictures if picture is not None]
    if len(shown) not in (0, len(pictures)):
        raise HonesError("prompts with and without a picture at once", expected="a task that always or never shows one")
    try:
        with seam(f"prepare {'the picture' if shown else 'the prompt'} for the model"):
            batch = _prepare(model, processor, shown, texts)
    except HonesError as error:
        if isinstance(error.__cause__, MemoryError):  # fewer at once may fit
            raise error.__cause__ from None
        raise BadItem(str(error), kind=REFUSED) from error
    device = input_device(model)
    if asked is not None and any(name.startswith(APART) for name in batch):
        of_question = encode(model, processor, pictures, asked)
        batch = {**batch, **{name: value for name, value in of_question.items() if name.startswith(APART)}}
    unused = () if shown else (TYPES,)  # without a picture positions are counted, padding left out
    tensors = {k: v.to(device) for k, v in batch.items() if isinstance(v, Tensor) and k not in unused}
    # Llama 4's image processor gives bfloat16, whatever the model's own numbers are
    return {k: v.to(model.dtype) if v.dtype in HALVES else v for k, v in tensors.items()}


def _prepare(model: PreTrainedModel, processor: Any, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Any:
    """What the processor makes of texts, each with one of the pictures."""
    options: dict[str, Any] = {"text": list(texts), "padding": True, "return_tensors": "pt"}
    if getattr(processor, OPEN_END, None) is not None:
        options[OPEN_END] = True
    if not pictures:
        return processor(**options)
    plain = type(processor).__call__ is ProcessorMixin.__call__
    if plain and TYPES in signature(model.forward).parameters:  # not all give them unasked
        options[f"return_{TYPES}"] = True
    return with_pictures(processor, pictures, **options)
