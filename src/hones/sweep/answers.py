"""What the cells of a group have answered, and their statistics."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.sweep.baseline import Suffixes
from hones.sweep.continuations import Cell
from hones.sweep.prompts import Prompt
from hones.tasks.base import Example, Task


class Answers:
    """Answers of M members under E interventions; until another is given, a cell has the unedited model's."""

    def __init__(self, vlm: VLM, members: Sequence[tuple[Task, Example]], edits: Sequence[Intervention]) -> None:
        self.vlm = vlm
        self.members = members
        self.edits = edits
        self.drafts: dict[int, list[int]] = {}
        self.texts: dict[Cell, list[int]] = {}
        self.numbers = [np.zeros((len(edits), len(example.prompts))) for _, example in members]

    def take_drafts(self, batch: Sequence[tuple[int, Prompt]], drafts: Sequence[list[int]]) -> None:
        """The unedited model's answers."""
        self.drafts.update({prompt.owner: draft for (_, prompt), draft in zip(batch, drafts, strict=True)})

    def take_numbers(self, suffixes: Suffixes, edits: Sequence[int], output: Float[Tensor, "en d"] | None) -> None:
        """Margins or log-probabilities of J prompts under E interventions, e-major, or J alone for all of them."""
        assert output is not None
        if suffixes.labels.numel():
            times = len(output) // len(suffixes.labels)
            of_token = self.vlm.token_log_probabilities(output, suffixes.labels.repeat(times)).view(times, -1)
            numbers = of_token.new_zeros(times, suffixes.shape[0]).index_add(1, suffixes.wanted.rows, of_token)
        else:
            numbers = self.vlm.margins_of(output).view(-1, suffixes.shape[0])
        of_prompt = numbers.double().cpu().numpy()
        for j, prompt in enumerate(suffixes.prompts):
            self.numbers[prompt.owner][edits, prompt.number] = of_prompt[:, j]

    def statistics(self) -> list[Float[np.ndarray, "edits _"]]:
        """Statistics of all members; equal answers of a member are scored once."""
        out = []
        for m, (task, example) in enumerate(self.members):
            if task.answers == "yes_no":
                rows = [task.statistics(example, margins) for margins in self.numbers[m]]
            elif task.answers == "log_probability":
                rows = [task.statistics(example, float(value)) for value in self.numbers[m][:, 0]]
            else:
                answers = [tuple(self.texts.get((e, m), self.drafts[m])) for e in range(len(self.edits))]
                scored = {a: task.statistics(example, self.vlm.text_of(a)) for a in set(answers)}
                rows = [scored[answer] for answer in answers]
            out.append(np.array(rows, dtype=np.float32))
        return out
