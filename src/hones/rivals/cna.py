"""Contrastive neuron activation: z on this task's prompt against z on the other tasks' prompts about the same picture.

    score[l,i] = mean over x of (z[l,i](x) - mean over the picture's other prompts x' of z[l,i](x'))

At the last prompt position. Pictures that no other task can be asked about are left out of the mean.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from hones.errors import TaskStops
from hones.models.writing import activations, importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.rivals.reading import PROMPTS_AT_ONCE, ask, batches
from hones.tasks.base import Example


class ContrastiveActivation(Method, known="cna"):
    """What this task's prompt adds to the activation."""

    def importance(self, context: Context) -> Importance:
        """The weighted sum of all activations: 1/n for this task's prompts, -1/(n k) for a picture's k others."""
        others: dict[Path | str, list[Example]] = defaultdict(list)
        for _, examples in context.jobs[1:]:
            for example in examples:
                others[example.about].append(example)
        contrasted = [e for e in context.examples if others[e.about]]
        if not contrasted:
            raise TaskStops(f"no picture of {context.task.name} is asked about by another task")
        weighted = [(e, 1.0) for e in contrasted]
        weighted += [(other, -1 / len(others[e.about])) for e in contrasted for other in others[e.about]]
        total = np.zeros(importance_shape(context.vlm))
        for part in batches(context, weighted, PROMPTS_AT_ONCE, "contrast"):
            z = activations(context.vlm, ask(context.vlm, [e for e, _ in part]))
            total += np.tensordot([weight for _, weight in part], z.double().cpu().numpy(), 1)
        return (total / len(contrasted)).astype(np.float32)
