"""The engine for families whose layers cannot be entered by `replay`: whole passes of the decoder, still exact.

Pictures are encoded once per prompt, whatever the number of interventions: the decoder is called again with just what
the model handed it, one intervention at a time on batches of prompts. Answers are drafted by the unedited model and
checked by one teacher-forced pass; only cells that leave their draft are generated anew. Logits are computed where they
are read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.models.interventions import BASELINE, Intervention
from hones.models.stopping import until_stop
from hones.models.vlm import TYPES_OF_TEXT, VLM, Encoded
from hones.sweep.answers import Answered, Engine, Member
from hones.sweep.decoder import ReadPositions
from hones.sweep.memory import halved_batch
from hones.sweep.prompts import kwargs_of_decoder
from hones.tasks.base import Example

Asked = Sequence[tuple[Example, str]]


@dataclass
class Forward(Engine):
    """Answers groups of examples by whole decoder passes.

    batch_size: prompts at once, halved when the device runs out of memory.
    """

    vlm: VLM
    max_new_tokens: int
    batch_size: int

    @torch.no_grad()
    def answer(
        self,
        members: Sequence[Member],
        edits: Sequence[Intervention],
        advance: Callable[[float], object] = lambda cells: None,
    ) -> list[Answered]:
        """What every member answers under every intervention; `advance` hears of finished cells."""
        answers: list[list[Sequence[Any]]] = [[] for _ in members]
        stops = dict.fromkeys(task.stop for task, _ in members if task.answers == "text")
        ways = [("text", stop, partial(self._texts, given=stop)) for stop in stops]
        ways += [("yes_no", None, self._margins), ("log_probability", None, self._gold)]
        for kind, stop, answer in ways:
            mine = [
                (m, x)
                for m, (task, x) in enumerate(members)
                if task.answers == kind and (kind != "text" or task.stop == stop)
            ]
            asked = [(m, prompt) for m, example in mine for prompt in example.prompts]
            while asked:
                part = asked[: self.batch_size]
                fitting = self._fitting(answer, [(members[m][1], prompt) for m, prompt in part], edits)
                for (m, _), of_prompt in zip(part, fitting, strict=False):
                    answers[m].append(of_prompt)
                    advance(len(edits) / len(members[m][1].prompts))
                asked = asked[len(fitting) :]
        found = []
        for member, of_prompts in zip(members, answers, strict=True):
            by_edit = [*np.stack(of_prompts, 1)] if member[0].answers == "yes_no" else of_prompts[0]
            found.append(Answered.of(member, by_edit))
        return found

    def _fitting(
        self,
        answer: Callable[[Asked, Sequence[Intervention]], list[Sequence[Any]]],
        part: Asked,
        edits: Sequence[Intervention],
    ) -> list[Sequence[Any]]:
        """Answers of the first prompts, as many as fit."""
        while True:
            try:
                return answer(part[: self.batch_size], edits)
            except (RuntimeError, MemoryError) as error:
                self.batch_size = halved_batch(self.batch_size, error, self.vlm.device)

    @torch.no_grad()
    def last_logits(self, examples: Sequence[Example], edits: Sequence[Intervention]) -> Float[Tensor, "e n v"]:
        """Logits where each example's first prompt ends, under every intervention."""
        handed = [kwargs_of_decoder(self.vlm, self._encode([(x, x.prompts[0])]).inputs) for x in examples]
        hidden = [torch.stack([self._hidden(kwargs, edit)[0, -1] for kwargs in handed]) for edit in edits]
        return torch.stack([self.vlm.head(rows) for rows in hidden])

    def _encode(self, asked: Asked) -> Encoded:
        pictures = {id(example): example.open_picture() for example, _ in asked}
        return self.vlm.encode([pictures[id(example)] for example, _ in asked], [prompt for _, prompt in asked])

    def _hidden(self, kwargs: dict[str, Any], edit: Intervention) -> Float[Tensor, "rows t d"]:
        """Final hidden states of the edited decoder."""
        with edit.on(self.vlm.model):
            return self.vlm.anatomy.decoder(**kwargs).last_hidden_state

    def _margins(self, asked: Asked, edits: Sequence[Intervention]) -> list[Sequence[Any]]:
        kwargs = kwargs_of_decoder(self.vlm, self._encode(asked).inputs)
        margins = [self.vlm.margins_of(self._hidden(kwargs, edit)[:, -1]).double().cpu() for edit in edits]
        return torch.stack(margins, 1).tolist()

    def _gold(self, asked: Asked, edits: Sequence[Intervention]) -> list[Sequence[Any]]:
        gold = [self.vlm.gold_ids(prompt, example.references[0]) for example, prompt in asked]
        passes = _TeacherForced(self.vlm, self._encode(asked), gold)
        log_p = []
        for edit in edits:
            of_token = self.vlm.token_log_probabilities(
                passes.at_answers(self._hidden(passes.kwargs, edit)), passes.labels
            )
            log_p.append(of_token.new_zeros(len(asked)).index_add(0, passes.rows, of_token).double().cpu())
        return torch.stack(log_p, 1).tolist()

    def _texts(self, asked: Asked, edits: Sequence[Intervention], given: Sequence[str] | None) -> list[Sequence[Any]]:
        """given: what the task says of where answers end."""
        encoded = self._encode(asked)
        stops = [self.vlm.stop_of(given, prompt) for _, prompt in asked]
        whole = self.vlm.generate_ids(encoded, self.max_new_tokens)
        drafts = [until_stop(self.vlm.tokenizer, ids, stop) for ids, stop in zip(whole, stops, strict=True)]
        passes = _TeacherForced(self.vlm, encoded, drafts)
        answers = [[self.vlm.text_of(draft, stop)] * len(edits) for draft, stop in zip(drafts, stops, strict=True)]
        for e, edit in enumerate(edits):
            if edit == BASELINE:
                continue
            logits = self.vlm.head(passes.at_answers(self._hidden(passes.kwargs, edit)))
            self.vlm.check_finite(logits)
            left = passes.rows[logits.argmax(-1).to(passes.labels.device) != passes.labels].unique().tolist()
            if left:
                again = self._encode([asked[row] for row in left])
                with edit.on(self.vlm.model):
                    texts = self.vlm.generate(again, self.max_new_tokens, [stops[row] for row in left])
                for row, text in zip(left, texts, strict=True):
                    answers[row][e] = text
        return [*answers]


