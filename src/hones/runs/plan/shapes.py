"""A model's shapes without its weights: the configuration is built on torch's meta device, where tensors have no data.

Sizes of the decoder's layers come from its anatomy, as everywhere else; those of the vision part from its linears and
convolutions. A folder needs config.json alone for this, and the processor's files for the lengths of prompts.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from hones.errors import HonesError
from hones.models.anatomy import Anatomy, find_anatomy
from hones.models.loading import BUILT_IN, DTYPES, auto_model, source_of
from hones.models.processors import is_text_only, processor_for
from hones.models.vlm import VLM, AnswerTokens

Number = int | float
PROJECTORS = ("projector", "merger", "connector", "aligner")
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class VisionShapes:
    """The vision part: weights of its encoder and of what maps to the decoder, and what enters and leaves them.

    depth: layers; full_layers: those whose patches see the whole tile, the others a window of `window` patches.
    extra: positions of a tile beside its patches. patch: numbers of a patch.
    """

    encoder: int
    encoder_io: int
    projector: int
    projector_io: int
    width: int
    depth: int
    full_layers: int
    window: int | None
    extra: int
    patch: int


@dataclass(frozen=True)
class Shapes:
    """A model's shapes.

    qkv, out, ffn: weights of one decoder layer's linears (mean over layers): queries, keys and values; o_proj; FFN.
    *_io: numbers that enter and leave them at one position. keys: numbers of a position's keys and values in a layer.
    parameters: all numbers of the model. itemsize: bytes of a number.
    """

    name: str
    layers: int
    heads: int
    head_dim: int
    neurons: int
    width: int
    vocabulary: int
    qkv: Number
    out: Number
    ffn: Number
    qkv_io: Number
    out_io: Number
    ffn_io: Number
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


NO_VISION = VisionShapes(0, 0, 0, 0, 0, 0, 0, None, 0, 1)  # of a text-only model


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
    qkv = [m for x in anatomy.layers for m in linears(x.attention) if m is not x.o_proj]
    out = [x.o_proj for x in anatomy.layers]
    ffn = [m for x in anatomy.layers for m in linears(x.mlp)]
    config = vlm.model.config.get_text_config()
    pairs = getattr(config, "num_key_value_heads", None) or anatomy.heads
    return Shapes(
        name=vlm.name,
        layers=count,
        heads=anatomy.heads,
        head_dim=anatomy.head_dim,
        neurons=anatomy.neurons,
        width=anatomy.width,
        vocabulary=anatomy.lm_head.out_features,
        qkv=sum(map(weights, qkv)) / count,
        out=sum(map(weights, out)) / count,
        ffn=sum(map(weights, ffn)) / count,
        qkv_io=sum(map(numbers, qkv)) / count,
        out_io=sum(map(numbers, out)) / count,
        ffn_io=sum(map(numbers, ffn)) / count,
        keys=2 * int(pairs) * anatomy.head_dim,
        parameters=sum(p.numel() for p in vlm.model.parameters()),
        itemsize=DTYPES[dtype].itemsize,
        vision=vision_shapes(vlm.model, anatomy) if vlm.shows_pictures else NO_VISION,
    )


def vision_shapes(model: PreTrainedModel, anatomy: Anatomy) -> VisionShapes:
    """The part of the model that is neither decoder nor lm_head."""
    own = {id(m) for m in (*anatomy.decoder.modules(), anatomy.lm_head)}
    found = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d) and id(m) not in own
    }
    projector = [m for name, m in found.items() if any(word in name for word in PROJECTORS)]
    encoder = [m for m in found.values() if not any(m is p for p in projector)]
    config: Any = getattr(model.config, "vision_config", None)
    if config is None:
        raise HonesError(f"{type(model).__name__}: no vision_config", do="`hones plan` cannot count its vision part")
    depth = first_of(config, "num_hidden_layers", "depth")
    side, window = config.patch_size, getattr(config, "window_size", None)
    full = len(config.fullatt_block_indexes) if window is not None else depth
    patches = next(m for m in encoder if isinstance(m, CONVOLUTIONS))
    side = side[0] if isinstance(side, list | tuple) else side
    return VisionShapes(
        encoder=sum(map(weights, encoder)),
        encoder_io=sum(map(numbers, encoder)),
        projector=sum(map(weights, projector)),
        projector_io=sum(map(numbers, projector)),
        width=config.hidden_size,
        depth=depth,
        full_layers=full,
        window=None if window is None else (window // side) ** 2,
        extra=1 if any("class_embedding" in name for name, _ in model.named_parameters()) else 0,
        patch=patches.weight[0].numel(),
    )


def first_of(config: Any, *names: str) -> int:
    """The first of these settings that there is."""
    return next(int(getattr(config, name)) for name in names if getattr(config, name, None) is not None)


def linears(module: nn.Module) -> list[nn.Linear]:
    """All linear layers of a module."""
    return [m for m in module.modules() if isinstance(m, nn.Linear)]


def weights(module: nn.Linear | nn.Conv2d | nn.Conv3d) -> int:
    """Numbers of its weight."""
    return module.weight.numel()


def numbers(module: nn.Linear | nn.Conv2d | nn.Conv3d) -> int:
    """What enters and leaves it at one position."""
    return module.weight[0].numel() + module.weight.shape[0]
