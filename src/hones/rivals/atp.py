"""Attribution patching to zero: the drop of log p(answer) when a neuron is zeroed, to first order.

    score[l,i] = mean over x of sum over positions s of z[l,i](s) * d log p(answer) / d z[l,i](s)

All positions of the prompt and of the teacher-forced answer, as masking edits them; one backward pass per batch.
Products and sums over positions are in float32, sums over items in float64.
"""

import numpy as np
import torch
from torch import Tensor

from hones.models.capture import Z, capture
from hones.models.vlm import frozen
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import ROWS_WITH_GRADIENT, ask_with_gold, batches


class AttributionPatching(Method, known="atp"):
    """A first-order guess of the oracle."""

    def importance(self, context: Context) -> Importance:
        vlm = context.vlm
        total = np.zeros(importance_shape(vlm))
        activations: list[Tensor] = []

        def read(_: int, z: Tensor) -> Tensor:
            z = z if z.requires_grad else z.detach().requires_grad_()
            activations.append(z)
            return z

        for part in batches(context, context.examples, ROWS_WITH_GRADIENT, "attribution patching"):
            encoded = ask_with_gold(vlm, context.task, part)
            activations.clear()
            with frozen(vlm.model), torch.enable_grad(), capture(vlm.anatomy, Z, read):
                log_p = vlm.log_probabilities(encoded)
                gradients = torch.autograd.grad(log_p.sum(), activations)  # of all rows at once: they do not mix
            for layer, (z, gradient) in enumerate(zip(activations, gradients, strict=True)):
                product = z.detach().float() * gradient.float()
                total[layer] += product.sum(1).sum(0, dtype=torch.float64).cpu().numpy()
        return (total / len(context.examples)).astype(np.float32)
