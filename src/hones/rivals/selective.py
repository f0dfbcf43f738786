"""selective: neurons that this task needs, and other tasks and plain text do not, found in rounds.

What `rounds` finds may be needed by all that a model does. So each round takes the gradient of every task at the same
gates, and of plain text, and chooses by

    s = n(g_task) - k max(0, max_o n(g_o)),    n(g) = g / root mean square of g over all neurons,

where g_o is dV/dg of another task o (hones+'s contrast of its own answers) that is annotated for the same items, or of
as many other items of the file where no item serves both (photographs with captions, photographs with a text), or of
the mean log-probability of a token of the paragraphs that ship with us (`hones.tasks.plain_text`). n makes nats of
different tasks comparable: a neuron is chosen where it counts for this task more than k times what it counts for the
one that it serves most beside. What closing it would *raise* elsewhere (g_o < 0) is no credit. The gradients are taken
anew in each round, so what begins to stand in for the closed neurons in another task is spared from then on.

Ranking, budget and rounds: `hones.rivals.rounds`. The cost is that of `rounds` for all tasks together. Another task
whose items all have one answer has no contrast and is left out with a remark, and so is plain text where the model
reads it no better than one that gives every token of its vocabulary the same probability.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from hones.errors import TaskStops
from hones.log import remark
from hones.models.interventions import BASELINE
from hones.models.vlm import VLM
from hones.rivals.base import Context, Importance
from hones.rivals.gates import Gated, Job, gates_on
from hones.rivals.hones_plus import knowledge_of
from hones.rivals.rounds import Rounds
from hones.sweep.plain_text import plain_text_losses, plain_text_of
from hones.tasks.base import Example, Task
from hones.tasks.plain_text import paragraphs

AGAINST = 1.0
"""k."""


@dataclass(frozen=True)
class Selective(Rounds, known="selective"):
    """Rounds, against what the other tasks and plain text need."""

    against: float = AGAINST

    @property
    def options(self) -> dict[str, Any]:
        """The schedule, k and the plain text."""
        text = sha256("\n\n".join(example.target for example in paragraphs().values()).encode()).hexdigest()[:16]
        return {**super().options, "against": self.against, "plain_text": text}

    def jobs(self, context: Context) -> Sequence[Job]:
        """The task, the other tasks on the same items, and plain text.

        Raises:
            TaskStops: there is nothing that the task could be told from.
        """
        others: list[Job] = []
        said = f"selective on {context.task.name} leaves out"
        for task, examples in (*context.others, *context.elsewhere):
            if told_apart(task, examples):
                others.append(knowledge_of(task, examples))
            elif examples:
                remark(f"{said} {task.name}, as its {len(examples)} answers are the same")
        if _reads(context):
            others.append(FluencyOf())
        else:
            remark(f"{said} plain text: the model reads it worse than it would guess")
        if not others:
            raise TaskStops(
                f"{context.task.name} stands alone: its items are of no other task, and the model reads no plain text",
                expected="items annotated for two tasks or more",
                do="use such items, or --method rounds",
            )
        return [*super().jobs(context), *others]

    def score(self, gradients: Float[np.ndarray, "jobs layers neurons"]) -> Importance:
        """s of a round."""
        # a job without any gradient (all that it needs is closed) has nothing to divide
        roots = np.sqrt((gradients**2).mean((1, 2), keepdims=True))
        own, *others = gradients / np.where(roots > 0, roots, 1)
        return own - self.against * np.maximum(np.max(others, axis=0), 0)


def told_apart(task: Task, examples: Sequence[Example]) -> bool:
    """Whether the examples have at least two answers, which hones+ tells apart; Yes and No are those of one."""
    if task.answers == "yes_no":
        return any(len(e.prompts) > 1 for e in examples) or len({e.target for e in examples}) > 1
    return len({task.answers_to_learn(e)[0] for e in examples}) > 1


def _reads(context: Context) -> bool:
    """Whether the model reads plain text better than a uniform guess of every token."""
    text = plain_text_of(context.vlm)
    if not text.examples:
        return False
    sweep = replace(context.sweep, journal=None, answers=None)
    ((*losses,),) = plain_text_losses(context.vlm, [BASELINE], sweep)
    return float(np.mean(losses)) < math.log(context.vlm.anatomy.lm_head.out_features)


@dataclass(frozen=True)
class FluencyOf:
    """Makes `Fluency` where the model is (a `hones.rivals.gates.Job`)."""

    @property
    def tasks(self) -> list[Task]:
        return []

    def __call__(self, vlm: VLM, rows: int) -> "Fluency":
        return Fluency(vlm, rows)


class Fluency(Gated):
    """The mean log-probability of a token of the plain text, with gates."""

    def __init__(self, vlm: VLM, rows: int) -> None:
        self.vlm = vlm
        self.rows = rows
        text = plain_text_of(vlm)
        self.examples = text.examples
        self.count = len(text.examples)
        self.tokens = sum(text.task.tokens.values())

    def about(self, prompts: range) -> str:
        return ", ".join(self.examples[n].id for n in prompts)

    def parts(self, gates: Float[Tensor, "layers neurons"], prompts: range) -> Iterator[Float[Tensor, ""]]:
        for batch in self.batches(prompts):
            part = [self.examples[n] for n in batch]
            encoded = self.vlm.encode_with_answers(
                [None] * len(part), [e.prompts[0] for e in part], [e.target for e in part]
            )
            with gates_on(self.vlm, gates):
                log_p = self.vlm.log_probabilities(encoded)
            yield log_p.sum().cpu() / self.tokens
