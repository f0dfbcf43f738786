"""Entering the language model at any layer, on any number of rows, through its own forward.

A pass over rows that differ from the baseline from layer l on calls the family's own decoder with the baseline's
residual entering layer l: layers below l hand their input on, the residual takes its place where it enters layer l, and
there the attention may be given. So positions, masks and whatever else a family prepares for its layers are made by its
own code for these rows, what it does to embeddings first (learned positions, a factor) is done to embeddings alone, and
no forward is copied. Layers may be on several devices: what is kept of a layer stays on its own, and
what goes into a pass and comes out of it is on that of its positions.
Shapes: rows R, new positions T, past positions P, residual width d.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, nn
from transformers import Cache

from hones.models.adapters import adapting
from hones.models.anatomy import Anatomy
from hones.models.capture import ENTERING, HEADS, LEAVING, Z, capture, forward_is
from hones.models.interventions import Intervention
from hones.sweep.layer_rows import LayerRows, PassEnds
from hones.sweep.prompts import Unserved


@dataclass(frozen=True)
class ReadPositions:
    """The positions whose output is read: row and column of each, N of them, rows in order."""

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, " n"]

    def of(self, x: Float[Tensor, "rows t width"]) -> Float[Tensor, "n width"]:
        """What x has there, on its device."""
        return x[self.rows.to(x.device), self.columns.to(x.device)]


@dataclass
class Activations:
    """z, the input of down_proj, at some positions of the layers that a pass ran."""

    at: ReadPositions
    z: dict[int, Float[Tensor, "n neurons"]] = field(default_factory=dict)


@dataclass
class Trace:
    """What the baseline left at each layer: the residual entering it, and the heads' outputs entering o_proj."""

    residual: list[Float[Tensor, "rows t d"]] = field(default_factory=list)
    heads: list[Float[Tensor, "rows t heads"]] = field(default_factory=list)


