"""Query-relevant neuron cluster attribution (Chen et al.): integrated gradients, less for neurons that every query has.

    score[l,i] = (mean over x of A[l,i](x)) * ln(N / (1 + n[l,i]))

A are the integrated gradients of `knowledge-neurons` with 16 steps, applied to z. The cluster of a query holds the
neurons whose A is above 0.2 of the query's largest (the threshold of knowledge neurons); n[l,i] counts the clusters
that hold the neuron among the N queries of all tasks about the same pictures. A neuron that every cluster holds scores
less than 0 and is not selected.
"""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from hones.comparators.base import Context, Method
from hones.comparators.knowledge_neurons import attributions
from hones.write_in import importance_shape

STEPS, THRESHOLD = 16, 0.2


class Qrnca(Method):
    """Integrated gradients times inverse cluster frequency."""

    name: ClassVar[str] = "qrnca"
    summary: ClassVar[str] = f"integrated gradients ({STEPS} steps) times inverse cluster frequency"
    source: ClassVar[str] = "Chen et al. 2025, arXiv 2406.10868"
    needs_other_tasks: ClassVar[bool] = True

    def importance(self, context: Context) -> Float[np.ndarray, "layers neurons"]:
        """The product, from sums in float64."""
        shape = importance_shape(context.vlm)
        own, clusters, queries = np.zeros(shape), np.zeros(shape), 0
        for task, found in attributions(context, context.jobs, STEPS, "qrnca"):
            clusters += in_cluster(found)
            queries += 1
            if task is context.task:
                own += found
        return (own / len(context.examples) * np.log(queries / (1 + clusters))).astype(np.float32)


def in_cluster(attribution: Float[np.ndarray, "layers neurons"]) -> np.ndarray:
    """Which neurons a query's cluster holds, booleans [L, I]; none where no attribution is positive."""
    return attribution > THRESHOLD * max(0.0, float(attribution.max()))
