"""Mean activation: the mean of z[l,i] over the task's prompt tokens."""

import numpy as np

from hones.models.capture import Z
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import mean_over_tokens


class MeanActivation(Method):
    """How much a neuron is on."""

    name = "ma"
    summary = "mean activation z over prompt tokens"
    source = "baseline of Wang, Hu, Jiang 2026, arXiv 2604.17941"

    def importance(self, context: Context) -> Importance:
        mean, _ = mean_over_tokens(context, context.examples, Z, lambda z: z, "mean activation")
        return mean.astype(np.float32)
