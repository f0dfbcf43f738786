"""The engine for families whose layers cannot be entered by `replay`: whole passes of the decoder, still exact.

Pictures are encoded once per item: the decoder is called again with just what the model handed it, one intervention
and one item at a time (for retrieval: its candidates in batches). Answers are drafted by the unedited model and checked
by one teacher-forced pass; only cells that leave their draft are generated anew. Logits are computed where they are
read.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, Encoded
from hones.sweep.naive import Naive
from hones.sweep.prompts import kwargs_of_decoder
from hones.tasks.base import Example, Task

TYPES_OF_TEXT = {"paligemma": 1}  # what a family's token_type_ids are for answers; 0 elsewhere


class Forward:
    """Answers groups of examples by whole decoder passes.

    Args:
        batch_size: prompts at once.
    """

    def __init__(self, vlm: VLM, *, max_new_tokens: int, batch_size: int) -> None:
        self.vlm, self.max_new_tokens, self.batch_size = vlm, max_new_tokens, batch_size
        self.naive = Naive(vlm, max_new_tokens=max_new_tokens, batch_size=batch_size)

    @torch.no_grad()
    def statistics(
        self,
        members: Sequence[tuple[Task, Example]],
        edits: Sequence[Intervention],
        advance: Callable[[float], object] = lambda cells: None,
    ) -> list[Float[np.ndarray, "edits _"]]:
        """The statistics of every member under every intervention; `advance` hears of finished cells."""
        found = []
        for task, example in members:
            answers = {"yes_no": self._margins, "text": self._texts, "log_probability": self._gold}[task.answers](
                example, edits
            )
            scored = [task.statistics(example, answer) for answer in answers]
            found.append(np.array(scored, dtype=np.float32))
            advance(len(edits))
        return found

    @torch.no_grad()
    def last_logits(self, examples: Sequence[Example], edits: Sequence[Intervention]) -> Float[Tensor, "e n v"]:
        """Logits where each example's first prompt ends, under every intervention."""
        handed = [self._decoder_kwargs(self._encode(x, x.prompts[:1])) for x in examples]
        hidden = [torch.stack([self._last(kwargs, edit)[0] for kwargs in handed]) for edit in edits]
        return torch.stack([self.vlm.anatomy.lm_head(rows) for rows in hidden])

    def _encode(self, example: Example, prompts: Sequence[str]) -> Encoded:
        return self.vlm.encode([example.open_picture()] * len(prompts), prompts)

    def _decoder_kwargs(self, encoded: Encoded) -> dict[str, Any]:
        return kwargs_of_decoder(self.vlm, encoded.inputs)

    def _last(self, kwargs: dict[str, Any], edit: Intervention, count: int = 1) -> Float[Tensor, "n d"]:
        """Final hidden states at the last `count` positions, all rows."""
        with edit.on(self.vlm.model):
            hidden = self.vlm.anatomy.decoder(**kwargs).last_hidden_state
        return hidden[:, -count:].flatten(0, 1)

    def _margins(self, example: Example, edits: Sequence[Intervention]) -> Float[np.ndarray, "edits prompts"]:
        out = np.zeros((len(edits), len(example.prompts)))
        for start in range(0, len(example.prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            kwargs = self._decoder_kwargs(self._encode(example, example.prompts[part]))
            for e, edit in enumerate(edits):
                out[e, part] = self.vlm.margins_of(self._last(kwargs, edit)).double().cpu().numpy()
        return out

    def _gold(self, example: Example, edits: Sequence[Intervention]) -> list[float]:
        ids = self.vlm.gold_ids(example.prompts[0], example.references[0])
        kwargs = self._decoder_kwargs(with_answer(self.vlm, self._encode(example, example.prompts), ids[:-1]))
        labels = torch.tensor(ids, device=self.vlm.device)
        hidden = (self._last(kwargs, edit, len(ids)) for edit in edits)
        return [float(self.vlm.token_log_probabilities(h, labels).sum()) for h in hidden]

    def _texts(self, example: Example, edits: Sequence[Intervention]) -> list[str]:
        encoded = self._encode(example, example.prompts)
        draft = self.vlm.generate_ids(encoded, self.max_new_tokens)[0]
        kwargs = self._decoder_kwargs(with_answer(self.vlm, encoded, draft[:-1]))
        labels = torch.tensor(draft, device=self.vlm.device)
        answers = []
        for edit in edits:
            if edit == BASELINE or self._keeps_to(labels, self._last(kwargs, edit, len(draft))):
                answers.append(self.vlm.text_of(draft))
                continue
            with edit.on(self.vlm.model):
                answers.append(self.vlm.generate(encoded, self.max_new_tokens)[0])
        return answers

    def _keeps_to(self, labels: Int[Tensor, " n"], hidden: Float[Tensor, "n d"]) -> bool:
        logits = self.vlm.anatomy.lm_head(hidden)
        self.vlm.check_finite(logits)
        return torch.equal(logits.argmax(-1), labels)


def with_answer(vlm: VLM, encoded: Encoded, answer: Sequence[int]) -> Encoded:
    """One prompt's inputs with answer tokens appended; whatever runs along the tokens is extended with them."""
    inputs, length = dict(encoded.inputs), encoded.inputs["input_ids"].shape[1]
    fill = {"attention_mask": 1, "token_type_ids": TYPES_OF_TEXT.get(vlm.model.config.model_type, 0)}
    for name, value in inputs.items():
        if value.ndim == 2 and value.shape[1] == length:
            tail = torch.full((1, len(answer)), fill.get(name, 0), dtype=value.dtype, device=value.device)
            if name == "input_ids":
                tail = torch.tensor([list(answer)], dtype=value.dtype, device=value.device)
            inputs[name] = torch.cat([value, tail], 1)
    return Encoded(inputs)
