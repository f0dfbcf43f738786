"""What a task is: how an item becomes prompts and a target, and how answers become a score.

A score of many items is a function of the *sum* of small per-item statistics, so that shards merge, runs resume and a
bootstrap is a matrix product. `Example` is all that later stages know of an item.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from hones.data.items import Items
from hones.data.pictures import open_picture
from hones.data.unified import Item, LeftOut
from hones.errors import BadItem, HonesError

AnswerKind = Literal["text", "yes_no", "log_probability"]
NO_PICTURE = "item without a picture"
Answer = str | float | Float[np.ndarray, " candidates"]


class BarePrompt(str):
    """A prompt that is asked as it is, without the model's template, for the model to go on writing.

    A text like any other, which carries how it is asked through whatever passes prompts on. It shows no picture.

    lead: what stands between the prompt and its answer. ends: whether a right answer ends with the model's end token; a
    piece of running text does not.
    """

    lead: str
    ends: bool

    def __new__(cls, text: str, lead: str = " ", ends: bool = True) -> "BarePrompt":
        prompt = super().__new__(cls, text)
        prompt.lead = lead
        prompt.ends = ends
        return prompt


@dataclass(frozen=True)
class Example:
    """One item as a task asks it.

    image: the picture's file; None for a task that shows none.
    prompts: the user's text without template; one, or for retrieval one per candidate, the true caption first. A
        `BarePrompt` is asked without template.
    target: the text whose direction u_y attribution uses; asked with prompts[0].
    references: what answers are scored against (vqa: the annotators' answers; caption: the captions).
    box: [x, y, width, height] to outline in blue, native pixels; size: the (width, height) it was annotated for.
    """

    id: str
    image: Path | None
    prompts: tuple[str, ...]
    target: str
    references: tuple[str, ...]
    box: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None

    @property
    def about(self) -> Path | str:
        """What the prompts are about: equal for all examples of a picture; without one, of an item."""
        return self.id if self.image is None else self.image

    def open_picture(self) -> Image.Image | None:
        """The picture as RGB, box drawn; None where there is none.

        Raises:
            BadItem: it is missing or cannot be read.
        """
        return None if self.image is None else open_picture(self.image, self.box, self.size)


def picture_of(item: Item, images: Path) -> Path:
    """Where the item's picture is.

    Raises:
        BadItem: the item is text alone.
    """
    if item.file_name is None:
        raise BadItem("it has no picture, which the task shows", kind=NO_PICTURE)
    return images / item.file_name


@dataclass(frozen=True)
class Definition:
    """Where a custom task comes from: how the user named it, a digest of what it says, and for YAML its content."""

    given: str
    digest: str
    content: dict[str, Any] | None = None


class Metric(ABC):
    """How answers are scored: statistics of one answer, score of a sum of statistics.

    meaning: counts up where a metric's name comes to mean something else, so that no older result is gone on with.
    """

    metric_name: ClassVar[str]
    statistic_names: ClassVar[tuple[str, ...]]
    meaning: ClassVar[int] = 1

    @abstractmethod
    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """The additive statistics of one answer: a text, for yes_no answers logit(Yes) - logit(No) per prompt, or a
        log-probability.
        """

    @abstractmethod
    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """The metric, in [0, 1], of summed statistics; NaN where no item was summed."""

    def score_alone(self, statistics: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """How right one answer is, in [0, 1], from its statistics, for people to read; by default its own metric."""
        return self.score(statistics)

    def details(self, sums: Float[np.ndarray, " k"]) -> dict[str, float]:
        """Further metrics worth reporting."""
        return {}

    def token_weights(self, targets: Sequence[Sequence[int]]) -> list[Float[np.ndarray, " tokens"]]:
        """w_t of each target's tokens (method: 1 everywhere; caption: inverse document frequency over `targets`)."""
        return [np.ones(len(tokens)) for tokens in targets]

    def references_among(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Those of an item's texts that answers can be scored against.

        Raises:
            BadItem: none.
        """
        usable = tuple(text for text in texts if text.strip())
        if not usable:
            raise BadItem("its references are empty" if texts else "it has no references")
        return usable


class MeanMetric(Metric):
    """A metric that is the mean over items of its first statistic; the last one counts the items."""

    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """The mean; NaN where no item was summed."""
        return mean_over_items(sums)


class Task(Metric):
    """One task: prompt and target of an item, and the metric of its answers.

    stop: a written answer ends before the first of these texts; None: where the model's do (`hones.models.stopping`).
    definition: where a custom task comes from; None for the built-in ones.
    """

    name: ClassVar[str]
    answers: ClassVar[AnswerKind]
    stop: ClassVar[tuple[str, ...] | None] = None
    definition: Definition | None = None

    @abstractmethod
    def example(self, item: Item, images: Path) -> Example:
        """The item as this task asks it.

        Raises:
            BadItem: the item lacks what the task needs; the message says what.
        """

    def examples(self, items: Items) -> tuple[list[Example], list[LeftOut]]:
        """All usable items in order, and those left out with the reason."""
        return examples_of(items, lambda item: self.example(item, items.images))

    def guess(self, examples: Sequence[Example]) -> float:
        """The score of the best answer that does not depend on the picture, among all references of the examples."""
        return best_constant(self, examples)

    def answers_to_learn(self, example: Example) -> tuple[str, ...]:
        """The answers that steering may train on; one is drawn per epoch."""
        return (example.target,)


def examples_of(
    items: Items, example: Callable[[Item], Example], most: int | None = None
) -> tuple[list[Example], list[LeftOut]]:
    """What `example` makes of the items, in order, and the items that it refuses with the reason.

    most: stop after as many examples.
    """
    good: list[Example] = []
    bad: list[LeftOut] = []
    for item in items:
        if len(good) == most:
            break
        try:
            good.append(example(item))
        except BadItem as error:
            bad.append(LeftOut.of(item.id, error))
    return good, bad


def best_constant(metric: Metric, examples: Sequence[Example]) -> float:
    """The best score of one answer to all examples, among their references."""
    constants = {reference for example in examples for reference in example.references}
    sums = (sum(metric.statistics(example, constant) for example in examples) for constant in constants)
    return max(float(metric.score(np.asarray(s))) for s in sums)


def mean_over_items(sums: Float[np.ndarray, "*batch k"], statistic: int = 0) -> Float[np.ndarray, "*batch"]:
    """A summed statistic over the number of items, the last one; NaN where no item was summed."""
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., statistic] / sums[..., -1])


def check_margins(example: Example, margins: Float[np.ndarray, " candidates"]) -> None:
    """Raises HonesError where logit(Yes) - logit(No) is NaN: it says neither, and ranks nothing."""
    if np.isnan(margins).any():
        raise HonesError(
            f"item {example.id}: logit(Yes) - logit(No) is NaN", expected="a number", do="try --dtype float32"
        )
