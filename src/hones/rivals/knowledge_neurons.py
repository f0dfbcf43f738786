"""Knowledge neurons: integrated gradients of p(answer) along the activations of one layer (Dai et al.).

    score[l,i] = mean over x of A[l,i](x),    A: `integrated_gradients` with m = 20

z is scaled at the last prompt position, the whole layer jointly; other layers and positions follow. The mean is in
float64.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hones.errors import HonesWarning
from hones.models.vlm import frozen
from hones.models.writing import importance_shape
from hones.progress import track
from hones.rivals.base import Context, Importance, Method
from hones.rivals.integrated_gradients import integrated_gradients
from hones.rivals.known import KNOWLEDGE_NEURONS_STEPS as STEPS
from hones.rivals.reading import ROWS_WITH_GRADIENT, ask_with_gold
from hones.rivals.tail import Tail, disproof, integrated_gradients_of, tails
from hones.sweep.prompts import Unserved
from hones.tasks.base import Example, Task


class KnowledgeNeurons(Method, known="knowledge-neurons"):
    """Integrated gradients of the answer's probability."""

    def importance(self, context: Context) -> Importance:
        total = np.zeros(importance_shape(context.vlm))
        for _, attribution in attributions(context, [(context.task, context.examples)], STEPS, "knowledge neurons"):
            total += attribution
        return (total / len(context.examples)).astype(np.float32)


def attributions(
    context: Context, jobs: Sequence[tuple[Task, Sequence[Example]]], steps: int, what: str
) -> Iterator[tuple[Task, Importance]]:
    """The integrated gradients of each example, float64, with its task, picture by picture.

    --batch-size rows (steps) at once. A family whose tails cannot be run alone is served by the definition.
    """
    vlm = context.vlm
    rows = context.sweep.batch_size
    of_picture: dict[Any, list[tuple[Task, Example]]] = defaultdict(list)
    for task, examples in jobs:
        for example in examples:
            of_picture[example.about].append((task, example))
    groups = [*of_picture.values()]
    warned = False
    with frozen(vlm.model):
        problem = disproof(vlm, *groups[0][0])
        for group in track(groups, f"{context.task.name}: {what}"):
            ready: list[Tail] = []
            if problem is None:
                try:
                    ready = tails(vlm, group)
                except Unserved as error:
                    problem = str(error)
            if problem is None:
                of_group = (integrated_gradients_of(tail, steps, rows) for tail in ready)
            else:
                asked = (ask_with_gold(vlm, task, [example]) for task, example in group)
                of_group = (integrated_gradients(vlm, x, steps, rows or ROWS_WITH_GRADIENT) for x in asked)
                if not warned:
                    name = type(vlm.model).__name__
                    warnings.warn(
                        f"{name}: integrated gradients by whole passes take longer ({problem})",
                        HonesWarning,
                        stacklevel=2,
                    )
                    warned = True
            for (task, _), attribution in zip(group, of_group, strict=True):
                yield task, attribution.double().cpu().numpy()
