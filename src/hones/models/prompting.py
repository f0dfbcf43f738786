"""Prompts as a model takes them: its template around the user's text, with or without a picture, and the inputs.

LLaVA prompts are wrapped as `USER: <image>\\n{prompt}\\nASSISTANT:`, PaliGemma's (base models) end in a line break,
other models use their own chat template; a text-only model without one is given the prompt as it is, and every model a
bare prompt.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from transformers.processing_utils import ProcessorMixin

from hones.errors import BadItem, HonesError
from hones.models.processors import TextProcessor
from hones.tasks.base import BarePrompt

LLAVA_TEMPLATE = "USER: {image}{prompt}\nASSISTANT:"
PALIGEMMA_TEMPLATE = "{image}{start}{prompt}\n"


def wrap(model: PreTrainedModel, processor: ProcessorMixin, prompt: str, picture: bool = True) -> str:
    """The prompt in the template of the model's family.

    Args:
        picture: with the placeholder of one picture.

    Raises:
        BadItem: the prompt's own text holds the picture's placeholder.
        HonesError: the processor has no chat template, the model takes no picture, or a bare prompt shows one.
    """
    if isinstance(prompt, BarePrompt) and picture:
        raise HonesError(f"the bare prompt {prompt!r} with a picture", expected="Example(image=None), as it shows none")
    if isinstance(processor, TextProcessor):
        if picture:
            raise HonesError(f"{model.config.model_type} is a text-only model", do="ask it a task without pictures")
        if processor.chat_template is None or isinstance(prompt, BarePrompt):  # None: a base model
            return _without_start(processor, prompt)
        of_text: Any = processor.tokenizer.apply_chat_template
        said = [{"role": "user", "content": prompt}]
        return _without_start(processor, of_text(said, tokenize=False, add_generation_prompt=True))
    placeholder = processor.image_token  # pyright: ignore[reportAttributeAccessIssue]
    if placeholder in prompt:
        raise BadItem(f"its text holds {placeholder}, the picture's placeholder")
    if isinstance(prompt, BarePrompt):
        return _without_start(processor, prompt)
    if model.config.model_type == "llava" and type(processor).__name__ == "LlavaProcessor":
        return LLAVA_TEMPLATE.format(image=f"{placeholder}\n" if picture else "", prompt=prompt)
    if model.config.model_type == "paligemma":
        start = processor.tokenizer.bos_token  # pyright: ignore[reportAttributeAccessIssue]
        return PALIGEMMA_TEMPLATE.format(image=placeholder if picture else "", start=start, prompt=prompt)
    if getattr(processor, "chat_template", None) is None:
        raise HonesError(f"{type(processor).__name__} has no chat template", do="use the instruction-tuned checkpoint")
    shown = [{"type": "image"}] if picture else []
    conversation: Any = [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]
    template: Any = ProcessorMixin.apply_chat_template  # families override it for the sake of videos
    return _without_start(processor, template(processor, conversation, tokenize=False, add_generation_prompt=True))


def _without_start(processor: ProcessorMixin, text: str) -> str:
    """The text without the start token that its template writes, where the tokenizer puts one before every text."""
    tokenizer = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    start = tokenizer.bos_token
    if not start or not text.startswith(start):
        return text
    return text.removeprefix(start) if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else text


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
