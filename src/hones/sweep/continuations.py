"""Decoding the unedited model's drafts, and the rows that left theirs, many at once, each under its own intervention.

A row is one (prompt, intervention) whose greedy choice at answer token k is not the draft's. It brings the keys and
values of everything before that token, right-aligned; rows of all layers, heads and prompts are decoded together with
a cache, one token a step, until they end or reach the limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Real, Shaped
from torch import Tensor, nn

from hones.models.interventions import Intervention
from hones.sweep.baseline import Baseline, Prefixes, Suffixes
from hones.sweep.decoder import DecoderInput, RowEdits
from hones.sweep.endings import Endings
from hones.sweep.layer_rows import LayerRows
from hones.sweep.prompts import Picture, Prompt

Cell = tuple[int, int]  # (intervention, member)


@dataclass
class Continuation:
    """N rows to go on with, each after some tokens of an answer.

    keys, values: per layer. positions: of the next token. tokens: the answer so far, the newest not yet in the cache.
    edits: index of each row's intervention.
    """

    cells: list[Cell]
    keys: list[Float[Tensor, "n heads s d"]]
    values: list[Float[Tensor, "n heads s d"]]
    valid: Bool[Tensor, "n s"]
    positions: Real[Tensor, "*axes n"]
    tokens: list[list[int]]
    edits: Int[Tensor, " n"]


def align_right(
    states: Shaped[Tensor, "rows heads w d"], rows: Int[Tensor, " n"], lengths: Int[Tensor, " n"], size: int
) -> Shaped[Tensor, "n heads s d"]:
    """The first `lengths` positions of some rows, moved to the end of `size` positions."""
    rows = rows.to(states.device)
    lengths = lengths.to(states.device)
    # Places before a row's first position repeat that one: they are masked, and a gather needs some valid index.
    at = (torch.arange(size, device=states.device) - size + lengths[:, None]).clamp(min=0)
    return states.transpose(1, 2)[rows[:, None], at].transpose(1, 2)


def draft_answers(
    baseline: Baseline,
    pictures: Sequence[Picture],
    prefixes: Prefixes,
    asked: Sequence[tuple[int, Prompt]],
    endings: Endings,
) -> list[list[int]]:
    """The unedited model's greedy answers, end token included where it came."""
    suffixes = baseline.suffixes(pictures, prefixes, asked, [[] for _ in asked])
    assert suffixes.output is not None
    first = baseline.choose(suffixes.output)
    everyone = torch.arange(len(asked), device=first.device)
    begun = continuation(
        suffixes,
        suffixes.cache,
        rows=everyone,
        prompts=everyone,
        accepted=torch.zeros_like(everyone),
        tokens=[[token] for token in first.tolist()],
    )
    begun.cells = [(row, prompt.owner) for row, (_, prompt) in enumerate(asked)]
    answers = decode(baseline, [begun], [], endings)
    return [answers[cell] for cell in begun.cells]


def continuation(
    suffixes: Suffixes,
    cache: Sequence[LayerRows],
    rows: Int[Tensor, " n"],
    prompts: Int[Tensor, " n"],
    accepted: Int[Tensor, " n"],
    tokens: list[list[int]],
) -> Continuation:
    """Rows to go on decoding after `accepted` tokens of their drafts.

    Their keys and values are those of `rows` in `cache`, or of `prompts` where a layer's are the baseline's own.
    """
    size = suffixes.valid.shape[1]
    asked = suffixes.asked[prompts] + accepted
    lengths = size - suffixes.hidden.shape[1] + asked
    keys = []
    values = []
    for of_rows, of_baseline in zip(cache, suffixes.cache, strict=True):
        edited = of_rows.keys is not None
        source = of_rows if edited else of_baseline
        index = rows if edited else prompts
        assert source.keys is not None and source.values is not None
        keys.append(align_right(source.keys, index, lengths, size))
        values.append(align_right(source.values, index, lengths, size))
    valid = align_right(suffixes.valid[:, None, :, None], prompts, lengths, size)[:, 0, :, 0]
    reached = torch.arange(size, device=rows.device) >= size - lengths[:, None]
    positions = suffixes.first[..., prompts] + asked
    return Continuation([], keys, values, valid & reached, positions, tokens, torch.zeros_like(rows))


def decode(
    baseline: Baseline, parts: Sequence[Continuation], interventions: Sequence[Intervention], endings: Endings
) -> dict[Cell, list[int]]:
    """The whole answers of all rows, by cell; none of no rows."""
    if not parts:
        return {}
    decoder = baseline.decoder
    answers = {cell: list(tokens) for part in parts for cell, tokens in zip(part.cells, part.tokens, strict=True)}
    size = max(part.valid.shape[1] for part in parts)
    cells = [cell for part in parts for cell in part.cells]
    valid = torch.cat([nn.functional.pad(part.valid, (size - part.valid.shape[1], 0)) for part in parts])
    positions = torch.cat([part.positions for part in parts], -1)
    edits = RowEdits(interventions, torch.cat([part.edits for part in parts]), decoder.anatomy)
    cache = [
        LayerRows(
            size,
            _joined([part.keys[layer] for part in parts], size, endings.max_new_tokens),
            _joined([part.values[layer] for part in parts], size, endings.max_new_tokens),
        )
        for layer in range(len(decoder.layers))
    ]
    alive = torch.tensor([endings.goes_on(cell[1], answers[cell]) for cell in cells], device=valid.device)
    while bool(alive.any()):
        if alive.float().mean() < 0.7:  # copying the cache costs about as much as a few steps of rows that have ended
            kept = alive.nonzero()[:, 0]
            cells = [cells[i] for i in kept.tolist()]
            valid = valid[kept]
            positions = positions[..., kept]
            alive = alive[kept]
            edits.of = edits.of[kept]
            for layer in cache:
                layer.keep(kept)
        newest = torch.tensor([answers[cell][-1] for cell in cells], device=valid.device)
        valid = torch.cat([valid, torch.ones_like(valid[:, :1])], 1)
        embedded = baseline.embed(newest)[:, None]
        entry = DecoderInput(embedded, positions[..., None], valid, cache, edits=edits, embedded=True)
        hidden = decoder.run(entry)
        assert hidden is not None
        chosen = baseline.choose(hidden[:, -1]).tolist()
        for i in alive.nonzero()[:, 0].tolist():
            answer = answers[cells[i]]
            answer.append(chosen[i])
            alive[i] = endings.goes_on(cells[i][1], answer)
        positions = positions + 1
    return answers


def _joined(states: Sequence[Float[Tensor, "_ heads _ d"]], size: int, room: int) -> Float[Tensor, "n heads _ d"]:
    """All rows in one buffer, their positions before `size`, zeros before those, and room for more.

    Zeros, for what is masked is multiplied by 0, and an empty buffer may hold NaN.
    """
    _, heads, _, width = states[0].shape
    buffer = states[0].new_empty(sum(map(len, states)), heads, size + room, width)
    at = 0
    for part in states:
        rows = buffer[at : at + len(part)]
        begin = size - part.shape[2]
        rows[:, :, :begin] = 0
        rows[:, :, begin:size] = part
        at += len(part)
    return buffer
