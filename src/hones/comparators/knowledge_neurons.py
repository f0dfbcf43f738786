"""Knowledge neurons: integrated gradients of p(answer) along the activations of one layer (Dai et al.).

    score[l,i] = mean over x of z[l,i] / m * sum over k = 1..m of d p(answer) / d z[l,i] at (k / m) z[l]

z[l] is the whole layer's activation at the last prompt position, scaled jointly, m = 20; other layers and positions
follow. Over a layer the scores add up to p(answer) - p(answer | z[l] = 0) as m grows.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.comparators.base import Context, Method
from hones.comparators.reading import (
    ROWS_WITH_GRADIENT,
    ask_with_gold,
    at_down_proj,
    last_prompt_position,
    repeated,
)
from hones.models.vlm import VLM, Encoded, frozen
from hones.progress import track
from hones.tasks.base import Example, Task
from hones.write_in import importance_shape

STEPS = 20


class KnowledgeNeurons(Method):
    """Integrated gradients of the answer's probability."""

    name: ClassVar[str] = "knowledge-neurons"
    summary: ClassVar[str] = f"integrated gradients of the answer's probability, {STEPS} steps"
    source: ClassVar[str] = "Dai et al. 2022, arXiv 2104.08696"

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """The mean over items, in float64."""
        total = np.zeros(importance_shape(context.vlm))
        for found in attributions(context, context.task, context.examples, STEPS, "knowledge neurons"):
            total += found
        return (total / len(context.examples)).astype(np.float32)


def attributions(
    context: Context, task: Task, examples: Sequence[Example], steps: int, what: str
) -> Iterator[Float[np.ndarray, "layers neurons"]]:
    """The integrated gradients of each example, float64; --batch-size rows (steps) at once."""
    rows = context.sweep.batch_size or ROWS_WITH_GRADIENT
    with frozen(context.vlm.model):
        for example in track(examples, f"{task.name}: {what}"):
            encoded = ask_with_gold(context.vlm, task, [example])
            yield integrated_gradients(context.vlm, encoded, steps, rows).double().cpu().numpy()


def integrated_gradients(vlm: VLM, encoded: Encoded, steps: int, rows: int) -> Float[Tensor, "layers neurons"]:
    """Of one encoded item, layer by layer, `rows` steps at once; float32."""
    position = int(last_prompt_position(encoded)[0])
    z: dict[int, Tensor] = {}
    with torch.no_grad(), at_down_proj(vlm, lambda layer, x: z.update({layer: x[0, position]})):
        vlm.logits(encoded, keep=1)
    alphas = torch.arange(1, steps + 1, device=vlm.device) / steps
    found = []
    for layer in range(len(z)):
        gradient = torch.zeros_like(z[layer], dtype=torch.float32)
        for part in alphas.split(rows):
            gradient += _gradients_along(vlm, repeated(encoded, len(part)), layer, position, z[layer], part)
        found.append((z[layer].float() * gradient / steps).to(vlm.device))
    return torch.stack(found)


def _gradients_along(
    vlm: VLM, encoded: Encoded, layer: int, position: int, z: Float[Tensor, " neurons"], alphas: Float[Tensor, " rows"]
) -> Float[Tensor, " neurons"]:
    """The sum over rows of d p(answer) / d z[layer], row k at alphas[k] z."""
    scaled = (alphas.to(z.device)[:, None] * z).to(z.dtype).requires_grad_()

    def put(number: int, x: Tensor) -> Tensor | None:
        if number != layer:
            return None
        return torch.cat([x[:, :position], scaled[:, None], x[:, position + 1 :]], 1)

    with torch.enable_grad(), at_down_proj(vlm, put):
        probability = vlm.log_probabilities(encoded).exp()
        (gradient,) = torch.autograd.grad(probability.sum(), scaled)
    return gradient.float().sum(0)
