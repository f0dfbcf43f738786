"""Attribution patching to zero: the drop of log p(answer) when a neuron is zeroed, to first order.

    score[l,i] = mean over x of sum over positions s of z[l,i](s) * d log p(answer) / d z[l,i](s)

All positions of the prompt and of the teacher-forced answer, as masking edits them; one backward pass per batch.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from hones.models.vlm import frozen
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Method
from hones.rivals.reading import ROWS_WITH_GRADIENT, ask_with_gold, batches, gradients_at_z


class AttributionPatching(Method):
    """A first-order guess of the oracle."""

    name: ClassVar[str] = "atp"
    summary: ClassVar[str] = "activation times gradient of the answer's log-probability"
    source: ClassVar[str] = "Nanda 2023; Syed et al. 2024, arXiv 2310.10348; Kramar et al. 2024, arXiv 2403.00745"

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """Products and sums over positions in float32, sums over items in float64."""
        vlm = context.vlm
        total = np.zeros(importance_shape(vlm))
        with frozen(vlm.model):
            for part in batches(context, context.examples, ROWS_WITH_GRADIENT, "attribution patching"):
                activations, gradients = gradients_at_z(vlm, ask_with_gold(vlm, context.task, part))
                for layer, (z, gradient) in enumerate(zip(activations, gradients, strict=True)):
                    product = z.detach().float() * gradient.float()
                    total[layer] += product.sum(1).sum(0, dtype=torch.float64).cpu().numpy()
        return (total / len(context.examples)).astype(np.float32)
