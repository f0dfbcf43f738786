"""What several methods read from the model: batches, z at every layer, act(gate), gradients of log p(answer).

Prompt tokens are all positions of a prompt that are not padding, those of the picture included.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.errors import HonesError
from hones.models.anatomy import ACTIVATIONS
from hones.models.capture import Place, Z, capture
from hones.models.vlm import VLM, Encoded
from hones.models.writing import importance_shape
from hones.progress import track
from hones.rivals.base import Context
from hones.tasks.base import Example, Task

PROMPTS_AT_ONCE = 16
ROWS_WITH_GRADIENT = 4


def batches(context: Context, examples: Sequence[Example], size: int, what: str) -> Iterator[Sequence[Example]]:
    """The examples, --batch-size or `size` at once, with a progress bar."""
    size = context.sweep.batch_size or size
    for start in track(range(0, len(examples), size), f"{context.task.name}: {what}"):
        yield examples[start : start + size]


def ask(vlm: VLM, examples: Sequence[Example]) -> Encoded:
    """The examples' prompts; of retrieval the one with the true caption."""
    return vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])


def ask_with_gold(vlm: VLM, task: Task, examples: Sequence[Example]) -> Encoded:
    """The same prompts, followed by their gold answers and the end token."""
    gold = [task.answers_to_learn(e)[0] for e in examples]
    return vlm.encode_with_answers([e.open_picture() for e in examples], [e.prompts[0] for e in examples], gold)


def check_gate(vlm: VLM) -> None:
    """Raises HonesError unless every FFN has an activation function of its own, a module whose output can be read.

    What it gives is act(gate) also where gate and up are one projection.
    """
    for number, layer in enumerate(vlm.anatomy.layers):
        if layer.activation is None:
            raise HonesError(
                f"{vlm.name} layer {number}: no {' or '.join(ACTIVATIONS)} in its FFN", do="use a method that reads z"
            )


@torch.no_grad()
def mean_over_tokens(
    context: Context,
    examples: Sequence[Example],
    place: Place,
    statistic: Callable[[Tensor], Tensor],
    what: str,
) -> tuple[Float[np.ndarray, "layers neurons"], int]:
    """The mean of statistic(activation) over all prompt tokens of the examples, and how many tokens there are.

    place: Z or, after `check_gate`, GATE. Sums run in float64.
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


def gradients_at_z(vlm: VLM, encoded: Encoded) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """z and d log p(answer) / d z of every layer, [batch, positions, I]; rows do not mix. The model must be frozen."""
    seen: list[Tensor] = []

    def see(layer: int, z: Tensor) -> Tensor:
        z = z if z.requires_grad else z.detach().requires_grad_()
        seen.append(z)
        return z

    with torch.enable_grad(), capture(vlm.anatomy, Z, see):
        log_p = vlm.log_probabilities(encoded)
        return seen, torch.autograd.grad(log_p.sum(), seen)


def last_prompt_position(encoded: Encoded) -> Int[Tensor, " batch"]:
    """Where each row's first answer token is predicted."""
    assert encoded.answer is not None
    return encoded.answer.int().argmax(1) - 1


def repeated(encoded: Encoded, times: int) -> Encoded:
    """The whole batch several times over."""
    inputs = {k: x.repeat(times, *[1] * (x.ndim - 1)) for k, x in encoded.inputs.items()}
    return Encoded(inputs, None if encoded.answer is None else encoded.answer.repeat(times, 1))


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
