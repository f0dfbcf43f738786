"""A model's shapes without its weights, and what a pass through them costs: operations, and bytes read and written.

The configuration is built on torch's meta device, where tensors have no data; a folder needs config.json alone for it.
A pass takes R rows of T new positions that see P others, n = R T, through the layers s .. L - 1. With W the weights of
a layer's linears (qkv, out and ffn) and A = H d_h the width of all heads together, one layer costs

    2 n W              the linears: two per weight and position
    4 n (P + T) A      scores and mixing; all of the rectangle, as kernels that take a padding mask compute it

and moves its weights once, what enters and leaves each linear, and the keys and values that the rows see. A layer
whose attention is given runs its FFN alone; the last layer may stop at its keys and values, or run its FFN at the
wanted positions only. Of a layer that goes on from a state its linears are counted,
not the state. Backwards costs as much as forwards, its attention 2.5 times as much: the backbone is frozen.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.processing_utils import ProcessorMixin
from transformers.pytorch_utils import Conv1D

from hones.errors import seam
from hones.models.agreement import check_parts
from hones.models.answer_tokens import AnswerTokens
from hones.models.conventions import find_conventions
from hones.models.dtypes import DTYPES
from hones.models.finding import find_anatomy
from hones.models.loading import BUILT_IN, auto_model, source_of
from hones.models.mixtures import ExpertProjection
from hones.models.planted import config_of
from hones.models.processors import is_text_only, processor_for
from hones.models.vlm import VLM
from hones.sweep.memory import GIB

Number = int | float
BACKWARDS_OF_ATTENTION = 2.5


@dataclass(frozen=True)
class Work:
    """flop: floating-point operations. moved: bytes read and written."""

    flop: Number = 0.0
    moved: Number = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flop + other.flop, self.moved + other.moved)

    def __mul__(self, times: Number) -> "Work":
        return Work(self.flop * times, self.moved * times)


class Memory(NamedTuple):
    """Bytes. weights and kept can be shared by several devices; working is on the one that works."""

    weights: Number
    kept: Number = 0.0
    working: Number = 0.0

    @property
    def total(self) -> Number:
        return sum(self)

    def on_each(self, devices: int) -> Number:
        """On the fullest of so many devices."""
        return (self.weights + self.kept) / devices + self.working


def gib(number: Number) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{number / GIB:.1f} GiB" if number >= 0.1 * GIB else f"{number / 2**20:.1f} MiB"


class Linears(NamedTuple):
    """Some linears: all their weights, and the numbers that enter and leave them at one position."""

    weights: Number
    numbers: Number


def linears_of(modules: Iterable[nn.Module], layers: int = 1) -> Linears:
    """The mean over layers of all linears and convolutions."""
    shapes = [m.weight.shape for m in modules if isinstance(m, nn.Linear | Conv1D | nn.Conv2d | nn.Conv3d)]
    return Linears(sum(s.numel() for s in shapes) / layers, sum(s[0] + s[1:].numel() for s in shapes) / layers)


CHOSEN = ("num_experts_per_tok", "top_k_experts")
"""What configurations call how many experts a position is sent to."""


def with_experts(ffn: Linears, vlm: VLM) -> Linears:
    """An FFN's linears, and of a mixture's fused experts as many as a position is sent to."""
    mixtures = [x.down_proj for x in vlm.anatomy.layers if isinstance(x.down_proj, ExpertProjection)]
    if not mixtures:
        return ffn
    shapes = [p.shape[1:] for p in mixtures[0].groups[0].parameters() if p.ndim == 3]
    config = vlm.model.config.get_text_config()
    of_each = next((getattr(config, name) for name in CHOSEN if hasattr(config, name)), mixtures[0].layout.count)
    chosen = int(of_each) * len(mixtures) / len(vlm.anatomy.layers)
    return Linears(
        ffn.weights + chosen * sum(s.numel() for s in shapes), ffn.numbers + chosen * sum(sum(s) for s in shapes)
    )


@dataclass(frozen=True)
class Shapes:
    """A model's shapes, and its passes.

    heads, head_dim: of the layer with most of them, and where they are widest; head_counts: of every layer. stateful:
    how many layers go on from a state. inner: H d_h.
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
    inner: int
    head_counts: tuple[int, ...]
    stateful: int = 0

    @property
    def all_heads(self) -> int:
        """Of all layers."""
        return sum(self.head_counts)

    @property
    def attending(self) -> float:
        """The share of layers with attention."""
        return 1 - self.stateful / self.layers

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return self.parameters * self.itemsize

    @property
    def bytes_per_position(self) -> int:
        """Keys and values of one position in all layers as the sweep counts them (`hones.sweep.memory`)."""
        return 2 * self.inner * self.itemsize * self.layers

    def linear(self, positions: Number, linears: Linears, layers: Number = 1) -> Work:
        """Linears at some positions, in some layers."""
        if positions <= 0 or layers <= 0:
            return Work()
        moved = (linears.weights + positions * linears.numbers) * self.itemsize
        return Work(2.0 * positions * linears.weights, moved) * layers

    def mapping(self, positions: Number, width: int, other: int, layers: Number = 1) -> Work:
        """One linear from so many numbers to so many."""
        return self.linear(positions, Linears(width * other, width + other), layers)

    def unembedding(self, positions: Number) -> Work:
        """Logits at some positions: 2 V d each."""
        return self.mapping(positions, self.width, self.vocabulary)

    def passing(
        self,
        rows: Number,
        new: Number,
        past: Number,
        *,
        start: int = 0,
        given: bool = False,
        keys_only: bool = False,
        wanted: Number | None = None,
    ) -> Work:
        """One pass through the layers from `start` on.

        Args:
            rows, new, past: R, T and P of the module's formulas.
            given: the attention of layer `start` is known.
            keys_only: the last layer stops at its keys and values.
            wanted: positions at which the last layer's FFN runs; None: all.
        """
        n, depth = rows * new, self.layers - start
        attended = max(0, depth - given - keys_only)
        last = 0.0 if keys_only or depth <= 0 else n if wanted is None else wanted
        work = self.linear(n, self.qkv, depth - given) + self.linear(n, self.out, attended)
        work += self.linear(n, self.ffn, depth - 1) + self.linear(last, self.ffn)
        seen = past + new
        attended *= self.attending
        return work + Work(4.0 * n * seen * self.inner, rows * seen * self.keys * self.itemsize) * attended

    def there_and_back(self, rows: Number, length: Number, start: int, wanted: Number | None = None) -> Work:
        """One pass over whole rows, forwards and backwards."""
        attention = 4.0 * rows * length * length * self.inner * (self.layers - start) * self.attending
        forwards = self.passing(rows, length, 0, start=start, wanted=wanted)
        return forwards * 2 + Work(attention * (BACKWARDS_OF_ATTENTION - 1))


