"""masks: gates on all neurons, learned with a cost for each that is open; what survives is kept.

An upper reference for what a set can keep, by a short training, not a ranking in seconds (multi-granular node pruning,
arXiv 2512.10903, its level of neurons; the gates of Louizos et al. 2018, arXiv 1712.01312). Each neuron has a gate
logit alpha; a gate is hard concrete, of u uniform in (0, 1):

    s = sigmoid((ln u - ln(1 - u) + alpha) / b),    g = min(1, max(0, s (r - l) + l)),    b = 2/3, l = -.1, r = 1.1

so it is 0 and 1 with positive probability, and open, g > 0, with P(alpha) = sigmoid(alpha - b ln(-l / r)). Stochastic
gradient steps (Adam) maximise

    V(g) / |V(1)| - COST sum_i P(alpha_i) / (L I),

V being hones+'s contrast (`hones.rivals.hones_plus`), all gates drawn anew for each batch of prompts: so a neuron is
open where it adds more to what the model knows about the items than it costs, with many others closed. (The source
keeps the whole model's output; here the same V as in hones+, so that the search is all that differs.)

    score[l,i] = alpha - alpha_0,    alpha_0 = logit(-l / (r - l)),

above 0 where the gate without noise, s = sigmoid(alpha), is open: these survive. Which batches and gates are drawn is
given by the seed.

Shapes: alpha, g, score [L, I].
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesError
from hones.models.vlm import frozen
from hones.models.writing import importance_shape
from hones.progress import progress_bar
from hones.rivals.base import Context, Importance, Method
from hones.rivals.gates import Gated
from hones.rivals.hones_plus import Knowledge

SHARPNESS = 2 / 3
LEFT, RIGHT = -0.1, 1.1
SURVIVES = math.log(-LEFT / RIGHT)
"""alpha_0, where sigmoid(alpha) (r - l) + l = 0."""


@dataclass(frozen=True)
class Training:
    """steps: of batches. cost: of all gates open, in shares of V(1). start: every alpha before the first step."""

    steps: int = 200
    cost: float = 100.0
    learning_rate: float = 0.1
    start: float = 2.0


@dataclass(frozen=True)
class LearnedMasks(Method, known="masks"):
    """Hard-concrete gates with a sparsity cost."""

    training: Training = Training()

    @property
    def options(self) -> dict[str, Any]:
        """The training's settings."""
        return asdict(self.training)

    def importance(self, context: Context) -> Importance:
        """alpha - alpha_0, float32.

        Raises:
            HonesError: all answers are the same, or V is 0.
        """
        vlm = context.vlm
        knowledge = Knowledge(vlm, context.task, context.examples, context.sweep.batch_size)
        with (
            frozen(vlm.model),
            progress_bar(f"{context.task.name}: masks", self.training.steps, " steps") as bar,
        ):
            if context.sweep.engine != "naive":
                knowledge.hasten(self.training.steps, context.sweep.most_bytes)
            logits = learn(knowledge, importance_shape(vlm), self.training, context.seed, bar.update)
        return (logits - SURVIVES).numpy()


def learn(
    gated: Gated, shape: tuple[int, int], training: Training, seed: int, advance: Any = lambda: None
) -> Float[Tensor, "layers neurons"]:
    """The gate logits alpha after training.

    Args:
        advance: called after each step.

    Raises:
        HonesError: V is 0 at open gates.
    """
    size = abs(gated.value(np.ones(shape, dtype=np.float32)))
    if not size > 0:
        raise HonesError("the model tells no item's answer from another's: V is 0", expected="items that it knows")
    generator = torch.Generator().manual_seed(seed)
    logits = torch.full(shape, training.start, requires_grad=True)
    steps = torch.optim.Adam([logits], lr=training.learning_rate)
    batches = _batches(gated, generator)
    for _ in range(training.steps):
        batch = next(batches)
        with torch.enable_grad():
            gates = drawn(logits, generator)
            (value,) = gated.parts(gates, batch)
            known = value * (gated.count / len(batch)) / size
            loss = training.cost * probability_of_open(logits).mean() - known
            steps.zero_grad()
            loss.backward()
        steps.step()
        advance()
    return logits.detach()


def drawn(logits: Float[Tensor, "layers neurons"], generator: torch.Generator) -> Float[Tensor, "layers neurons"]:
    """Hard concrete gates, one draw; gradients flow to the logits where a gate is neither 0 nor 1."""
    u = torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    s = ((u.log() - (1 - u).log() + logits) / SHARPNESS).sigmoid()
    return (s * (RIGHT - LEFT) + LEFT).clamp(0, 1)


def probability_of_open(logits: Float[Tensor, "layers neurons"]) -> Float[Tensor, "layers neurons"]:
    """P(g > 0)."""
    return (logits - SHARPNESS * SURVIVES).sigmoid()


def _batches(gated: Gated, generator: torch.Generator) -> Iterator[range]:
    """Batches without end, all of them in an order drawn anew each time."""
    every = gated.batches(range(gated.count))
    while True:
        for n in torch.randperm(len(every), generator=generator).tolist():
            yield every[n]
