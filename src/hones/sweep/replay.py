"""The fast engine of a sweep: the same cells as the definition, from what the unedited model has already computed.

1. Each picture is encoded once, whatever the number of interventions.
2. An intervention at layer l starts from the baseline's residual entering layer l.
3. The attention of layer l is the baseline's; its heads fan out as rows:
       o_proj(x') = o_proj(x) + W_h (mean over j != h of x_j - x_h).
4. No decoding where nothing changes: one teacher-forced pass over the baseline's own answer; rows that choose another
   token at some position go on from there, decoded together.
5. One prefix per (picture, intervention), shared by all prompts of all tasks about that picture.
6. Only what is read: no logits elsewhere; of the last layer only keys and values in the prefix, and its FFN only at the
   wanted positions of the suffix.

Rows are (intervention e, prompt j) in the order e * J + j. Each saving can be switched off; the numbers stay.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.interventions import Intervention
from hones.models.vlm import VLM
from hones.sweep.answers import Answers
from hones.sweep.baseline import Baseline, Prefixes, Suffixes
from hones.sweep.continuations import Part, decode
from hones.sweep.decoder import Activations, LayerRows, RowEdits, Trace, Wanted, others_mean
from hones.sweep.memory import MOST_PICTURES, Plan, bytes_per_position, is_out_of_memory
from hones.sweep.prompts import Picture, Prompt, encode_pictures
from hones.tasks.base import Example, Task

T = TypeVar("T")
M = TypeVar("M")


@dataclass(frozen=True)
class Savings:
    """Which savings are on; the numbers are those of the module's list."""

    picture_once: bool = True
    start_at_layer: bool = True
    fan_out: bool = True
    draft: bool = True
    shared_prefix: bool = True
    wanted_only: bool = True


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


