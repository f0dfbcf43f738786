"""gim: gradient interaction modifications, against self-repair in the backward pass.

GIM (Edin et al. 2025, arXiv 2505.17630) changes three derivatives:

    norm        1 / rms held, so that a norm does not give back what was taken away
    softmax     its Jacobian taken at scores / 2, diag(p) - p p^T of p = softmax(scores / 2), without the factor 1 / 2:
                where one key has nearly all of the attention and another would take over, that at scores vanishes
    products    each of two factors gets half of the gradient: .5 for the values (pattern times v) and .25 for queries
                and keys, whose product the pattern is of; .5 for the gate and up of a gated FFN

Activations keep their own derivative. What is attributed, and why from 0: `hones.rivals.ruled`.
"""

from hones.models.backward_rules import Rules
from hones.rivals.ruled import Ruled

TEMPERATURE = 2.0


class GradientInteraction(Ruled, known="gim"):
    """Contrastive attribution by gradients with modified interactions."""

    rules = Rules(norm=True, softmax=TEMPERATURE, factors=(0.25, 0.25, 0.5), product=0.5)
