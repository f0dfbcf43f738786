"""Direct vocabulary projection: HONES without heads, the essential ablation.

I[l,i] = mean over x of c[l,i](x),   c = z[l,i] <W_down[:,i], u_y> at the last prompt position

u_y: `hones.method.direction`. Sums are in float64.
"""

import numpy as np
import torch

from hones.method.direction import target_directions
from hones.models.writing import contributions, importance_shape, readout_of
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import PROMPTS_AT_ONCE, ask, batches


class DirectProjection(Method, known="dvp"):
    """Write-in toward the answer, whoever drives it."""

    def importance(self, context: Context) -> Importance:
        vlm = context.vlm
        total = np.zeros(importance_shape(vlm))
        directed = [*zip(context.examples, target_directions(vlm, context.task, context.examples), strict=True)]
        for part in batches(context, directed, PROMPTS_AT_ONCE, "projection"):
            readout = readout_of(vlm, torch.stack([direction for _, direction in part]))
            c = contributions(vlm, ask(vlm, [example for example, _ in part]), readout)
            total += c.sum(0, dtype=torch.float64).cpu().numpy()
        return (total / len(context.examples)).astype(np.float32)
