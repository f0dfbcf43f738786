"""Chance, the floor of every comparison."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.models.writing import importance_shape
from hones.rivals.base import Context, Method


class Random(Method):
    """Uniform in (0, 1]."""

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "uniform over all neurons"
    source: ClassVar[str] = "control"
    drawn: ClassVar[bool] = True

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """One draw, by the context's seed."""
        rng = np.random.default_rng(context.seed)
        return (1 - rng.random(importance_shape(context.vlm))).astype(np.float32)