class Replay:
    """Answers groups of examples under many interventions.

    Args:
        plan: how much goes through the decoder at once.
    """

    def __init__(self, vlm: VLM, *, max_new_tokens: int, plan: Plan, savings: Savings | None = None) -> None:
        self.vlm, self.max_new_tokens, self.plan = vlm, max_new_tokens, plan
        self.savings = savings = savings or Savings()
        self.baseline = Baseline(vlm, savings.wanted_only)
        self.decoder = self.baseline.decoder

    # --- answers ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def statistics(
        self,
        members: Sequence[tuple[Task, Example]],
        edits: Sequence[Intervention],
        advance: Callable[[float], object] = lambda cells: None,
    ) -> list[Float[np.ndarray, "edits _"]]:
        """The statistics of every member under every intervention; `advance` hears of finished cells.

        When the device runs out of memory, passes and the group are halved and the group is begun again.
        """
        parts = self.in_parts(members, lambda part: self._statistics(part, edits, advance))
        return [statistics for part in parts for statistics in part]

    def in_parts(self, members: Sequence[M], work: Callable[[Sequence[M]], T]) -> list[T]:
        """Do a group's work at once, or in halves with passes of half the size where memory runs out.

        Raises:
            HonesError: the smallest passes on a single member do not fit.
        """
        try:
            return [work(members)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if self.vlm.device.type == "cuda":
            torch.cuda.empty_cache()
        self.plan = self.plan.halved(last=len(members) == 1)
        half = (len(members) + 1) // 2
        return [x for part in (members[:half], members[half:]) if part for x in self.in_parts(part, work)]

    def _statistics(
        self, members: Sequence[tuple[Task, Example]], edits: Sequence[Intervention], advance: Callable[[float], object]
    ) -> list[Float[np.ndarray, "edits _"]]:
        answers = Answers(self.vlm, members, edits)
        pictures = self.encode([example for _, example in members])
        prefixes = self.baseline.prefixes(pictures)
        batches = []
        for kind in ("text", "yes_no", "log_probability"):
            for batch in self._batches(pictures, lambda p, kind=kind: members[p.owner][0].answers == kind):
                drafts = [[]] * len(batch)
                if kind == "text":
                    drafts = self.baseline.drafts(pictures, prefixes, batch, self.max_new_tokens)
                elif kind == "log_probability":
                    drafts = [self._gold(members[p.owner][1]) for _, p in batch]
                answers.take_drafts(batch, drafts)
                given = drafts if self.savings.draft or kind != "text" else [[]] * len(batch)
                suffixes = self.baseline.suffixes(pictures, prefixes, batch, given, keep_cache=kind == "text")
                batches.append(suffixes)
                if kind != "text":
                    answers.take_numbers(batches[-1], range(len(edits)), batches[-1].output)
        waiting: list[Part] = []
        for done in self.passes(prefixes, batches, edits):
            if not self.savings.picture_once:
                self._encode_again(done, [example for _, example in members])
            if members[done.suffixes.prompts[0].owner][0].answers != "text":
                answers.take_numbers(done.suffixes, done.edits, done.output)
            else:
                waiting += self._left(done, answers)
                if sum(part.bytes for part in waiting) > self.plan.row_bytes:
                    self._go_on(waiting, edits, answers)
                    waiting = []
            advance(len(done.edits) * sum(1 / len(members[p.owner][1].prompts) for p in done.suffixes.prompts))
        self._go_on(waiting, edits, answers)
        return answers.statistics()

    def _encode_again(self, done: Pass, examples: Sequence[Example]) -> None:
        """What a picture costs that is encoded for every intervention and prompt; the result is the same."""
        asked = [
            replace(examples[p.owner], prompts=(examples[p.owner].prompts[p.number],)) for p in done.suffixes.prompts
        ]
        for _ in done.edits:
            encode_pictures(self.vlm, asked, batch_size=MOST_PICTURES, share=False)

    def _gold(self, example: Example) -> list[int]:
        return self.vlm.gold_ids(example.prompts[0], example.references[0])

    def _go_on(self, waiting: Sequence[Part], edits: Sequence[Intervention], answers: "Answers") -> None:
        """Decode the rows that left their draft."""
        if waiting:
            base = self.baseline
            found = decode(self.decoder, waiting, edits, base.embed, base.choose, base.ends, self.max_new_tokens)
            answers.texts.update(found)

    def encode(self, examples: Sequence[Example]) -> list[Picture]:
        """A group's pictures with their prompts."""
        return encode_pictures(self.vlm, examples, batch_size=MOST_PICTURES, share=self.savings.shared_prefix)

    @torch.no_grad()
    def last_logits(self, examples: Sequence[Example], edits: Sequence[Intervention]) -> Float[Tensor, "e n v"]:
        """Logits where each example's first prompt ends, under every intervention."""
        found: dict[tuple[int, int], Tensor] = {}
        for done in self.readings(examples, edits):
            logits = self.vlm.anatomy.lm_head(done.output).view(len(done.edits), len(done.suffixes.prompts), -1)
            for n, e in enumerate(done.edits):
                found.update({(e, p.owner): logits[n, j] for j, p in enumerate(done.suffixes.prompts)})
        return torch.stack([torch.stack([found[e, n] for n in range(len(examples))]) for e in range(len(edits))])

    @torch.no_grad()
    def readings(self, examples: Sequence[Example], edits: Sequence[Intervention]) -> Iterator[Pass]:
        """Passes that read z where each example's first prompt ends, under every intervention.

        `suffixes.activations` of a pass holds the unedited model's; a layer that is missing in the pass is unchanged.
        """
        pictures = self.encode([replace(example, prompts=example.prompts[:1]) for example in examples])
        prefixes = self.baseline.prefixes(pictures)
        batches = [
            self.baseline.suffixes(pictures, prefixes, batch, [[]] * len(batch), read=True, keep_cache=False)
            for batch in self._batches(pictures, lambda prompt: True)
        ]
        yield from self.passes(prefixes, batches, edits)

    def _batches(
        self, pictures: Sequence[Picture], which: Callable[[Prompt], bool]
    ) -> Iterator[list[tuple[int, Prompt]]]:
        """Prompts by length, as many as one pass takes, each with the row of its picture."""
        asked = [(b, p) for b, picture in enumerate(pictures) for p in picture.prompts if which(p)]
        ordered = sorted(asked, key=lambda x: len(x[1].ids) - pictures[x[0]].shared)
        batch: list[tuple[int, Prompt]] = []
        for b, prompt in ordered:
            width = len(prompt.ids) - pictures[b].shared + self.max_new_tokens
            if len(batch) >= self._rows_at_once(width, pictures[b].shared):
                yield batch
                batch = []
            batch.append((b, prompt))
        if batch:
            yield batch

    def _left(self, done: Pass, answers: "Answers") -> list[Part]:
        """Take the rows that keep to their draft as answered; return the others with their first own token."""
        suffixes, device = done.suffixes, done.suffixes.of.device
        count, draft_of = suffixes.shape[0], suffixes.wanted.rows.tolist()
        chosen = self.baseline.choose(done.output).view(len(done.edits), -1).cpu()
        differs = chosen != suffixes.labels.cpu() if self.savings.draft else torch.ones_like(chosen, dtype=torch.bool)
        first: dict[tuple[int, int], int] = {}
        for e, n in differs.nonzero().tolist():
            first.setdefault((e, draft_of[n]), n)
        begins = {j: n for n, j in reversed([*enumerate(draft_of)])}
        left = []
        for (e, j), n in first.items():
            accepted = n - begins[j]
            tokens = [*suffixes.drafts[j][:accepted], int(chosen[e, n])]
            cell = (done.edits[e], suffixes.prompts[j].owner)
            answers.texts[cell] = tokens
            if tokens[-1] not in self.baseline.ends and len(tokens) < self.max_new_tokens:
                left.append((cell, e * count + j, j, accepted, tokens))
        if not left:
            return []
        cells, rows, prompts, accepted, tokens = zip(*left, strict=True)
        row, prompt, count = (torch.tensor(x, device=device) for x in (rows, prompts, accepted))
        part = self.baseline.part(suffixes, done.cache, row, prompt, count, list(tokens))
        part.cells, part.edits = list(cells), torch.tensor([e for e, _ in cells], device=device)
        return [part]

    # --- passes ----------------------------------------------------------------------------------------------------

    def passes(self, prefixes: Prefixes, batches: Sequence[Suffixes], edits: Sequence[Intervention]) -> Iterator[Pass]:
        """Every (intervention, prompt) row once; interventions without an edit are the baseline and are not run."""
        by_layer: dict[int, list[int]] = defaultdict(list)
        for e, intervention in enumerate(edits):
            if intervention.layers:
                by_layer[intervention.layers[0] if self.savings.start_at_layer else 0].append(e)
        count, length = prefixes.shape
        at_once = max(1, self._rows_at_once(length, 0) // count)
        for layer, members in sorted(by_layer.items()):
            for start in range(0, len(members), at_once):
                chunk = members[start : start + at_once]
                cache = self._prefix_rows(prefixes, layer, [edits[e] for e in chunk])
                for suffixes in batches:
                    rows, width = suffixes.shape
                    step = max(1, self._rows_at_once(width, length) // rows)
                    for at in range(0, len(chunk), step):
                        part = slice(at, min(at + step, len(chunk)))
                        yield self._suffix_rows(prefixes, suffixes, cache, layer, chunk[part], part, edits)

    def _prefix_rows(self, prefixes: Prefixes, layer: int, edits: Sequence[Intervention]) -> list[LayerRows]:
        """Keys and values [E * B, ...] of the prefixes under each intervention, at the layers where they differ."""
        count, _ = prefixes.shape
        cache = self.baseline.empty_cache()
        if self._first_of_its_own(layer) == len(self.decoder.layers):
            return cache
        attention = self._attention(prefixes.trace, layer, edits)
        self.decoder.run(
            prefixes.trace.residual[layer].repeat(len(edits), 1, 1),
            _repeat(prefixes.positions, len(edits), -2),
            prefixes.valid.repeat(len(edits), 1),
            cache,
            start=layer,
            attention=attention,
            edits=self._rows(edits, count),
        )
        return cache

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
        (count, width), (pictures, length) = suffixes.shape, prefixes.shape
        attention, first = self._attention(suffixes.trace, layer, interventions), self._first_of_its_own(layer)
        cache = []
        for number, rows in enumerate(prefix_cache):
            if number < first or rows.keys is None or rows.values is None:
                cache.append(LayerRows(length))
                continue
            keys, values = (x.view(-1, pictures, *x.shape[1:])[part][:, suffixes.of] for x in (rows.keys, rows.values))
            cache.append(LayerRows(length, keys, values, room=width))
        repeated = [torch.arange(len(chosen), device=suffixes.of.device)[:, None] * count + suffixes.wanted.rows]
        wanted = Wanted(repeated[0].flatten(), suffixes.wanted.columns.repeat(len(chosen)))
        activations = Activations(wanted) if suffixes.activations is not None else None
        hidden = self.decoder.run(
            suffixes.trace.residual[layer].repeat(len(chosen), 1, 1),
            _repeat(suffixes.positions, len(chosen), -2),
            suffixes.valid.repeat(len(chosen), 1),
            cache,
            start=layer,
            attention=attention,
            edits=self._rows(interventions, count),
            wanted=wanted if self.savings.wanted_only else None,
            activations=activations,
        )
        assert hidden is not None
        return Pass(suffixes, chosen, hidden[wanted.rows, wanted.columns], cache, activations)

    def _rows_at_once(self, width: int, past: int) -> int:
        layers = len(self.decoder.layers)
        return self.plan.rows_at_once(width, layers * (past + width) * bytes_per_position(self.vlm))

    def _rows(self, edits: Sequence[Intervention], count: int) -> RowEdits:
        of = torch.arange(len(edits), device=self.vlm.device).repeat_interleave(count)
        return RowEdits(edits, of, self.vlm.anatomy)

    def _first_of_its_own(self, layer: int) -> int:
        """The first layer whose keys and values are computed for each row, where edits begin at `layer`."""
        return layer + (self.savings.fan_out and self.savings.start_at_layer)

    def _attention(self, trace: Trace, layer: int, edits: Sequence[Intervention]) -> Float[Tensor, "rows t d"] | None:
        """What the attention of the first edited layer gives under each intervention, e-major."""
        if self._first_of_its_own(layer) == layer:
            return None
        o_proj, heads = self.decoder.layers[layer].o_proj, self.vlm.anatomy.heads
        x = trace.heads[layer]
        unedited, by_head = o_proj(x), x.unflatten(-1, (heads, -1))
        change = others_mean(by_head) - by_head
        weight = o_proj.weight.view(o_proj.out_features, heads, -1)
        out = unedited.repeat(len(edits), 1, 1).view(len(edits), *unedited.shape)
        for e, edit in enumerate(edits):
            for head in (h for at, h in edit.heads if at == layer):
                out[e] += change[:, :, head] @ weight[:, head].T
        return out.flatten(0, 1)


def _repeat(x: Tensor, times: int, dim: int) -> Tensor:
    """x repeated along one dimension."""
    shape = [1] * x.ndim
    shape[dim] = times
    return x.repeat(shape)
