"""Whether a prompt fits a model: its processor takes it, and its context has room for it and the answer."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from hones.errors import BadItem, HonesError
from hones.models.vlm import VLM, Encoded

TOO_LONG = "prompt longer than the model's context"


def context_of(vlm: VLM) -> int | None:
    """How many tokens the model was made for, picture and answer included; None where no configuration says it."""
    config = vlm.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions * _stretched(getattr(config, "rope_parameters", None))) if positions else None


def _stretched(rope: Any) -> float:
    """By how much its rotary positions are stretched beyond that; those of some layers may be, of others not."""
    if not isinstance(rope, Mapping):
        return 1.0
    own = 1.0 if "original_max_position_embeddings" in rope else float(rope.get("factor") or 1.0)
    return max(own, *map(_stretched, rope.values()), 1.0)


def check_fits(vlm: VLM, encoded: Encoded, answer: int) -> None:
    """Raises BadItem where an encoded prompt with so many tokens of an answer is longer than the model's context."""
    limit = context_of(vlm)
    length = encoded.inputs["input_ids"].shape[1]
    if limit is not None and length + answer > limit:
        raise BadItem(
            f"its prompt has {length:,} tokens, the model takes {limit:,} with an answer of {answer}", kind=TOO_LONG
        )


def check_prompts(vlm: VLM, picture: Image.Image | None, prompts: tuple[str, ...], answer: int) -> None:
    """Encode an item's first prompt, and the longest where that may not fit; wrap them all.

    Raises:
        BadItem: one cannot be asked of the model.
    """
    first, *others = prompts
    check_fits(vlm, vlm.encode([picture], [first]), answer)
    longest = max(others, key=len, default="")
    if len(longest.encode()) > max(len(first.encode()), (context_of(vlm) or 0) // 2):  # a token is a byte or more
        check_fits(vlm, vlm.encode([picture], [longest]), answer)
    for prompt in others:
        vlm.wrap(prompt, picture is not None)


def encode_question(vlm: VLM, picture: Image.Image | None, prompt: str, answer: int) -> Encoded:
    """The inputs of one question that someone asks.

    Raises:
        HonesError: it cannot be asked of the model.
    """
    try:
        encoded = vlm.encode([picture], [prompt])
        check_fits(vlm, encoded, answer)
    except BadItem as error:
        raise HonesError(str(error), expected="a question and a picture that the model can take") from error
    return encoded
