"""Activation probability: P[l,i] = share of the task's prompt tokens with act(gate)[l,i] > 0."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.models.capture import GATE
from hones.rivals.base import Context, Method
from hones.rivals.reading import check_gate, mean_over_tokens
from hones.tasks.base import Example


def activation_probability(context: Context, examples: Sequence[Example]) -> Float[np.ndarray, "layers neurons"]:
    """P over the prompt tokens of some examples, float64."""
    check_gate(context.vlm)
    probability, _ = mean_over_tokens(context, examples, GATE, lambda gate: gate > 0, "activation probability")
    return probability


class ActivationProbability(Method):
    """How often a neuron is on."""

    name: ClassVar[str] = "ap"
    summary: ClassVar[str] = "share of prompt tokens on which the neuron is active"
    source: ClassVar[str] = "Tang et al. 2024, arXiv 2402.16438"

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """P[l,i]."""
        return activation_probability(context, context.examples).astype(np.float32)
