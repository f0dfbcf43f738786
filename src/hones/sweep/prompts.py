"""Pictures and their prompts, split where they differ: one prefix per picture, one suffix per prompt.

The prefix of a picture is what all its prompts begin with, picture tokens included; it runs once, whatever the number
of prompts. The vision part also runs once per picture: the model is called with the first prompt and stopped where it
hands embeddings and positions to its decoder. Further prompts only need the embeddings of their text.

A decoder may be given more, such as picture features that are added between its layers (Qwen3-VL). It then runs once,
and what enters layer l + 1 beyond what leaves layer l is kept: between[l] = input[l+1] - output[l], zero at text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from hones.errors import HonesError
from hones.models.capture import ENTERING, LEAVING, capture, forward_is
from hones.models.head import counted_positions
from hones.models.processors import picture_token
from hones.models.vlm import VLM
from hones.sweep.layer_rows import PassEnds
from hones.sweep.memory import MOST_PICTURES, is_out_of_memory
from hones.tasks.base import Example


class Unserved(Exception):
    """This family's decoder wants more than embeddings, positions and a padding mask."""


OTHER_FORM = (Unserved, TypeError, ValueError, AttributeError, RuntimeError)
"""What is raised where a family's layers are of another form than expected."""


def why_unserved(error: Exception) -> str:
    """Why a family cannot be served, from one of OTHER_FORM; memory that ran out says nothing of it and is raised."""
    if is_out_of_memory(error):
        raise error
    return str(error) if isinstance(error, Unserved) else f"{type(error).__name__}: {' '.join(str(error).split())}"


@dataclass(frozen=True)
class Prompt:
    """One prompt: which example it belongs to, its number among the example's prompts, and its tokens."""

    owner: int
    number: int
    ids: list[int]


