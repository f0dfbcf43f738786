"""What several methods read from the model: batches, z at every layer, act(gate), gradients of log p(answer).

Prompt tokens are all positions of a prompt that are not padding, those of the picture included.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hones.errors import HonesError
from hones.models.vlm import VLM, Encoded
from hones.models.writing import importance_shape
from hones.progress import track
from hones.rivals.base import Context
from hones.tasks.base import Example, Task

ACTIVATIONS = ("act_fn", "activation_fn")
PROMPTS_AT_ONCE, ROWS_WITH_GRADIENT = 16, 4

See = Callable[[int, Tensor], Tensor | None]


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


@contextmanager
def at_down_proj(vlm: VLM, see: See) -> Iterator[None]:
    """Call see(layer, z [batch, positions, I]) for every layer; a tensor that it returns takes z's place."""

    def pre_hook(layer: int):
        def hook(_: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            changed = see(layer, args[0])
            return None if changed is None else (changed, *args[1:])

        return hook

    with ExitStack() as stack:
        for number, layer in enumerate(vlm.anatomy.layers):
            stack.callback(layer.down_proj.register_forward_pre_hook(pre_hook(number)).remove)
        yield


@contextmanager
def at_gate(vlm: VLM, see: See) -> Iterator[None]:
    """Call see(layer, act(gate) [batch, positions, I]) for every layer, also where gate and up are one projection.

    Raises:
        HonesError: the FFN has no activation function of its own.
    """

    def of(layer: int):
        def hook(_: torch.nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            see(layer, out)

        return hook

    with ExitStack() as stack:
        for number, layer in enumerate(vlm.anatomy.layers):
            activation = next((m for n in ACTIVATIONS if (m := getattr(layer.mlp, n, None)) is not None), None)
            if not isinstance(activation, torch.nn.Module):
                raise HonesError(
                    f"{vlm.name} layer {number}: no {' or '.join(ACTIVATIONS)} in its FFN",
                    do="use a method that reads z",
                )
            stack.callback(activation.register_forward_hook(of(number)).remove)
        yield


@torch.no_grad()
def mean_over_tokens(
    context: Context,
    examples: Sequence[Example],
    watch: Callable[[VLM, See], object],
    statistic: Callable[[Tensor], Tensor],
    what: str,
) -> tuple[Float[np.ndarray, "layers neurons"], int]:
    """The mean of statistic(activation) over all prompt tokens of the examples, and how many tokens there are.

    watch: `at_down_proj` or `at_gate`. Sums run in float64.
    """
    vlm = context.vlm
    total = torch.zeros(importance_shape(vlm), dtype=torch.float64)
    tokens = 0
    for part in batches(context, examples, PROMPTS_AT_ONCE, what):
        encoded = ask(vlm, part)
        is_token = encoded.inputs["attention_mask"].bool()

        def add(layer: int, activation: Tensor, is_token: Tensor = is_token) -> None:
            total[layer] += statistic(activation[is_token].float()).sum(0, dtype=torch.float64).cpu()

        with watch(vlm, add):  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
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

    with torch.enable_grad(), at_down_proj(vlm, see):
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
