"""What a user could do today: batches of prompts, each head replaced through nnsight (`pip install -e '.[bench]'`)."""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from hones import VLM
from hones.models.interventions import Intervention
from hones.models.processors import is_text_only
from hones.tasks.base import Example, Task


def has_nnsight() -> bool:
    """Whether the extra `bench` is installed."""
    return find_spec("nnsight") is not None


class Nnsight:
    """Answers batches of prompts, one intervention on one head at a time."""

    def __init__(self, vlm: VLM, *, max_new_tokens: int, batch_size: int) -> None:
        from nnsight import TransformersModel  # pyright: ignore[reportMissingImports]

        self.vlm, self.batch_size = vlm, batch_size
        text = is_text_only(vlm.model.config)
        kind = (
            {"task": "text-generation", "tokenizer": vlm.tokenizer}
            if text
            else {"task": "image-text-to-text", "processor": vlm.processor}
        )
        self.model = TransformersModel(vlm.model, **kind)
        self.generation = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=vlm.eos_ids,
            pad_token_id=vlm.tokenizer.pad_token_id,
        )

    def statistics(self, members: Sequence[tuple[Task, Example]], edits: Sequence[Intervention]) -> list[np.ndarray]:
        """As the engines of `hones.sweep` give them."""
        asked = [(m, prompt) for m, (_, example) in enumerate(members) for prompt in example.prompts]
        pictures = [example.open_picture() for _, example in members]
        text = members[0][0].answers == "text"
        rows = []
        for edit in edits:
            answers: list[list] = [[] for _ in members]
            for start in range(0, len(asked), self.batch_size):
                part = asked[start : start + self.batch_size]
                inputs = self.vlm.encode([pictures[m] for m, _ in part], [prompt for _, prompt in part]).inputs
                found = self._texts(inputs, edit) if text else self._margins(inputs, edit)
                for (m, _), answer in zip(part, found, strict=True):
                    answers[m].append(answer)
            given = [a[0] if text else np.array(a) for a in answers]
            rows.append([task.statistics(example, a) for (task, example), a in zip(members, given, strict=True)])
        return [np.array([row[m] for row in rows], dtype=np.float32) for m in range(len(members))]

    def _o_proj(self, layer: int):
        model = self.model.model
        decoder = model if is_text_only(self.vlm.model.config) else model.language_model
        return decoder.layers[layer].self_attn.o_proj

    def _texts(self, inputs: dict[str, Tensor], edit: Intervention) -> list[str]:
        ((layer, head),) = edit.heads
        with torch.no_grad(), self.model.generate(generation_config=self.generation) as tracer:
            with tracer.invoke(**inputs):
                for _ in tracer.iter[:]:
                    self._o_proj(layer).input = others_mean(self._o_proj(layer).input, head, self.vlm.anatomy.heads)
            with tracer.invoke():
                ids = tracer.result.save()
        return [self.vlm.text_of(row) for row in ids[:, inputs["input_ids"].shape[1] :].tolist()]

    def _margins(self, inputs: dict[str, Tensor], edit: Intervention) -> list[float]:
        ((layer, head),) = edit.heads
        positions = {}
        if "mm_token_type_ids" not in inputs:
            positions = {"position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}
        with torch.no_grad(), self.model.trace(**inputs, **positions, logits_to_keep=1, use_cache=False):
            self._o_proj(layer).input = others_mean(self._o_proj(layer).input, head, self.vlm.anatomy.heads)
            hidden = self.model.lm_head.input.save()
        return self.vlm.margins_of(hidden[:, -1].detach()).tolist()


def others_mean(x: Tensor, head: int, heads: int) -> Tensor:
    """x with one head replaced by the mean of the others."""
    by_head = x.unflatten(-1, (heads, -1))
    replaced = by_head.clone()
    replaced[..., head, :] = (by_head.sum(-2) - by_head[..., head, :]) / (heads - 1)
    return replaced.flatten(-2)
