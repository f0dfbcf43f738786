"""Wanda, the pruning criterion of whole neurons: sqrt(sum over prompt tokens of z[l,i]^2) * ||W_down[:,i]||."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from hones.models.capture import Z
from hones.models.writing import check_weights
from hones.rivals.base import Context, Method
from hones.rivals.reading import mean_over_tokens


class Wanda(Method):
    """Size of what a neuron writes."""

    name: ClassVar[str] = "wanda"
    summary: ClassVar[str] = "norm of the activations times norm of the write vector"
    source: ClassVar[str] = "Sun et al. 2024, arXiv 2306.11695"

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """Both norms in float32 or better."""
        for number, layer in enumerate(context.vlm.anatomy.layers):
            check_weights(layer, f"{context.vlm.name} layer {number}")
        square, tokens = mean_over_tokens(context, context.examples, Z, torch.square, "wanda")
        norms = [layer.down_proj.weight.detach().float().norm(dim=0).cpu() for layer in context.vlm.anatomy.layers]
        return (np.sqrt(square * tokens) * torch.stack(norms).numpy()).astype(np.float32)