class _TeacherForced:
    """Prompts followed by answers as the decoder takes them, and where it predicts the answers' tokens.

    labels: all tokens of all answers. rows: the prompt of each.
    """

    def __init__(self, vlm: VLM, encoded: Encoded, answers: Sequence[Sequence[int]]) -> None:
        length = encoded.inputs["input_ids"].shape[1]
        device = vlm.device
        self.kwargs = kwargs_of_decoder(vlm, with_answers(vlm, encoded, [a[:-1] for a in answers]).inputs)
        self.labels = torch.tensor([token for answer in answers for token in answer], device=device)
        self.rows = torch.tensor([r for r, answer in enumerate(answers) for _ in answer], device=device)
        self.columns = torch.tensor([length - 1 + k for a in answers for k in range(len(a))], device=device)

    def at_answers(self, hidden: Float[Tensor, "rows t d"]) -> Float[Tensor, "n d"]:
        """Hidden states that predict the labels."""
        return ReadPositions(self.rows, self.columns).of(hidden).to(self.rows.device)


def with_answers(vlm: VLM, encoded: Encoded, answers: Sequence[Sequence[int]]) -> Encoded:
    """Prompts with answer tokens appended, padded on the right; what runs along the tokens is extended with them."""
    inputs = dict(encoded.inputs)
    rows, length = inputs["input_ids"].shape
    width = max(map(len, answers))
    pad = vlm.conventions.padding.id
    tokens = torch.tensor([[*answer, *[pad] * (width - len(answer))] for answer in answers], dtype=torch.long)
    real = torch.tensor([[1] * len(answer) + [0] * (width - len(answer)) for answer in answers])
    types = torch.full((rows, width), TYPES_OF_TEXT.get(vlm.model.config.model_type, 0))
    tails = {"input_ids": tokens, "attention_mask": real, "token_type_ids": types}
    for name, value in inputs.items():
        if value.ndim == 2 and value.shape == (rows, length):
            tail = tails.get(name, torch.zeros_like(types)).view(rows, width)
            inputs[name] = torch.cat([value, tail.to(value)], 1)
    if "cross_attention_mask" in inputs:  # [rows, positions, pictures, tiles]
        seen = inputs["cross_attention_mask"]
        of_answers = seen[:, -1:].expand(-1, width, -1, -1)  # an answer sees what its prompt's end sees
        inputs["cross_attention_mask"] = torch.cat([seen, of_answers], 1)
    return Encoded(inputs)
