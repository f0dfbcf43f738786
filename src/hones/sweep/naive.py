"""The definition of a sweep: for every (intervention, item) cell, one full greedy answer of the edited model.

Items are the outer loop, so that all arms see the same encoded pictures and a cell's neighbours in its batch are the
same under every intervention.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from hones.errors import HonesError
from hones.models.interventions import Intervention
from hones.models.vlm import VLM, Encoded
from hones.sweep.answers import Answered, Engine, Member
from hones.tasks.base import Answer, Example, Task


class Naive(Engine):
    """Answers groups of examples by running the whole edited model on each.

    Args:
        batch_size: prompts per forward pass, halved when the device runs out of memory.
    """

    def __init__(self, vlm: VLM, *, max_new_tokens: int, batch_size: int) -> None:
        self.vlm = vlm
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size

    def answer(
        self,
        members: Sequence[Member],
        edits: Sequence[Intervention],
        advance: Callable[[float], object] = lambda cells: None,
    ) -> list[Answered]:
        """What every member answers under every intervention; `advance` hears of finished cells."""
        by_task: dict[int, list[int]] = {}
        for number, (task, _) in enumerate(members):
            by_task.setdefault(id(task), []).append(number)
        of_member: dict[int, Answered] = {}
        for numbers in by_task.values():
            task = members[numbers[0]][0]
            examples = [members[n][1] for n in numbers]
            by_edit = self._by_edit(task, examples, edits, advance)
            for i, n in enumerate(numbers):
                of_member[n] = Answered.of(members[n], [answers[i] for answers in by_edit])
        return [of_member[n] for n in range(len(members))]

    def _by_edit(
        self, task: Task, examples: Sequence[Example], edits: Sequence[Intervention], advance: Callable[[float], object]
    ) -> list[list[Answer]]:
        """The answers of all examples under each intervention, with one batch size, halved when memory runs out."""
        try:
            encoded = self._encode(task, examples)
            by_edit = []
            for edit in edits:
                with edit.on(self.vlm.model):
                    answers = self._answers(task, encoded)
                by_edit.append([*_regroup(answers, examples, task)])
                advance(len(examples))
            return by_edit
        except torch.OutOfMemoryError as error:
            if self.batch_size == 1:
                raise HonesError("out of device memory with one prompt at a time", do="use a smaller dtype") from error
            torch.cuda.empty_cache()
        self.batch_size //= 2
        return self._by_edit(task, examples, edits, lambda cells: None)  # the bar has these cells already, or is late

    def _encode(self, task: Task, examples: Sequence[Example]) -> list[Encoded]:
        """All prompts of the examples in batches, with their gold answers where these are scored."""
        rows: list[tuple[Image.Image | None, str]] = []
        for example in examples:
            picture = example.open_picture()
            rows += [(picture, prompt) for prompt in example.prompts]
        parts = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        if task.answers == "log_probability":
            gold = [example.references[0] for example in examples]
            return [
                self.vlm.encode_with_answers(
                    [x for x, _ in part], [x for _, x in part], gold[start : start + len(part)]
                )
                for start, part in zip(range(0, len(rows), self.batch_size), parts, strict=True)
            ]
        return [self.vlm.encode([picture for picture, _ in part], [prompt for _, prompt in part]) for part in parts]

    def _answers(self, task: Task, encoded: Sequence[Encoded]) -> list[str] | list[float]:
        """One answer per row: a text, the margin of Yes over No, or a log-probability."""
        if task.answers == "log_probability":
            return [value for part in encoded for value in self.vlm.log_probabilities(part).tolist()]
        if task.answers == "text":
            return [text for part in encoded for text in self.vlm.generate(part, self.max_new_tokens)]
        return [margin for part in encoded for margin in self.vlm.yes_margins(part).tolist()]


def _regroup(answers: list[str] | list[float], examples: Sequence[Example], task: Task) -> Iterator[Answer]:
    """One answer per example: its text, its candidates' margins, or a log-probability."""
    at = 0
    for example in examples:
        part = answers[at : at + len(example.prompts)]
        at += len(example.prompts)
        yield np.array(part, dtype=np.float64) if task.answers == "yes_no" else part[0]
