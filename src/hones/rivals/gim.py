"""gim: gradient interaction modifications, against self-repair in the backward pass.

GIM (Edin et al. 2025, arXiv 2505.17630) changes three derivatives:

    norm        1 / rms held, so that a norm does not give back what was taken away
    softmax     its Jacobian at scores / 2: where two keys share the attention and one would take over from the other,
                the gradient at temperature 1 vanishes. diag(p) - p p^T at p = softmax(scores / 2), without the factor 1 / 2
    products    of n tensors each gets 1 / n of the gradient: .25, .25, .5 for queries, keys and values (pattern times v,
                the pattern from q times k), .5 for the gate and up of a gated FFN

Activations keep their own derivative. What is attributed, and why from 0: `hones.rivals.ruled`.
"""

from hones.models.backward import Rules
from hones.rivals.ruled import Ruled

TEMPERATURE = 2.0


class GradientInteraction(Ruled, known="gim"):
    """Contrastive attribution by gradients with modified interactions."""

    rules = Rules(norm=True, softmax=TEMPERATURE, factors=(0.25, 0.25, 0.5), product=0.5)
