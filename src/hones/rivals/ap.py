"""Activation probability: P[l,i] = share of the task's prompt tokens with act(gate)[l,i] > 0."""

from collections.abc import Sequence

import numpy as np

from hones.errors import HonesError
from hones.models.anatomy import ACTIVATIONS
from hones.models.capture import GATE
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import mean_over_tokens
from hones.tasks.base import Example


def activation_probability(context: Context, examples: Sequence[Example]) -> Importance:
    """P over the prompt tokens of some examples, float64.

    Raises:
        HonesError: an FFN has no activation function of its own, a module whose output can be read. What that gives is
            act(gate) also where gate and up are one projection.
    """
    for number, layer in enumerate(context.vlm.anatomy.layers):
        if layer.activation is None:
            raise HonesError(
                f"{context.vlm.name} layer {number}: no {' or '.join(ACTIVATIONS)} in its FFN",
                do="use a method that reads z",
            )
    probability, _ = mean_over_tokens(context, examples, GATE, lambda gate: gate > 0, "activation probability")
    return probability


class ActivationProbability(Method, known="ap"):
    """How often a neuron is on."""

    def importance(self, context: Context) -> Importance:
        return activation_probability(context, context.examples).astype(np.float32)
