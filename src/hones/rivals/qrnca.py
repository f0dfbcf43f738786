"""Query-relevant neuron cluster attribution (Chen et al.): integrated gradients, less for neurons that every query has.

    score[l,i] = (mean over x of A[l,i](x)) * ln(N / (1 + n[l,i]))

A are the integrated gradients of `knowledge-neurons` with 16 steps, applied to z. The cluster of a query holds the
neurons whose A is above 0.2 of the query's largest (the threshold of knowledge neurons); n[l,i] counts the clusters
that hold the neuron among the N queries of all tasks about the same pictures. A neuron that every cluster holds scores
less than 0 and is not selected.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.rivals.knowledge_neurons import attributions
from hones.rivals.known import QRNCA_STEPS as STEPS
from hones.tasks.base import Example, Task

THRESHOLD = 0.2


class Qrnca(Method, known="qrnca"):
    """Integrated gradients times inverse cluster frequency."""

    def importance(self, context: Context) -> Importance:
        """The product, from sums in float64."""
        known: dict[Any, QueryCounts] = context.shared.setdefault(self.name, {})
        asked = {_key(task, examples): (task, examples) for task, examples in context.jobs}
        new = {key: job for key, job in asked.items() if key not in known}
        counting = {task.name: QueryCounts(importance_shape(context.vlm)) for task, _ in new.values()}
        for task, attribution in attributions(context, [*new.values()], STEPS, "qrnca") if new else ():
            counting[task.name].add(attribution)
        known.update({key: counting[task.name] for key, (task, _) in new.items()})
        queries = sum(known[key].queries for key in asked)
        clusters = sum(known[key].clusters for key in asked)
        mean = known[_key(context.task, context.examples)].total / len(context.examples)
        return (mean * np.log(queries / (1 + clusters))).astype(np.float32)


class QueryCounts:
    """What one task's queries add up to: attributions [L, I], clusters that hold each neuron [L, I], queries."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.total = np.zeros(shape)
        self.clusters = np.zeros(shape)
        self.queries = 0

    def add(self, attribution: Importance) -> None:
        """One more query; its cluster holds nothing where no attribution is positive."""
        self.total += attribution
        self.clusters += attribution > THRESHOLD * max(0.0, float(attribution.max()))
        self.queries += 1


def _key(task: Task, examples: Sequence[Example]) -> tuple[Any, ...]:
    """What identifies a task's queries."""
    return (task.name, *((e.about, e.prompts[0], task.answers_to_learn(e)[0]) for e in examples))