class RowEdits:
    """Which intervention each row is under; E interventions, R rows."""

    def __init__(self, interventions: Sequence[Intervention], of: Int[Tensor, " rows"], anatomy: Anatomy) -> None:
        self.of = of
        self.anatomy = anatomy
        self.factors: dict[int, Float[Tensor, "edits neurons"]] = {}
        self.constants: dict[int, Float[Tensor, "edits neurons"]] = {}
        count = len(interventions)
        device = of.device
        replaced: dict[int, Bool[np.ndarray, "edits heads"]] = {}
        for e, intervention in enumerate(interventions):
            for layer, head in intervention.heads:
                # set on the CPU: a subset of the heads of a large model has hundreds, each a launch on a device
                replaced.setdefault(layer, np.zeros((count, anatomy.layers[layer].heads), dtype=bool))[e, head] = True
            scaled = [*((site, 0.0) for site in intervention.masked)]
            scaled += [(site, 1 + s) for site, s in intervention.scales.items() if site not in intervention.masked]
            by_layer: dict[int, tuple[list[int], list[float]]] = {}
            for (layer, neuron), factor in scaled:
                indices, factors = by_layer.setdefault(layer, ([], []))
                indices.append(neuron)
                factors.append(factor)
            for layer, (indices, factors) in by_layer.items():
                if layer not in self.factors:
                    self.factors[layer] = torch.ones(count, anatomy.neurons, device=device)
                self.factors[layer][e, torch.tensor(indices, device=device)] = torch.tensor(factors, device=device)
            if not intervention.only_masks:
                self._replace(e, count, intervention)
        self.heads = {layer: torch.from_numpy(of_layer).to(device) for layer, of_layer in replaced.items()}
        self.adapters = [(e, edit.adapter) for e, edit in enumerate(interventions) if edit.adapter is not None]

    def _replace(self, e: int, count: int, intervention: Intervention) -> None:
        """The factors and constants of all neurons that an intervention replaces, after those that it names."""
        values = None if intervention.constants is None else torch.from_numpy(intervention.constants.values)
        for layer, neurons in intervention.replaced().items():
            indices = torch.from_numpy(neurons).to(self.of.device)
            if layer not in self.factors:
                self.factors[layer] = torch.ones(count, self.anatomy.neurons, device=self.of.device)
            self.factors[layer][e, indices] = 0
            if values is not None:
                if layer not in self.constants:
                    self.constants[layer] = torch.zeros(count, self.anatomy.neurons, device=self.of.device)
                self.constants[layer][e, indices] = values[layer].to(self.of.device)[indices]

    @contextmanager
    def on(self, entry: "DecoderInput", wanted: ReadPositions | None) -> Iterator[None]:
        """Edit a pass from its first layer on. At the last layer the FFN's rows are those of `wanted`, if given."""
        last = len(self.anatomy.layers) - 1
        known = entry.start if entry.attention is not None else None  # an attention that is given has its edits in it

        def replace(layer: int, x: Tensor) -> Tensor:
            by_head = x.unflatten(-1, (self.anatomy.layers[layer].heads, -1))
            replaced = self.heads[layer][self.of]
            return torch.where(replaced[:, None, :, None].to(x.device), others_mean(by_head), by_head).flatten(-2)

        def of_ffn(layer: int) -> Int[Tensor, " rows"]:
            return self.of[wanted.rows] if wanted is not None and layer == last else self.of

        def under(e: int, at_heads: bool, layer: int) -> Bool[Tensor, " rows"]:
            return (self.of if at_heads else of_ffn(layer)) == e

        def multiply(layer: int, z: Tensor) -> Tensor:
            of = of_ffn(layer)
            factors = self.factors[layer][of]
            edited = z.to(torch.promote_types(z.dtype, factors.dtype)) * factors[:, None].to(z.device)
            if layer in self.constants:
                edited = edited + self.constants[layer][of][:, None].to(z.device)
            return edited.to(z.dtype)

        heads = [layer for layer in self.heads if layer >= entry.start and layer != known]
        factors = [layer for layer in self.factors if layer >= entry.start]
        with ExitStack() as stack:
            stack.enter_context(capture(self.anatomy, HEADS, replace, heads))
            stack.enter_context(capture(self.anatomy, Z, multiply, factors))
            for e, adapter in self.adapters:
                at_heads = adapter.part.place is HEADS
                here = {
                    layer: vector
                    for layer, vector in adapter.vectors.items()
                    if layer >= entry.start and not (at_heads and layer == known)
                }
                stack.enter_context(adapting(self.anatomy, adapter.part, here, partial(under, e, at_heads)))
            yield


def others_mean(x: Float[Tensor, "*rows heads width"]) -> Float[Tensor, "*rows heads width"]:
    """For each head the mean of all others."""
    return (x.sum(-2, keepdim=True) - x) / (x.shape[-2] - 1)


def name_of_the_past(forward: Callable[..., Any]) -> str:
    """What a decoder's forward calls keys and values of the past: transformers 5.24 renames them."""
    parameters = inspect.signature(forward).parameters
    return "cache" if "cache" in parameters and "past_key_values" not in parameters else "past_key_values"


@dataclass
class DecoderInput:
    """Rows that enter the decoder at a layer.

    hidden: the residual entering layer `start`; where `embedded`, embeddings that the decoder makes a residual of.
    positions: whole numbers, which some families keep as floating-point ones (Qwen3-Omni).
    valid: which past and new positions are not padding. cache: each layer's past. attention: what the attention of
    layer `start` gives, where it is known. edits: placed at layers from `start` on. between: what is added to what
    leaves a layer.
    """

    hidden: Float[Tensor, "rows t d"]
    positions: Real[Tensor, "*axes rows t"]
    valid: Bool[Tensor, "rows p_and_t"]
    cache: Sequence[LayerRows]
    start: int = 0
    attention: Float[Tensor, "rows t d"] | None = None
    edits: RowEdits | None = None
    between: Mapping[int, Float[Tensor, "rows t d"]] = field(default_factory=dict)
    embedded: bool = False


