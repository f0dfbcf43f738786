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
7. A few neurons edited at layer l change what layer l adds to the residual of the prefix, which enters layer l + 1.

Rows are (intervention e, prompt j) in the order e * J + j. Each saving can be switched off; the numbers stay.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.sweep.answers import Answered, Answers, Engine, Member
from hones.sweep.baseline import Baseline
from hones.sweep.continuations import Cell, Continuation, continuation, decode, draft_answers
from hones.sweep.endings import Endings
from hones.sweep.memory import MemoryPlan, is_out_of_memory, rows_at_once
from hones.sweep.passes import Pass, Passes, ReplaySavings
from hones.sweep.prompts import Picture, Prompt, encode_pictures
from hones.tasks.base import Example

T = TypeVar("T")
M = TypeVar("M")


class Replay(Engine):
    """Answers groups of examples under many interventions.

    left_draft: how many texts so far were not the unedited model's.

    Args:
        plan: how much goes through the decoder at once.
    """

    def __init__(
        self, vlm: VLM, *, max_new_tokens: int, plan: MemoryPlan, savings: ReplaySavings | None = None
    ) -> None:
        self.vlm = vlm
        self.max_new_tokens = max_new_tokens
        self.plan = plan
        self.savings = savings or ReplaySavings()
        self.baseline = Baseline(vlm, self.savings.wanted_only)
        self.passes = Passes(self.baseline, self.savings)
        self.left_draft = 0

    # --- answers ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def answer(
        self,
        members: Sequence[Member],
        edits: Sequence[Intervention],
        advance: Callable[[float], object] = lambda cells: None,
    ) -> list[Answered]:
        """What every member answers under every intervention; `advance` hears of finished cells.

        When the device runs out of memory, passes and the group are halved and the group is begun again.
        """
        parts = self.in_parts(members, lambda part: self._answer(part, edits, advance))
        return [answered for part in parts for answered in part]

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

    def _answer(
        self, members: Sequence[Member], edits: Sequence[Intervention], advance: Callable[[float], object]
    ) -> list[Answered]:
        answers = Answers(self.vlm, members, edits)
        endings = Endings(self.vlm, self.max_new_tokens, members)
        examples = [example for _, example in members]
        pictures = encode_pictures(self.vlm, examples, share=self.savings.shared_prefix)
        prefixes = self.baseline.prefixes(pictures)
        batches = []
        for kind in ("text", "yes_no", "log_probability"):
            for batch in self._batches(pictures, lambda p, kind=kind: members[p.owner][0].answers == kind):
                drafts = [[]] * len(batch)
                if kind == "text":
                    drafts = draft_answers(self.baseline, pictures, prefixes, batch, endings)
                elif kind == "log_probability":
                    gold = [members[p.owner][1] for _, p in batch]
                    drafts = [self.vlm.gold_ids(x.prompts[0], x.references[0]) for x in gold]
                answers.drafts.update({p.owner: draft for (_, p), draft in zip(batch, drafts, strict=True)})
                given = drafts if self.savings.draft or kind != "text" else [[]] * len(batch)
                suffixes = self.baseline.suffixes(pictures, prefixes, batch, given, keep_cache=kind == "text")
                batches.append(suffixes)
                if kind != "text":
                    answers.take_numbers(suffixes, range(len(edits)), suffixes.output)
        waiting: list[Continuation] = []
        for done in self.passes.run(prefixes, batches, edits, self.plan):
            if not self.savings.picture_once:
                self._encode_again(done, examples)
            if members[done.suffixes.prompts[0].owner][0].answers != "text":
                answers.take_numbers(done.suffixes, done.edits, done.output)
            else:
                waiting += self._left(done, answers, endings)
                # Rows of many passes are decoded together, a step costs the same for few; as many as memory holds.
                if sum(x.nbytes for part in waiting for x in (*part.keys, *part.values)) > self.plan.row_bytes:
                    answers.texts |= decode(self.baseline, waiting, edits, endings)
                    waiting = []
            advance(len(done.edits) * sum(1 / len(members[p.owner][1].prompts) for p in done.suffixes.prompts))
        answers.texts |= decode(self.baseline, waiting, edits, endings)
        return answers.of_members()

    def _encode_again(self, done: Pass, examples: Sequence[Example]) -> None:
        """What a picture costs that is encoded for every intervention and prompt; the result is the same."""
        asked = [
            replace(examples[p.owner], prompts=(examples[p.owner].prompts[p.number],)) for p in done.suffixes.prompts
        ]
        for _ in done.edits:
            encode_pictures(self.vlm, asked, share=False)

    @torch.no_grad()
    def last_logits(self, examples: Sequence[Example], edits: Sequence[Intervention]) -> Float[Tensor, "e n v"]:
        """Logits where each example's first prompt ends, under every intervention."""
        of_cell: dict[Cell, Tensor] = {}
        for done in self.readings(examples, edits):
            logits = self.vlm.head(done.output).view(len(done.edits), len(done.suffixes.prompts), -1)
            for n, e in enumerate(done.edits):
                of_cell.update({(e, p.owner): logits[n, j] for j, p in enumerate(done.suffixes.prompts)})
        return torch.stack([torch.stack([of_cell[e, m] for m in range(len(examples))]) for e in range(len(edits))])

    @torch.no_grad()
    def readings(
        self, examples: Sequence[Example], edits: Sequence[Intervention], drafts: Sequence[list[int]] | None = None
    ) -> Iterator[Pass]:
        """Passes that read z where each example's first prompt ends, under every intervention.

        With drafts, teacher forced, z is read where each of a draft's tokens is predicted.
        `suffixes.activations` of a pass holds the unedited model's; a layer that is missing in the pass is unchanged.
        """
        first = [replace(example, prompts=example.prompts[:1]) for example in examples]
        pictures = encode_pictures(self.vlm, first, share=self.savings.shared_prefix)
        prefixes = self.baseline.prefixes(pictures)
        batches = [
            self.baseline.suffixes(
                pictures,
                prefixes,
                batch,
                [drafts[p.owner] if drafts else [] for _, p in batch],
                read=True,
                keep_cache=False,
            )
            for batch in self._batches(pictures, lambda prompt: True)
        ]
        yield from self.passes.run(prefixes, batches, edits, self.plan)

    def _batches(
        self, pictures: Sequence[Picture], which: Callable[[Prompt], bool]
    ) -> Iterator[list[tuple[int, Prompt]]]:
        """Prompts of similar length, as many as one pass takes, each with the row of its picture, in their order."""
        asked = [(b, p) for b, picture in enumerate(pictures) for p in picture.prompts if which(p)]
        # By the length of the suffix: a batch is padded to its longest.
        ordered = sorted(asked, key=lambda x: len(x[1].ids) - pictures[x[0]].shared)
        batch: list[tuple[int, Prompt]] = []
        for b, prompt in ordered:
            width = len(prompt.ids) - pictures[b].shared + self.max_new_tokens
            if len(batch) >= rows_at_once(self.vlm, self.plan, width, pictures[b].shared):
                yield sorted(batch, key=lambda x: x[0])
                batch = []
            batch.append((b, prompt))
        if batch:
            yield sorted(batch, key=lambda x: x[0])

    def _left(self, done: Pass, answers: Answers, endings: Endings) -> list[Continuation]:
        """Take the rows that keep to their draft as answered; return the others with their first own token.

        A teacher-forced pass is only right up to the first token that a row chooses otherwise: what it predicts after
        that follows a token that the row would not have written. So a row keeps its draft before that token, takes the
        token, and is decoded from there.
        """
        suffixes = done.suffixes
        draft_of = suffixes.wanted.rows.tolist()
        chosen = self.baseline.choose(done.output).view(len(done.edits), -1).cpu()
        differs = chosen != suffixes.labels.cpu() if self.savings.draft else torch.ones_like(chosen, dtype=torch.bool)
        first_difference: dict[tuple[int, int], int] = {}
        for e, n in differs.nonzero().tolist():  # in the order of the tokens, so the first of a row stays
            first_difference.setdefault((e, draft_of[n]), n)
        # Backwards, so that of the wanted positions of a draft its first is what remains.
        begins = {j: n for n, j in reversed([*enumerate(draft_of)])}
        self.left_draft += len(first_difference)
        cells: list[Cell] = []
        rows: list[int] = []
        prompts: list[int] = []
        accepted: list[int] = []
        answered: list[list[int]] = []
        for (e, j), n in first_difference.items():
            kept = n - begins[j]
            tokens = [*suffixes.drafts[j][:kept], int(chosen[e, n])]
            cell = (done.edits[e], suffixes.prompts[j].owner)
            answers.texts[cell] = tokens
            if endings.goes_on(cell[1], tokens):
                cells.append(cell)
                rows.append(e * len(suffixes.hidden) + j)
                prompts.append(j)
                accepted.append(kept)
                answered.append(tokens)
        if not cells:
            return []
        device = suffixes.of.device
        left = continuation(
            suffixes,
            done.cache,
            rows=torch.tensor(rows, device=device),
            prompts=torch.tensor(prompts, device=device),
            accepted=torch.tensor(accepted, device=device),
            tokens=answered,
        )
        left.cells = cells
        left.edits = torch.tensor([e for e, _ in cells], device=device)
        return [left]
