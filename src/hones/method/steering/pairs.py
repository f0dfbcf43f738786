"""Which pairs (prompt, answer) a training sees, in which order: all of it drawn before the first step.

Pairs of one epoch: vqa and ocr the target; caption one reference at random; retrieval the true caption with Yes and
four random negatives with No. With early stopping a share of the pictures is held out, with pairs of their own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hones.errors import HonesError
from hones.method.steering.settings import SteeringSettings
from hones.tasks.base import Example, Task

NEGATIVES_PER_POSITIVE = 4


@dataclass(frozen=True)
class Pair:
    """One training prompt and its answer."""

    example: Example
    prompt: str
    answer: str

    @cached_property
    def picture(self) -> Any:
        """What the picture's features depend on: the file and the box drawn into it; without one, the item."""
        return self.example.about, self.example.box, self.example.size


@dataclass(frozen=True)
class TrainingPlan:
    """Every step of a training, (epoch, its pairs), and the pairs held out."""

    steps: list[tuple[int, list[Pair]]]
    held_out: list[Pair]

    @property
    def pairs(self) -> list[Pair]:
        """All pairs in the order in which they are first needed."""
        return list(dict.fromkeys([*(p for _, pairs in self.steps for p in pairs), *self.held_out]))

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch's last step is number `step`, from 0."""
        return step + 1 == len(self.steps) or self.steps[step + 1][0] != self.steps[step][0]


def training_pairs(task: Task, examples: Sequence[Example], rng: random.Random) -> list[Pair]:
    """One epoch's pairs in random order."""
    pairs = []
    for example in examples:
        if task.answers == "yes_no":
            negatives = list(example.prompts[1:])
            chosen = rng.sample(negatives, min(NEGATIVES_PER_POSITIVE, len(negatives)))
            pairs += [
                Pair(example, example.prompts[0], example.target),
                *(Pair(example, prompt, "No") for prompt in chosen),
            ]
        else:
            answer = rng.choice(task.answers_to_learn(example))
            pairs.append(Pair(example, example.prompts[0], answer))
    rng.shuffle(pairs)
    return pairs


def make_plan(task: Task, examples: Sequence[Example], settings: SteeringSettings) -> TrainingPlan:
    """The steps of a training, by the settings' seed.

    Raises:
        HonesError: too few pictures to hold some out.
    """
    learned, held_out = _split(examples, settings)
    rng = random.Random(settings.seed)
    epochs = [training_pairs(task, learned, rng) for _ in range(settings.epochs)]
    size = settings.batch_size
    steps = [(e, pairs[i : i + size]) for e, pairs in enumerate(epochs) for i in range(0, len(pairs), size)]
    return TrainingPlan(steps, training_pairs(task, held_out, random.Random(settings.seed)))


def _split(examples: Sequence[Example], settings: SteeringSettings) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and those held out; a picture is in one of them."""
    if settings.early_stopping is None:
        return list(examples), []
    pictures = list(dict.fromkeys(example.about for example in examples))
    if len(pictures) < 2:
        raise HonesError(
            f"early stopping with {len(pictures)} dev picture",
            expected="at least two: some to learn from and some to hold out",
        )
    count = min(max(1, round(settings.early_stopping.share * len(pictures))), len(pictures) - 1)
    chosen = set(random.Random(settings.seed).sample(pictures, count))
    return [e for e in examples if e.about not in chosen], [e for e in examples if e.about in chosen]
