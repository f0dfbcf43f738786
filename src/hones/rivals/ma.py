"""Mean activation: the mean of z[l,i] over the task's prompt tokens."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.models.capture import Z
from hones.rivals.base import Context, Method
from hones.rivals.reading import mean_over_tokens


class MeanActivation(Method):
    """How much a neuron is on."""

    name: ClassVar[str] = "ma"
    summary: ClassVar[str] = "mean activation z over prompt tokens"
    source: ClassVar[str] = "baseline of Wang, Hu, Jiang 2026, arXiv 2604.17941"

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """The mean of z."""
        mean, _ = mean_over_tokens(context, context.examples, Z, lambda z: z, "mean activation")
        return mean.astype(np.float32)
