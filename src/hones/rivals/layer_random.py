"""Chance with the layers of HONES: its importance, shuffled among the neurons of each layer.

At every budget the chosen set has as many neurons in each layer as HONES's set; which ones is uniform, so a draw may
hold some of HONES's own (the control of `hones mask` draws from the others).
"""

import numpy as np

from hones.rivals.base import Context, Importance, Method
from hones.rivals.hones import Hones


class LayerRandom(Method, known="layer-random"):
    """Uniform, with the per-layer counts of the HONES set; one draw by the context's seed."""

    def importance(self, context: Context) -> Importance:
        importance = Hones().importance(context) if context.hones is None else context.hones
        rng = np.random.default_rng(context.seed)
        layers = context.vlm.anatomy.layers
        if not any(layer.absent for layer in layers):
            return rng.permuted(importance, axis=1)
        shuffled = importance.copy()
        for of_layer, layer in zip(shuffled, layers, strict=True):
            of_layer[: layer.neurons] = rng.permutation(of_layer[: layer.neurons])
        return shuffled
