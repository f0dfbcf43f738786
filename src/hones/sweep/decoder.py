"""Entering the language model at any layer, on any number of rows, through its own forward.

A pass over rows that differ from the baseline from layer l on calls the family's own decoder with the baseline's
residual entering layer l as its input embeddings: layers below l hand their input on, and at layer l the attention may
be given. So rotary positions, masks and whatever else a family prepares for its layers are made by its own code for
these rows, and no forward is copied. Layers may be on several devices: what is kept of a layer stays on its own, and
what goes into a pass and comes out of it is on that of its positions.
Shapes: rows R, new positions T, past positions P, residual width d.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache

from hones.models.anatomy import Anatomy
from hones.models.interventions import Intervention
from hones.sweep.layer_rows import LayerRows, PassEnds


@dataclass(frozen=True)
class Wanted:
    """The positions whose output is read: row and column of each, N of them, rows in order."""

    rows: Int[Tensor, " n"]
    columns: Int[Tensor, " n"]

    def of(self, x: Float[Tensor, "rows t width"]) -> Float[Tensor, "n width"]:
        """What x has there, on its device."""
        return x[self.rows.to(x.device), self.columns.to(x.device)]


@dataclass
class Activations:
    """z, the input of down_proj, at some positions of the layers that a pass ran."""

    at: Wanted
    z: dict[int, Float[Tensor, "n neurons"]] = field(default_factory=dict)


@dataclass
class Trace:
    """What the baseline left at each layer: the residual entering it, and the heads' outputs entering o_proj."""

    residual: list[Float[Tensor, "rows t d"]] = field(default_factory=list)
    heads: list[Float[Tensor, "rows t heads"]] = field(default_factory=list)


