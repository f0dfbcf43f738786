"""Chance, the floor of every comparison."""

import numpy as np

from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method


class Random(Method, known="random"):
    """Uniform in (0, 1], one draw by the context's seed."""

    def importance(self, context: Context) -> Importance:
        rng = np.random.default_rng(context.seed)
        numbers = (1 - rng.random(importance_shape(context.vlm))).astype(np.float32)
        for of_layer, layer in zip(numbers, context.vlm.anatomy.layers, strict=True):
            of_layer[layer.neurons :] = 0
        return numbers
