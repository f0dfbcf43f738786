"""Mean activation: the mean of z[l,i] over the task's prompt tokens."""

import numpy as np

from hones.models.capture import Z
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import mean_over_tokens


class MeanActivation(Method, known="ma"):
    """How much a neuron is on."""

    def importance(self, context: Context) -> Importance:
        mean, _ = mean_over_tokens(context, context.examples, Z, lambda z: z, "mean activation")
        return mean.astype(np.float32)
