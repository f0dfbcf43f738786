"""A model's shapes without its weights: the configuration is built on torch's meta device, where tensors have no data.

Sizes of the decoder's layers come from its anatomy, as everywhere else; those of the vision part from its linears and
convolutions. A folder needs config.json alone for this, and the processor's files for the lengths of prompts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from hones.errors import HonesError
from hones.models.anatomy import find_anatomy
from hones.models.loading import BUILT_IN, DTYPES, auto_model, source_of
from hones.models.processors import is_text_only, processor_for
from hones.models.vlm import VLM, AnswerTokens

Number = int | float
PROJECTORS = ("projector", "merger", "connector", "aligner")
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Linears:
    """Some linears: all their weights, and the numbers that enter and leave them at one position."""

    weights: Number = 0
    numbers: Number = 0

    @classmethod
    def between(cls, width: int, other: int) -> "Linears":
        """One that takes so many numbers and gives so many."""
        return cls(width * other, width + other)

    @classmethod
    def of(cls, modules: Iterable[nn.Module], layers: int = 1) -> "Linears":
        """The mean over layers of all linears and convolutions."""
        shapes = [m.weight.shape for m in modules if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)]
        return cls(sum(s.numel() for s in shapes) / layers, sum(s[0] + s[1:].numel() for s in shapes) / layers)


@dataclass(frozen=True)
class VisionShapes:
    """The vision part: its encoder, and what maps to the decoder.

    depth: layers; full_layers: those whose patches see the whole tile, the others a window of `window` patches.
    extra: positions of a tile beside its patches. patch: numbers of a patch.
    """

    encoder: Linears = Linears()
    projector: Linears = Linears()
    width: int = 0
    depth: int = 0
    full_layers: int = 0
    window: int | None = None
    extra: int = 0
    patch: int = 1


@dataclass(frozen=True)
class Shapes:
    """A model's shapes.

    qkv, out, ffn: one decoder layer's linears (mean over layers): queries, keys and values; o_proj; FFN. keys: numbers
    of a position's keys and values in a layer. parameters: all numbers of the model. itemsize: bytes of a number.
    """

    name: str
    layers: int
    heads: int
    head_dim: int
    neurons: int
    width: int
    vocabulary: int
    qkv: Linears
    out: Linears
    ffn: Linears
    keys: int
    parameters: int
    itemsize: int
    vision: VisionShapes

    @property
    def inner(self) -> int:
        """H d_h."""
        return self.heads * self.head_dim

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return self.parameters * self.itemsize

    @property
    def bytes_per_position(self) -> int:
        """Keys and values of one position in one layer as the sweep counts them (`hones.sweep.memory`)."""
        return 2 * self.inner * self.itemsize


def weightless(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> VLM:
    """A model without weights, and its processor: it wraps and encodes prompts, but cannot run.

    Args:
        name: as `load_vlm` takes it; a folder needs config.json and the processor's files only.

    Raises:
        HonesError: no such model, or one whose heads and neurons are not found.
    """
    source = source_of(name)
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, **({"revision": revision} if revision else {})}
    try:
        config = AutoConfig.from_pretrained(source, **hub)
        with torch.device("meta"):
            model = auto_model(config).from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise HonesError(
            f"cannot read the configuration of {name!r} ({' '.join(str(error).split())[:200]})",
            expected=f"{', '.join(BUILT_IN)}, a folder with config.json and the processor's files, or a hub id",
            do="check the spelling, the folder or the network; weights are not needed",
        ) from error
    processor, backend = processor_for(source, config, **hub), "none" if is_text_only(config) else "pil"
    return VLM(name, model, processor, find_anatomy(model), "", backend, AnswerTokens(0, 1, "", 0.0))


def shapes_of(vlm: VLM, dtype: str) -> Shapes:
    """The shapes of a model, with or without weights, in a dtype."""
    anatomy, count = vlm.anatomy, len(vlm.anatomy.layers)
    pairs = getattr(vlm.model.config.get_text_config(), "num_key_value_heads", None) or anatomy.heads
    return Shapes(
        name=vlm.name,
        layers=count,
        heads=anatomy.heads,
        head_dim=anatomy.head_dim,
        neurons=anatomy.neurons,
        width=anatomy.width,
        vocabulary=anatomy.lm_head.out_features,
        qkv=Linears.of([m for x in anatomy.layers for m in x.attention.modules() if m is not x.o_proj], count),
        out=Linears.of([x.o_proj for x in anatomy.layers], count),
        ffn=Linears.of([m for x in anatomy.layers for m in x.mlp.modules()], count),
        keys=2 * int(pairs) * anatomy.head_dim,
        parameters=sum(p.numel() for p in vlm.model.parameters()),
        itemsize=DTYPES[dtype].itemsize,
        vision=vision_shapes(vlm) if vlm.shows_pictures else VisionShapes(),
    )


def vision_shapes(vlm: VLM) -> VisionShapes:
    """The part of the model that is neither decoder nor lm_head."""
    model, anatomy = vlm.model, vlm.anatomy
    config: Any = getattr(model.config, "vision_config", None)
    if config is None:
        raise HonesError(f"{type(model).__name__}: no vision_config", do="`hones plan` cannot count its vision part")
    of_decoder = {id(m) for m in (*anatomy.decoder.modules(), anatomy.lm_head)}
    others = {name: m for name, m in model.named_modules() if id(m) not in of_decoder}
    projector = {name: m for name, m in others.items() if any(word in name for word in PROJECTORS)}
    encoder = [m for name, m in others.items() if name not in projector]
    depth = int(getattr(config, "num_hidden_layers", None) or config.depth)
    window = getattr(config, "window_size", None)
    side = config.patch_size[0] if isinstance(config.patch_size, list | tuple) else config.patch_size
    return VisionShapes(
        encoder=Linears.of(encoder),
        projector=Linears.of(projector.values()),
        width=config.hidden_size,
        depth=depth,
        full_layers=depth if window is None else len(config.fullatt_block_indexes),
        window=None if window is None else (window // side) ** 2,
        extra=1 if any("class_embedding" in name for name, _ in model.named_parameters()) else 0,
        patch=next(m.weight[0].numel() for m in encoder if isinstance(m, CONVOLUTIONS)),
    )
