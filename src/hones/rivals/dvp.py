"""Direct vocabulary projection: HONES without heads, the essential ablation.

I[l,i] = mean over x of c[l,i](x),   c = z[l,i] <W_down[:,i], u_y> at the last prompt position

u_y: `hones.method.direction`.
"""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from hones.method.direction import target_directions
from hones.models.writing import contributions, importance_shape, readout_of
from hones.rivals.base import Context, Method
from hones.rivals.reading import PROMPTS_AT_ONCE, ask, batches


class DirectProjection(Method):
    """Write-in toward the answer, whoever drives it."""

    name: ClassVar[str] = "dvp"
    summary: ClassVar[str] = "write-in toward the answer, without heads"
    source: ClassVar[str] = "Pan et al. 2024, arXiv 2311.07470 (multimodal neurons); ablation of HONES"

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """The mean of c; sums in float64."""
        vlm = context.vlm
        total = np.zeros(importance_shape(vlm))
        done = 0
        directions = target_directions(vlm, context.task, context.examples)
        for part in batches(context, context.examples, PROMPTS_AT_ONCE, "projection"):
            readout = readout_of(vlm, directions[done : done + len(part)])
            c = contributions(vlm, ask(vlm, part), readout)
            total += c.sum(0, dtype=torch.float64).cpu().numpy()
            done += len(part)
        return (total / done).astype(np.float32)
