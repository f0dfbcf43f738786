"""Wanda, the pruning criterion of whole neurons: sqrt(sum over prompt tokens of z[l,i]^2) * ||W_down[:,i]||."""

import numpy as np
import torch
from torch.nn.functional import pad

from hones.models.anatomy import matrix
from hones.models.capture import Z
from hones.models.writing import check_weights
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import mean_over_tokens


class Wanda(Method, known="wanda"):
    """Size of what a neuron writes."""

    def importance(self, context: Context) -> Importance:
        """Both norms in float32 or better."""
        layers = context.vlm.anatomy.layers
        for number, layer in enumerate(layers):
            check_weights(layer, f"{context.vlm.name} layer {number}")
        square, tokens = mean_over_tokens(context, context.examples, Z, torch.square, "wanda")
        norms = [pad(matrix(layer.down_proj).detach().float().norm(dim=0).cpu(), (0, layer.absent)) for layer in layers]
        return (np.sqrt(square * tokens) * torch.stack(norms).numpy()).astype(np.float32)
