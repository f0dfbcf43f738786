"""Passes over rows (intervention, prompt) that start from what the unedited model left.

Rows are in the order e * J + j. The prefixes run once per intervention and picture and fill a cache; then the suffixes
of their prompts run on it. At the first edited layer l the attention is the baseline's, its heads fanned out:

    o_proj(x') = o_proj(x) + W_h (mean over j != h of x_j - x_h)

Where only a few neurons are edited at layer l, the prefixes enter layer l + 1, with what these neurons write changed:

    x'[l+1] = x[l+1] + sum over edited i of (factor_i - 1) z_i W_down[:,i]
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hones.models.anatomy import matrix
from hones.models.capture import Z, capture
from hones.models.interventions import BASELINE, Intervention
from hones.models.writing import has_plain_weights
from hones.sweep.baseline import Baseline, Prefixes, Suffixes
from hones.sweep.decoder import Activations, DecoderInput, ReadPositions, RowEdits, Trace, others_mean
from hones.sweep.layer_rows import LayerRows, PassEnds
from hones.sweep.memory import MemoryPlan, rows_at_once
from hones.sweep.prompts import Unserved


@dataclass(frozen=True)
class ReplaySavings:
    """Which savings are on, in the order of the list in `hones.sweep.replay`."""

    picture_once: bool = True
    start_at_layer: bool = True
    fan_out: bool = True
    draft: bool = True
    shared_prefix: bool = True
    wanted_only: bool = True
    written: bool = True


@dataclass
class Pass:
    """One pass over rows (e, j): the suffixes, the interventions by index, final hidden states at wanted positions.

    output [E * N, d], e-major; cache: the rows' keys and values, empty at layers that are the baseline's; activations:
    where the suffixes have theirs, at the layers that were run.
    """

    suffixes: Suffixes
    edits: list[int]
    output: Float[Tensor, "en d"]
    cache: list[LayerRows]
    activations: Activations | None


class Passes:
    """Runs passes of one model."""

    def __init__(self, baseline: Baseline, savings: ReplaySavings) -> None:
        self.vlm = baseline.vlm
        self.baseline = baseline
        self.savings = savings
        self.decoder = baseline.decoder
        # whether the first edited layer's keys, values and attention are the baseline's, its heads fanned out
        self.fans_out = savings.fan_out and savings.start_at_layer

    def run(
        self, prefixes: Prefixes, batches: Sequence[Suffixes], edits: Sequence[Intervention], plan: MemoryPlan
    ) -> Iterator[Pass]:
        """Every (intervention, prompt) row once; interventions without an edit are the baseline and are not run."""
        by_layer: dict[int, list[int]] = defaultdict(list)
        for e, intervention in enumerate(edits):
            if intervention.layers:
                by_layer[intervention.layers[0] if self.savings.start_at_layer else 0].append(e)
        count, length = prefixes.valid.shape
        room = max(suffixes.hidden.shape[1] for suffixes in batches)
        at_once = max(1, rows_at_once(self.vlm, plan, length, room) // count)
        for layer, members in sorted(by_layer.items()):
            z = self._z_that_is_written(prefixes, layer, [edits[e] for e in members])
            for start in range(0, len(members), at_once):
                chunk = members[start : start + at_once]
                cache = self._prefix_rows(prefixes, layer, [edits[e] for e in chunk], room, z)
                for suffixes in batches:
                    rows, width, _ = suffixes.hidden.shape
                    step = max(1, rows_at_once(self.vlm, plan, width, length) // rows)
                    for at in range(0, len(chunk), step):
                        part = slice(at, min(at + step, len(chunk)))
                        yield self._suffix_rows(prefixes, suffixes, cache, layer, chunk[part], part, edits)

    def _prefix_rows(
        self,
        prefixes: Prefixes,
        layer: int,
        edits: Sequence[Intervention],
        room: int,
        z: Float[Tensor, "b p neurons"] | None,
    ) -> list[LayerRows]:
        """Keys and values [E * B, ...] of the prefixes under each intervention, at the layers where they differ.

        z: of the unedited prefixes at `layer`, where what is edited there is what neurons write.
        """
        cache = self.baseline.empty_cache(room)
        if layer + self.fans_out == len(self.decoder.layers):
            return cache
        rows = self._rows(edits, len(prefixes.valid))
        if z is None:
            start = layer
            hidden = prefixes.trace.residual[layer].repeat(len(edits), 1, 1)
            attention = self._attention(prefixes.trace, layer, edits)
        else:
            start = layer + 1
            attention = None
            # what leaves the layer when its neurons are multiplied by the factors of each intervention
            factors = rows.factors[layer].to(z.device)
            edited = (factors != 1).any(0).nonzero()[:, 0]
            change = (z[..., edited] * (factors[:, None, None, edited] - 1)).to(z.dtype)
            written = change @ matrix(self.decoder.layers[layer].down_proj)[:, edited].T
            hidden = (prefixes.trace.residual[start].to(z.device) + written).flatten(0, 1)
        entry = DecoderInput(
            hidden=hidden,
            positions=torch.cat([prefixes.positions] * len(edits), -2),
            valid=prefixes.valid.repeat(len(edits), 1),
            cache=cache,
            start=start,
            attention=attention,
            edits=rows,
            between={at: x.repeat(len(edits), 1, 1) for at, x in prefixes.between.items() if at >= start},
        )
        self.decoder.run(entry)
        return cache

    def _z_that_is_written(
        self, prefixes: Prefixes, layer: int, edits: Sequence[Intervention]
    ) -> Float[Tensor, "b p neurons"] | None:
        """z of the unedited prefixes at a layer whose edits only change what a few neurons write, else None.

        None also after the last layer, and where the family's layer does not add W_down z itself to the residual
        or W_down is not known as numbers.
        """
        after = layer + 1
        few = self.vlm.anatomy.neurons // 16
        if self.vlm.no_write_in is not None:
            return None
        if not self.savings.written or not self.fans_out or after == len(self.decoder.layers):
            return None
        for edit in edits:
            neurons = sum(at == layer for at, _ in (*edit.masked, *edit.scales))
            if (
                not edit.only_masks
                or edit.adapter
                or not 0 < neurons <= few
                or any(at == layer for at, _ in edit.heads)
            ):
                return None
        residual = prefixes.trace.residual
        attention = self._attention(prefixes.trace, layer, [BASELINE])
        assert attention is not None
        entering: list[Tensor] = []

        def stop(_: int, z: Tensor) -> None:
            entering.append(z)
            raise PassEnds

        of_layer = self.decoder.layers[layer]
        cache = self.baseline.empty_cache()
        with capture(self.decoder.anatomy, Z, stop, [layer]):
            self.decoder.run(
                DecoderInput(
                    residual[layer], prefixes.positions, prefixes.valid, cache, start=layer, attention=attention
                )
            )
        (z,) = entering
        # What leaves the layer must be the sum of just these parts, to rounding: a norm or a gate behind down_proj, or
        # whatever else a family does there, would go missing.
        written = of_layer.down_proj(z[..., : of_layer.neurons])
        between = prefixes.between.get(layer, torch.zeros_like(residual[layer]))
        parts = [x.to(z.device) for x in (residual[layer], attention, written, between)]
        left = residual[after].to(z.device)
        size = sum(x.abs() for x in (*parts, left))
        exact = (sum(parts) - left).abs() <= 8 * torch.finfo(z.dtype).eps * size
        return z if bool(exact[prefixes.valid.to(z.device)].all()) else None

    def _suffix_rows(
        self,
        prefixes: Prefixes,
        suffixes: Suffixes,
        prefix_cache: list[LayerRows],
        layer: int,
        chosen: list[int],
        part: slice,
        edits: Sequence[Intervention],
    ) -> Pass:
        interventions = [edits[e] for e in chosen]
        count = len(suffixes.hidden)
        pictures, length = prefixes.valid.shape
        cache = []
        for number, rows in enumerate(prefix_cache):
            if number < layer + self.fans_out or rows.keys is None or rows.values is None:
                cache.append(LayerRows(length))  # below the edit nothing is run: the length alone is asked for
                continue
            # The picture's keys and values for every prompt about it. Where each picture has one prompt, its rows are
            # the prefixes' own and go on in their room, without a copy.
            keys, values = (x.unflatten(0, (-1, pictures))[part] for x in (rows.keys, rows.values))
            if not suffixes.one_per_picture:
                of = suffixes.of.to(keys.device)
                keys, values = keys.index_select(1, of), values.index_select(1, of)
            cache.append(LayerRows(length, keys.flatten(0, 1), values.flatten(0, 1)))
        of_edit = torch.arange(len(chosen), device=suffixes.of.device)[:, None] * count + suffixes.wanted.rows
        wanted = ReadPositions(of_edit.flatten(), suffixes.wanted.columns.repeat(len(chosen)))
        activations = Activations(wanted) if suffixes.activations is not None else None
        entry = DecoderInput(
            hidden=suffixes.trace.residual[layer].repeat(len(chosen), 1, 1),
            positions=torch.cat([suffixes.positions] * len(chosen), -2),
            valid=suffixes.valid.repeat(len(chosen), 1),
            cache=cache,
            start=layer,
            attention=self._attention(suffixes.trace, layer, interventions),
            edits=self._rows(interventions, count),
        )
        hidden = self.decoder.run(entry, wanted=wanted if self.savings.wanted_only else None, activations=activations)
        assert hidden is not None
        return Pass(suffixes, chosen, wanted.of(hidden), cache, activations)

    def _rows(self, edits: Sequence[Intervention], count: int) -> RowEdits:
        of = torch.arange(len(edits), device=self.vlm.device).repeat_interleave(count)
        return RowEdits(edits, of, self.vlm.anatomy)

    def _attention(self, trace: Trace, layer: int, edits: Sequence[Intervention]) -> Float[Tensor, "rows t d"] | None:
        """What the attention of the first edited layer gives under each intervention, e-major.

        What enters that layer is the baseline's, and so are its heads' outputs; o_proj is linear, so a replaced head
        changes what it gives by the head's own columns times the change of its output, and an adapter by all columns
        times what it changes then.
        """
        if not self.fans_out:
            return None
        o_proj = self.decoder.layers[layer].o_proj
        heads = self.decoder.layers[layer].heads
        if not has_plain_weights(o_proj):
            raise Unserved(f"the weights of its {type(o_proj).__name__} are quantised")
        x = trace.heads[layer]
        unedited = o_proj(x)
        by_head = x.unflatten(-1, (heads, -1))
        change = others_mean(by_head) - by_head
        weight = matrix(o_proj).unflatten(1, (heads, -1))
        out = unedited.repeat(len(edits), 1, 1).view(len(edits), *unedited.shape)
        for e, edit in enumerate(edits):
            for head in (h for at, h in edit.heads if at == layer):
                out[e] += change[:, :, head] @ weight[:, head].T
            if edit.adapter is not None and edit.adapter.edits_heads(layer):
                replaced = by_head.clone()
                for head in (h for at, h in edit.heads if at == layer):
                    replaced[:, :, head] += change[:, :, head]
                entering = replaced.flatten(-2)
                out[e] += (edit.adapter.heads_edited(layer, entering) - entering) @ matrix(o_proj).T
        return out.flatten(0, 1)
