"""Activation-probability entropy over tasks: neurons that are often active on this task and rarely on the others.

    p_t = P_t / sum over tasks of P_t,    H = - sum over t of p_t ln p_t,    score = ln(tasks) - H

P_t is the activation probability (`ap`) on the prompts of task t about the same pictures. Only neurons whose P on this
task reaches the 95th percentile of all neurons count (above it is none where many neurons are always on), the others
score 0: the set may fall short of a budget.
"""

import numpy as np
from jaxtyping import Float

from hones.rivals.ap import activation_probability
from hones.rivals.base import Context, Importance, Method

PERCENTILE = 95


class ActivationProbabilityEntropy(Method, known="ape"):
    """Task-specific activation."""

    def importance(self, context: Context) -> Importance:
        return entropy_score(np.stack([activation_probability(context, examples) for _, examples in context.jobs]))


def entropy_score(probability: Float[np.ndarray, "tasks layers neurons"]) -> Importance:
    """The score of the first task, from the activation probabilities of all."""
    of_task = probability[0]
    total = probability.sum(0)
    share = probability / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(0)
    often = (of_task > 0) & (of_task >= np.percentile(of_task, PERCENTILE))
    return np.where(often, np.log(len(probability)) - entropy, 0).clip(min=0).astype(np.float32)