def weightless(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, chat_template: str | None = None
) -> VLM:
    """A model without weights, and its processor: it wraps and encodes prompts, but cannot run.

    Args:
        name: as `load_vlm` takes it; a folder needs config.json and the processor's files only.

    Raises:
        HonesError: no such model, or one whose heads and neurons are not found.
    """
    source = source_of(name)
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, **({"revision": revision} if revision else {})}
    known = f"{', '.join(BUILT_IN)}, a folder with config.json and the processor's files, or a hub id"
    do = "check the spelling, the folder or the network; weights are not needed"
    with seam(f"read the configuration of {name!r}", expected=known, do=do):
        config = AutoConfig.from_pretrained(source, **hub)
        check_parts(Path(source), config)
        config = config_of(name, config)
        model = _on_meta(config, trust_remote_code=trust_remote_code)
    return _light(name, model, processor_for(source, config, **hub), chat_template)


def weightless_of(name: str, config: Any, processor: ProcessorMixin, chat_template: str | None = None) -> VLM:
    """As `weightless`, of a configuration and a processor that are at hand."""
    return _light(name, _on_meta(config), processor, chat_template)


def _on_meta(config: Any, **options: Any) -> PreTrainedModel:
    with torch.device("meta"):
        return auto_model(config).from_config(config, **options)


def _light(name: str, model: PreTrainedModel, processor: ProcessorMixin, chat_template: str | None) -> VLM:
    backend = "none" if is_text_only(model.config) else "pil"
    tokens = AnswerTokens((0, 1), "", 0.0)
    conventions = find_conventions(name, model, processor, chat_template)
    return VLM(name, model, processor, find_anatomy(model), "", backend, tokens, conventions)


def shapes_of(vlm: VLM, dtype: str) -> Shapes:
    """The shapes of a model, with or without weights, in a dtype."""
    anatomy, count = vlm.anatomy, len(vlm.anatomy.layers)
    attention = {layer: {*layer.attention.modules()} for layer in anatomy.layers}
    pairs = getattr(vlm.model.config.get_text_config(), "num_key_value_heads", None) or anatomy.heads
    return Shapes(
        name=vlm.name,
        layers=count,
        heads=anatomy.heads,
        head_dim=anatomy.head_dim,
        neurons=anatomy.neurons,
        width=anatomy.width,
        vocabulary=anatomy.lm_head.out_features,
        qkv=linears_of([m for x in anatomy.layers for m in attention[x] if m is not x.o_proj], count),
        out=linears_of([x.o_proj for x in anatomy.layers], count),
        ffn=with_experts(
            linears_of([m for x in anatomy.layers for m in x.block.modules() if m not in attention[x]], count), vlm
        ),
        keys=2 * int(pairs) * anatomy.head_dim,
        parameters=sum(p.numel() for p in vlm.model.parameters()),
        itemsize=DTYPES[dtype].itemsize,
        inner=anatomy.inner,
        head_counts=anatomy.head_counts,
        stateful=sum(layer.keeps_state for layer in anatomy.layers),
    )