class RowEdits:
    """Which intervention each row is under; E interventions, R rows."""

    def __init__(self, interventions: Sequence[Intervention], of: Int[Tensor, " rows"], anatomy: Anatomy) -> None:
        self.of, self.anatomy = of, anatomy
        self.heads: dict[int, Bool[Tensor, "edits heads"]] = {}
        self.factors: dict[int, Float[Tensor, "edits neurons"]] = {}
        count, device = len(interventions), of.device
        for e, intervention in enumerate(interventions):
            for layer, head in intervention.heads:
                if layer not in self.heads:
                    self.heads[layer] = torch.zeros(count, anatomy.heads, dtype=torch.bool, device=device)
                self.heads[layer][e, head] = True
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

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Drop all rows but these."""
        self.of = self.of[rows]

    def place(self, stack: ExitStack, start: int, skip_heads_at: int | None, wanted: Wanted | None) -> None:
        """Hook the projections of layers from `start` on. At the last layer rows are those of `wanted`, if given."""
        last = len(self.anatomy.layers) - 1
        for layer, replaced in self.heads.items():
            if layer >= start and layer != skip_heads_at:
                hook = _hook(_replace(replaced[self.of], self.anatomy.heads))
                stack.callback(self.anatomy.layers[layer].o_proj.register_forward_pre_hook(hook).remove)
        for layer, factors in self.factors.items():
            if layer >= start:
                of = self.of[wanted.rows] if wanted is not None and layer == last else self.of
                hook = _hook(_multiply(factors[of]))
                stack.callback(self.anatomy.layers[layer].down_proj.register_forward_pre_hook(hook).remove)


def others_mean(x: Float[Tensor, "*rows heads width"]) -> Float[Tensor, "*rows heads width"]:
    """For each head the mean of all others."""
    return (x.sum(-2, keepdim=True) - x) / (x.shape[-2] - 1)


def _replace(replaced: Bool[Tensor, "rows heads"], heads: int) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        by_head = x.unflatten(-1, (heads, -1))
        return torch.where(replaced[:, None, :, None].to(x.device), others_mean(by_head), by_head).flatten(-2)

    return change


def _multiply(factors: Float[Tensor, "rows neurons"]) -> Callable[[Tensor], Tensor]:
    return lambda z: (z.to(torch.promote_types(z.dtype, factors.dtype)) * factors[:, None].to(z.device)).to(z.dtype)


def _hook(change: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Any, ...]]:
    return lambda _, args: (change(args[0]), *args[1:])


class Decoder:
    """The language model of a VLM."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.layers = anatomy.layers
        self.returns_tuple = False  # of a decoder layer, found out by the first trace

    def run(
        self,
        hidden: Float[Tensor, "rows t d"],
        positions: Int[Tensor, "*axes rows t"],
        valid: Bool[Tensor, "rows p_and_t"],
        cache: Sequence[LayerRows],
        *,
        start: int = 0,
        attention: Float[Tensor, "rows t d"] | None = None,
        edits: RowEdits | None = None,
        wanted: Wanted | None = None,
        trace: Trace | None = None,
        activations: Activations | None = None,
        between: Mapping[int, Float[Tensor, "rows t d"]] | None = None,
        gradients: bool = False,
    ) -> Float[Tensor, "rows t d"] | None:
        """The final hidden states after the norm, or None where the cache or a hook ended the pass before.

        Args:
            hidden: the residual entering layer `start`.
            valid: which past and new positions are not padding.
            attention: what the attention of layer `start` gives, where it is known.
            edits: placed at layers from `start` on; heads of layer `start` only where `attention` is not given.
            wanted: run the last layer's FFN at these positions only; other outputs are then meaningless.
            trace: filled with what enters each layer and its o_proj.
            activations: filled, for layers from `start` on, with the FFN's z at its positions.
            between: added to what leaves a layer, for layers from `start` on.
            gradients: record the pass for autograd.
        """
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            for layer in self.layers[:start]:
                stack.enter_context(_forward_is(layer.block, self._hand_on))
            if attention is not None:
                given = attention
                stack.enter_context(_forward_is(self.layers[start].attention, lambda *_, **__: (given, None)))
            if wanted is not None:
                stack.enter_context(_forward_is(self.layers[-1].mlp, _only(self.layers[-1].mlp.forward, wanted)))
            for layer, features in (between or {}).items():
                if layer >= start:
                    hook = self.layers[layer].block.register_forward_hook(_adding(features))
                    stack.callback(hook.remove)
            if edits is not None:
                edits.place(stack, start, start if attention is not None else None, wanted)
            if trace is not None:
                self._watch(stack, trace)
            if activations is not None:
                self._read(stack, activations, start, wanted)
            try:
                output = self.anatomy.decoder(
                    inputs_embeds=hidden.to(positions.device),
                    position_ids=positions,
                    attention_mask=valid.long(),
                    past_key_values=Cache(layers=list(cache)),
                    use_cache=True,
                )
            except PassEnds:
                return None
        return output.last_hidden_state.to(positions.device)

    def _read(self, stack: ExitStack, activations: "Activations", start: int, wanted: Wanted | None) -> None:
        at = activations.at

        def read(layer: int) -> Callable[..., None]:
            only = wanted is not None and layer == len(self.layers) - 1

            def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
                activations.z[layer] = args[0][:, 0] if only else at.of(args[0])

            return hook

        for layer in range(start, len(self.layers)):
            stack.callback(self.layers[layer].down_proj.register_forward_pre_hook(read(layer)).remove)

    def _hand_on(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states,) if self.returns_tuple else hidden_states

    def _watch(self, stack: ExitStack, trace: Trace) -> None:
        def entering(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            trace.residual.append(args[0] if args else kwargs["hidden_states"])

        def leaving(_: nn.Module, __: Any, output: Any) -> None:
            self.returns_tuple = isinstance(output, tuple)

        for layer in self.layers:
            stack.callback(layer.block.register_forward_pre_hook(entering, with_kwargs=True).remove)
            stack.callback(layer.block.register_forward_hook(leaving).remove)
            hook = layer.o_proj.register_forward_pre_hook(lambda _, args: trace.heads.append(args[0]))
            stack.callback(hook.remove)


def _adding(features: Float[Tensor, "rows t d"]) -> Callable[..., Any]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        left = output[0] if isinstance(output, tuple) else output
        left = left + features.to(left.device)
        return (left, *output[1:]) if isinstance(output, tuple) else left

    return hook


def _only(forward: Callable[[Tensor], Tensor], wanted: Wanted) -> Callable[[Tensor], Tensor]:
    """An FFN that runs at the wanted positions, each as a row of its own, and gives zeros elsewhere."""

    def run(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        there = wanted.rows.to(x.device), wanted.columns.to(x.device)
        out[there] = forward(wanted.of(x)[:, None])[:, 0].to(x.device)
        return out

    return run


@contextmanager
def _forward_is(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let this instance's forward be another function for a while."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
