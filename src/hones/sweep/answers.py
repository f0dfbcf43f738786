"""What the cells of a group have answered, and their statistics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.sweep.baseline import Suffixes
from hones.sweep.continuations import Cell
from hones.tasks.base import Answer, Example, Task

Member = tuple[Task, Example]


@dataclass(frozen=True)
class Answered:
    """What one member answers under E interventions: the answers, and the statistics of each."""

    answers: Sequence[Answer]
    statistics: Float[np.ndarray, "edits k"]

    @classmethod
    def of(cls, member: Member, answers: Sequence[Answer]) -> "Answered":
        """The answers with their statistics; equal texts are scored once."""
        task, example = member
        scored = {text: task.statistics(example, text) for text in {x for x in answers if isinstance(x, str)}}
        rows = [scored[x] if isinstance(x, str) else task.statistics(example, x) for x in answers]
        return cls(answers, np.array(rows, dtype=np.float32))


class Engine(ABC):
    """Answers groups of members under many interventions."""

    @abstractmethod
    def answer(
        self,
        members: Sequence[Member],
        edits: Sequence[Intervention],
        advance: Callable[[float], object] = lambda cells: None,
    ) -> list[Answered]:
        """What every member answers under every intervention; `advance` hears of finished cells."""

    def statistics(self, members: Sequence[Member], edits: Sequence[Intervention]) -> list[np.ndarray]:
        """The statistics of the answers alone, [edits, k] of every member."""
        return [answered.statistics for answered in self.answer(members, edits)]


class Answers:
    """Answers of M members under E interventions; until another is given, a cell has its member's draft, which is the
    unedited model's answer.
    """

    def __init__(self, vlm: VLM, members: Sequence[Member], edits: Sequence[Intervention]) -> None:
        self.vlm = vlm
        self.members = members
        self.edits = edits
        self.drafts: dict[int, list[int]] = {}
        self.texts: dict[Cell, list[int]] = {}
        self.numbers = [np.zeros((len(edits), len(example.prompts))) for _, example in members]

    def take_numbers(self, suffixes: Suffixes, edits: Sequence[int], output: Float[Tensor, "en d"] | None) -> None:
        """Margins or log-probabilities of J prompts under E interventions, e-major, or J alone for all of them."""
        assert output is not None
        if suffixes.labels.numel():
            times = len(output) // len(suffixes.labels)
            of_token = self.vlm.token_log_probabilities(output, suffixes.labels.repeat(times)).view(times, -1)
            numbers = of_token.new_zeros(times, len(suffixes.hidden)).index_add(1, suffixes.wanted.rows, of_token)
        else:
            numbers = self.vlm.margins_of(output).view(-1, len(suffixes.hidden))
        of_prompt = numbers.double().cpu().numpy()
        for j, prompt in enumerate(suffixes.prompts):
            self.numbers[prompt.owner][edits, prompt.number] = of_prompt[:, j]

    def of_members(self) -> list[Answered]:
        """The answers of every member, with their statistics."""
        out = []
        for m, member in enumerate(self.members):
            task, example = member
            kind = task.answers
            if kind == "yes_no":
                answers: list[Answer] = [*self.numbers[m]]
            elif kind == "log_probability":
                answers = [float(value) for value in self.numbers[m][:, 0]]
            else:
                tokens = [tuple(self.texts.get((e, m), self.drafts[m])) for e in range(len(self.edits))]
                stop = self.vlm.stop_of(task.stop, example.prompts[0])
                texts = {distinct: self.vlm.text_of(distinct, stop) for distinct in set(tokens)}
                answers = [texts[of_edit] for of_edit in tokens]
            out.append(Answered.of(member, answers))
        return out
