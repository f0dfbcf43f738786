"""The oracle: each neuron zeroed alone, by brute force.

    score[l,i] = mean over x of log p(answer) - log p(answer | z[l,i] = 0 at every position)

One intervention per neuron and item, as a sweep of the log-probability of the gold answer; tiny models only.
"""

from dataclasses import replace

import numpy as np

from hones.models.interventions import BASELINE, Intervention
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.sweep.run import sweep
from hones.tasks.log_probability import LogProbability


class Oracle(Method, known="oracle"):
    """What zeroing really costs, one neuron at a time; in nats."""

    def importance(self, context: Context) -> Importance:
        sites = [(n, i) for n, layer in enumerate(context.vlm.anatomy.layers) for i in range(layer.neurons)]
        task = LogProbability(context.task)
        edits = [Intervention(masked=frozenset({site})) for site in sites]
        statistics = sweep(
            context.vlm,
            task,
            [task.with_gold(e) for e in context.examples],
            [BASELINE, *edits],
            replace(context.sweep, journal=None),
            f"{task.name}: oracle",
        )
        scores = task.score(statistics.sum(1, dtype=np.float64))
        cost = np.zeros(importance_shape(context.vlm), dtype=np.float32)
        cost[tuple(np.transpose(sites))] = scores[0] - scores[1:]
        return cost
