"""An approximation to a task's metric: the log-probability of the gold answer, teacher forced.

    P = mean over items of log p(answer, end | picture, prompt)

No answer is decoded and no two models tie, so few items tell heads apart; but a head may lower the probability of the
right answer without changing what the model says. The gold answer is the first that steering could learn from: the
target of vqa and ocr, the first caption, Yes to the true caption. Statistics: [log-probability, 1], in nats.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.data.items import Items
from hones.data.unified import Item, LeftOut
from hones.tasks.base import Answer, AnswerKind, Example, MeanMetric, Task


class LogProbability(MeanMetric, Task):
    """The log-probability of the gold answers of another task, under the same name."""

    metric_name: ClassVar[str] = "log_probability"
    answers: ClassVar[AnswerKind] = "log_probability"
    statistic_names: ClassVar[tuple[str, ...]] = ("log_probability", "n")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = task.name  # pyright: ignore[reportAttributeAccessIssue]
        self.definition = task.definition

    def example(self, item: Item, images: Path) -> Example:
        """The task's example with its gold answer alone as reference.

        Raises:
            BadItem: as the task.
        """
        return self.with_gold(self.task.example(item, images))

    def examples(self, items: Items) -> tuple[list[Example], list[LeftOut]]:
        """The task's usable examples, and those left out with the reason."""
        good, bad = self.task.examples(items)
        return [self.with_gold(example) for example in good], bad

    def with_gold(self, example: Example) -> Example:
        """The task's example with its gold answer alone as reference, asked with its first prompt."""
        gold = self.task.answers_to_learn(example)[0]
        return replace(example, prompts=example.prompts[:1], references=(gold,))

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[log-probability, 1]."""
        assert isinstance(answer, float)
        return np.array([answer, 1.0])

    def token_weights(self, targets: Sequence[Sequence[int]]) -> list[Float[np.ndarray, " tokens"]]:
        """Those of the task."""
        return self.task.token_weights(targets)
