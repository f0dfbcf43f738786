"""Plain text: whether a model still reads ordinary English, a task beside which a task's own drop is seen.

    loss = - sum over paragraphs p of log p(p after its first word | its first word) / sum of their tokens

in nats a token, teacher forced, without template and picture. The paragraphs ship with us (`data/plain_text.txt`):
prose of varied subjects, written for this purpose, so that no model was trained on them. Statistics: [log-probability,
tokens]; how many tokens a paragraph has is a matter of the model (`hones.sweep.plain_text`).
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.data.unified import Item
from hones.tasks.base import Answer, AnswerKind, BarePrompt, Example, Task


class PlainText(Task):
    """The mean log loss of paragraphs, in nats a token: the smaller, the better they are read.

    Args:
        tokens: of every paragraph after its first word, by its name.
    """

    name: ClassVar[str] = "plain text"
    metric_name: ClassVar[str] = "log_loss"
    answers: ClassVar[AnswerKind] = "log_probability"
    statistic_names: ClassVar[tuple[str, ...]] = ("log_probability", "tokens")

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens

    def example(self, item: Item, images: Path) -> Example:
        """The paragraph that an item names."""
        return paragraphs()[item.id]

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """[log-probability, tokens]."""
        assert isinstance(answer, float)
        return np.array([answer, self.tokens[example.id]])

    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """Nats a token; NaN where nothing was summed."""
        with np.errstate(invalid="ignore"):
            return np.asarray(-sums[..., 0] / sums[..., 1])


@cache
def paragraphs() -> dict[str, Example]:
    """The paragraphs by name: the first word is asked, the rest is what a model is to go on with."""
    text = files("hones.data").joinpath("plain_text.txt").read_text(encoding="utf-8")
    examples = {}
    for number, paragraph in enumerate(text.strip().split("\n\n"), 1):
        first, _, rest = paragraph.partition(" ")
        name = f"paragraph {number}"
        examples[name] = Example(name, None, (BarePrompt(first, ends=False),), rest, (rest,))
    return examples
