"""The definition of a sweep: for every (intervention, item) cell, one full greedy answer of the edited model.

Items are the outer loop, so that all arms see the same encoded pictures and a cell's neighbours in its batch are the
same under every intervention.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from hones.models.interventions import Intervention
from hones.models.vlm import VLM, Encoded
from hones.sweep.answers import Answered, Engine, Member
from hones.sweep.memory import halved_batch
from hones.tasks.base import Answer, Example, Task


@dataclass
class Naive(Engine):
    """Answers groups of examples by running the whole edited model on each.

    batch_size: prompts per forward pass, halved when the device runs out of memory.
    """

    vlm: VLM
    max_new_tokens: int
    batch_size: int

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
            stops = [self.vlm.stop_of(task.stop, prompt) for example in examples for prompt in example.prompts]
            by_edit = []
            for edit in edits:
                with edit.on(self.vlm.model):
                    answers = self._answers(task, encoded, stops)
                # one answer per example: its text, its candidates' margins, or a log-probability
                ends = accumulate(len(example.prompts) for example in examples)
                parts = [answers[end - len(e.prompts) : end] for e, end in zip(examples, ends, strict=True)]
                by_edit.append([np.array(x, dtype=np.float64) if task.answers == "yes_no" else x[0] for x in parts])
                advance(len(examples))
            return by_edit
        except (RuntimeError, MemoryError) as error:
            self.batch_size = halved_batch(self.batch_size, error, self.vlm.device)
        return self._by_edit(task, examples, edits, lambda cells: None)  # the bar has these cells already, or is late

    def _encode(self, task: Task, examples: Sequence[Example]) -> list[Encoded]:
        """All prompts of the examples in batches, with their gold answers where these are scored."""
        shown = [(example, example.open_picture()) for example in examples]
        rows = [(example, picture, prompt) for example, picture in shown for prompt in example.prompts]
        encoded = []
        for start in range(0, len(rows), self.batch_size):
            batch, pictures, prompts = map(list, zip(*rows[start : start + self.batch_size], strict=True))
            if task.answers == "log_probability":
                gold = [example.references[0] for example in batch]
                encoded.append(self.vlm.encode_with_answers(pictures, prompts, gold))
            else:
                encoded.append(self.vlm.encode(pictures, prompts))
        return encoded

    def _answers(
        self, task: Task, encoded: Sequence[Encoded], stops: Iterable[Sequence[str]]
    ) -> list[str] | list[float]:
        """One answer per row: a text, the margin of Yes over No, or a log-probability."""
        if task.answers == "log_probability":
            return [value for part in encoded for value in self.vlm.log_probabilities(part).tolist()]
        if task.answers == "text":
            of_rows = iter(stops)
            return [text for part in encoded for text in self.vlm.generate(part, self.max_new_tokens, of_rows)]
        return [margin for part in encoded for margin in self.vlm.yes_margins(part).tolist()]