@dataclass
class Picture:
    """One encoded picture and all its prompts.

    embeddings, positions: of the first prompt, S tokens, no padding. shared: tokens that all prompts begin with.
    between: what is added behind a layer, at the layers where that is not zero.
    """

    embeddings: Float[Tensor, "s d"]
    positions: Real[Tensor, "*axes s"]
    prompts: list[Prompt]
    shared: int
    between: dict[int, Float[Tensor, "s d"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Handed:
    """What a model hands to its decoder for B prompts."""

    embeddings: Float[Tensor, "b s d"]
    positions: Real[Tensor, "*axes b s"]
    mask: Bool[Tensor, "b s"]
    between: dict[int, Float[Tensor, "b s d"]] = field(default_factory=dict)


def handed_to_decoder(vlm: VLM, inputs: dict[str, Tensor]) -> Handed:
    """What the vision part gives.

    Raises:
        Unserved: the decoder is not called with embeddings and a plain padding mask.
    """
    seen = kwargs_of_decoder(vlm, inputs)
    known = ("inputs_embeds", "position_ids", "attention_mask")
    embeddings, positions, mask = (seen.get(k) for k in known)
    more = any(_holds_tensor(v) for k, v in seen.items() if k not in (*known, "input_ids"))
    if embeddings is None and not more and isinstance(seen.get("input_ids"), Tensor):
        ids: Any = seen.pop("input_ids")  # no picture: text as it is
        embeddings = vlm.model.get_input_embeddings()(ids)
    if embeddings is None or positions is None or not (isinstance(mask, Tensor) and mask.ndim == 2):
        raise Unserved("its decoder is not given embeddings, positions and a padding mask")
    positions = positions.to(embeddings.device)
    mask = mask.bool().to(embeddings.device)
    if not more:
        return Handed(embeddings, positions, mask)
    return Handed(embeddings, positions, mask, _added_between(vlm, seen))


@torch.no_grad()
def _added_between(vlm: VLM, kwargs: dict[str, Any]) -> dict[int, Float[Tensor, "b s d"]]:
    """Run the decoder once and compare what leaves each layer with what enters the next."""
    left: dict[int, Tensor] = {}
    between: dict[int, Tensor] = {}

    def entering(layer: int, x: Tensor) -> None:
        added = x - left.pop(layer - 1)
        if added.any():
            between[layer - 1] = added

    count = len(vlm.anatomy.layers)
    with (
        capture(vlm.anatomy, LEAVING, left.__setitem__, range(count - 1)),
        capture(vlm.anatomy, ENTERING, entering, range(1, count)),
    ):
        vlm.anatomy.decoder(**kwargs)
    return between


@torch.no_grad()
def kwargs_of_decoder(vlm: VLM, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Run the vision part, and stop with what the model calls its decoder with."""
    seen: dict[str, Any] = {}

    named = [*signature(vlm.anatomy.decoder.forward).parameters]

    def stop(*args: Any, **kwargs: Any) -> None:
        seen.update(zip(named, args, strict=False))  # some models hand their decoder the tokens by position
        seen.update(kwargs)
        raise PassEnds

    counted = counted_positions(vlm.model, inputs)
    try:
        with forward_is(vlm.anatomy.decoder, stop):
            vlm.model(**inputs, **counted, use_cache=False)
    except PassEnds:
        return seen
    raise Unserved("its decoder is not called")


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_tensor(v) for v in value)
    return isinstance(value, Tensor)


def encode_pictures(
    vlm: VLM, examples: Sequence[Example], *, batch_size: int = MOST_PICTURES, share: bool = True
) -> list[Picture]:
    """The examples' pictures with their prompts.

    Args:
        share: examples of the same picture and all prompts of an example share it; else every prompt has its own.
    """
    asked: dict[Any, list[tuple[int, int]]] = {}  # by picture, the example and the number of each prompt
    for owner, example in enumerate(examples):
        for number in range(len(example.prompts)):
            key: Any = (example.about, example.box) if share else (owner, number)
            asked.setdefault(key, []).append((owner, number))
    groups = list(asked.values())
    pictures = []
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        shown = [examples[group[0][0]].open_picture() for group in batch]
        encoded = vlm.encode(shown, [examples[owner].prompts[number] for owner, number in (x[0] for x in batch)])
        handed = handed_to_decoder(vlm, encoded.inputs)
        for row, group in enumerate(batch):
            ids = encoded.inputs["input_ids"][row]
            pictures.append(_picture(vlm, examples, group, handed, row, ids[handed.mask[row].to(ids.device)].tolist()))
    return pictures


def _picture(
    vlm: VLM, examples: Sequence[Example], group: list[tuple[int, int]], handed: Handed, row: int, ids: list[int]
) -> Picture:
    """One picture of a batch with its prompts; ids: the tokens of the first."""
    shown = examples[group[0][0]].image is not None
    tails = [text_after_picture(vlm, examples[owner].prompts[number], shown) for owner, number in group]
    after_picture = len(ids) - len(tails[0])
    if ids[after_picture:] != tails[0]:
        raise Unserved("its processor changes the text after the picture")
    rows = [ids[:after_picture] + tail for tail in tails]
    mask = handed.mask[row]
    between = {layer: x[row][mask] for layer, x in handed.between.items()}
    if any(x[after_picture:].any() for x in between.values()):
        raise Unserved("its decoder adds more than picture features between its layers")
    # all begin with the picture; one token at least remains for each
    shortest = min(map(len, rows))
    if shortest <= after_picture:
        raise HonesError("a prompt ends with its picture", expected="text after the picture")
    same = [*takewhile(lambda tokens: len({*tokens}) == 1, zip(*rows, strict=False))]
    return Picture(
        embeddings=handed.embeddings[row][mask],
        positions=handed.positions[..., row, :][..., mask],
        prompts=[Prompt(owner, number, tokens) for (owner, number), tokens in zip(group, rows, strict=True)],
        shared=min(len(same), shortest - 1),
        between=between,
    )


def text_after_picture(vlm: VLM, prompt: str, picture: bool) -> list[int]:
    """The tokens that follow the picture's placeholder in a wrapped prompt; all of them where there is no picture.

    Raises:
        Unserved: the template has no single placeholder, as one token.
    """
    ids = vlm.tokenizer(vlm.wrap(prompt, picture))["input_ids"]
    if not picture:
        return ids
    token = vlm.tokenizer.convert_tokens_to_ids(picture_token(vlm.processor))
    if ids.count(token) != 1:
        raise Unserved("its template has no single picture token")
    return ids[ids.index(token) + 1 :]