class Decoder:
    """The language model of a VLM."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.layers = anatomy.layers
        self.returns_tuple = False  # of a decoder layer, found out by the first trace
        self.past = name_of_the_past(anatomy.decoder.forward)

    def run(
        self,
        entry: DecoderInput,
        *,
        wanted: ReadPositions | None = None,
        trace: Trace | None = None,
        activations: Activations | None = None,
        gradients: bool = False,
    ) -> Float[Tensor, "rows t d"] | None:
        """The final hidden states after the norm, or None where the cache or a hook ended the pass before.

        Args:
            wanted: run the last layer's FFN at these positions only, where it can be; other outputs are then
                meaningless.
            trace: filled with what enters each layer and its o_proj; the pass starts at layer 0.
            activations: filled, for layers from `start` on, with the FFN's z at its positions.
            gradients: record the pass for autograd.

        Raises:
            Unserved: layers go on from a state, which keys and values of some positions do not give.
        """
        keeping = [layer for layer, of_layer in enumerate(self.layers) if of_layer.keeps_state]
        if keeping:
            raise Unserved(f"layer {keeping[0]} goes on from a state, not from keys and values")
        start = entry.start
        last = self.layers[-1]
        wanted = wanted if last.by_position else None
        whole_ffn = last.mlp.forward

        def hand_on(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return (hidden_states,) if self.returns_tuple else hidden_states

        def ffn_where_wanted(x: Tensor) -> Tensor:
            assert wanted is not None
            out = torch.zeros_like(x)
            there = wanted.rows.to(x.device), wanted.columns.to(x.device)
            out[there] = whole_ffn(wanted.of(x)[:, None])[:, 0].to(x.device)  # each position as a row of its own
            return out

        def form(_: nn.Module, __: Any, output: Any) -> None:
            self.returns_tuple = isinstance(output, tuple)

        def read(layer: int, z: Tensor) -> None:
            assert activations is not None
            only = wanted is not None and layer == len(self.layers) - 1  # then the FFN runs at these positions alone
            activations.z[layer] = z[:, 0] if only else activations.at.of(z)

        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            # Layers below the first hand their input on, and what is known of the first is not computed again
            for layer in self.layers[:start]:
                stack.enter_context(forward_is(layer.block, hand_on))
            if not entry.embedded:
                stack.enter_context(capture(self.anatomy, ENTERING, lambda _, x: entry.hidden.to(x.device), [start]))
            if entry.attention is not None:
                stack.enter_context(forward_is(self.layers[start].attention, lambda *_, **__: (entry.attention, None)))
            if wanted is not None:
                stack.enter_context(forward_is(last.mlp, ffn_where_wanted))
            added = [layer for layer in entry.between if layer >= start]
            stack.enter_context(capture(self.anatomy, LEAVING, lambda at, x: x + entry.between[at].to(x.device), added))
            if entry.edits is not None:
                stack.enter_context(entry.edits.on(entry, wanted))
            if trace is not None:
                for layer in self.layers:
                    stack.enter_context(layer.block.register_forward_hook(form))
                stack.enter_context(capture(self.anatomy, ENTERING, lambda _, x: trace.residual.append(x)))
                stack.enter_context(capture(self.anatomy, HEADS, lambda _, x: trace.heads.append(x)))
            if activations is not None:
                stack.enter_context(capture(self.anatomy, Z, read, range(start, len(self.layers))))
            try:
                output = self.anatomy.decoder(
                    inputs_embeds=entry.hidden.to(entry.positions.device),
                    position_ids=entry.positions,
                    attention_mask=entry.valid.long(),
                    use_cache=True,
                    **{self.past: Cache(layers=list(entry.cache))},
                )
            except PassEnds:
                return None
        return output.last_hidden_state.to(entry.positions.device)
