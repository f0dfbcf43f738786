"""What several methods read from the model: batches of prompts, with or without answers, means over their tokens.

Prompt tokens are all positions of a prompt that are not padding, those of the picture included.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from hones.models.capture import Place, capture
from hones.models.vlm import VLM, Encoded
from hones.models.writing import importance_shape
from hones.progress import track
from hones.rivals.base import Context, Importance
from hones.tasks.base import Example, Task

PROMPTS_AT_ONCE = 16
ROWS_WITH_GRADIENT = 4

Asked = TypeVar("Asked")


def batches(context: Context, asked: Sequence[Asked], size: int, what: str) -> Iterator[Sequence[Asked]]:
    """Examples, or what goes with them, --batch-size or `size` at once, with a progress bar."""
    size = context.sweep.batch_size or size
    for start in track(range(0, len(asked), size), f"{context.task.name}: {what}"):
        yield asked[start : start + size]


def ask(vlm: VLM, examples: Sequence[Example]) -> Encoded:
    """The examples' prompts; of retrieval the one with the true caption."""
    return vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])


def ask_with_gold(vlm: VLM, task: Task, examples: Sequence[Example]) -> Encoded:
    """The same prompts, followed by their gold answers and the end token."""
    gold = [task.answers_to_learn(e)[0] for e in examples]
    return vlm.encode_with_answers([e.open_picture() for e in examples], [e.prompts[0] for e in examples], gold)


@torch.no_grad()
def mean_over_tokens(
    context: Context, examples: Sequence[Example], place: Place, statistic: Callable[[Tensor], Tensor], what: str
) -> tuple[Importance, int]:
    """The mean of statistic(Z or GATE) over all prompt tokens of the examples, and how many tokens there are.

    Sums run in float64.
    """
    vlm = context.vlm
    total = torch.zeros(importance_shape(vlm), dtype=torch.float64)
    tokens = 0
    for part in batches(context, examples, PROMPTS_AT_ONCE, what):
        encoded = ask(vlm, part)
        is_token = encoded.inputs["attention_mask"].bool()

        def add(layer: int, activation: Tensor, is_token: Tensor = is_token) -> None:
            total[layer] += statistic(activation[is_token].float()).sum(0, dtype=torch.float64).cpu()

        with capture(vlm.anatomy, place, add):
            vlm.logits(encoded, keep=1)
        tokens += int(is_token.sum())
    return total.numpy() / tokens, tokens
