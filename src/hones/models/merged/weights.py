"""A base's weights and tokenizer, their digests, and the merge with a difference."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hones.errors import HonesError, seam
from hones.models.planted import combined

LANGUAGE, TOWER, PROJECTOR = "model.language_model.", "model.vision_tower.", "model.multi_modal_projector."
EMBEDDINGS = "embed_tokens.weight"


@dataclass(frozen=True)
class BaseWeights:
    """A language model: its weights by their names below the decoder, and its tokenizer. The output is tied."""

    weights: dict[str, Tensor]
    tokenizer: Any


def base_of_folder(folder: Path) -> BaseWeights:
    """The language model of a folder in the hub's format.

    Raises:
        HonesError: there is none, or it cannot be read.
    """
    if not folder.is_dir():
        raise HonesError(f"no folder {folder}", expected="a folder with a language model in the hub's format")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise HonesError(f"{folder} has no *.safetensors", expected="a language model in the hub's format")
    weights: dict[str, Tensor] = {}
    for file in files:
        with seam(f"read the weights of {file}", do="take the whole file again"):
            weights |= load_file(file)
    with seam(f"read the tokenizer of {folder}", expected="tokenizer.json and tokenizer_config.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return BaseWeights(_below_decoder(weights), tokenizer)


def base_of_gguf(file: Path) -> BaseWeights:
    """The language model of a GGUF file; quantised numbers as float32. Needs the package gguf.

    Raises:
        HonesError: it cannot be read.
    """
    with seam(f"read the language model of {file}"):
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return BaseWeights(_below_decoder(model.state_dict()), tokenizer)


def _below_decoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("model."): weight for name, weight in weights.items() if name != "lm_head.weight"}


def digest_of(weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> str:
    """Of names, shapes and numbers in `dtype`, whatever file they lie in."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.to(dtype).contiguous().numpy().data)
    return f"sha256:{digest.hexdigest()[:16]}"


def words_digest(tokenizer: Any) -> str:
    """Of a tokenizer's vocabulary."""
    words = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda word: word[1]))
    return f"sha256:{hashlib.sha256(words.encode()).hexdigest()[:16]}"


def merge(base: Mapping[str, Tensor], difference: Mapping[str, Tensor], words: int) -> dict[str, Tensor]:
    """The weights of the vision-language model, float16, by the names of transformers' LLaVA.

    Args:
        words: how many the merged model has; those beyond the base's have embeddings of zero.
    """
    made: dict[str, Tensor] = {}
    for name, weight in base.items():
        path = f"language.{name.removesuffix('.weight')}"
        if f"{path}.up" in difference:
            made[LANGUAGE + name] = combined(weight, difference[f"{path}.up"], difference[f"{path}.down"])
        else:
            made[LANGUAGE + name] = weight.half()
    known = made[LANGUAGE + EMBEDDINGS]
    further = known.new_zeros(words - len(known), known.shape[1])
    made[LANGUAGE + EMBEDDINGS] = torch.cat([known, further])
    for part, place in (("tower.", TOWER), ("projector.", PROJECTOR)):
        made |= {place + name.removeprefix(part): w.half() for name, w in difference.items() if name.startswith(part)}
    return made
