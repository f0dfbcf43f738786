"""relp: relevance patching, attribution by a backward pass that is linear.

RelP (Jafari et al. 2025, arXiv 2508.21258) is attribution patching with the relevance of layer-wise propagation in
place of the gradient; Transluce's circuits of neurons (2026, arXiv 2601.22594) use it on z. Each nonlinear step is
written as what it is at this input times its input, and the factor is held constant:

    norm        y = w x / rms(x)                     1 / rms held
    attention   o = sum_t pattern(t) v(t)            the pattern held
    activation  a = SiLU(g) = g sigma(g)             sigma(g) held
    product     z = a u                              half of the gradient to each factor

With all of them the model is linear in the residual entering its first layer and in its biases. With R the gradient
under the rules, a logit is the sum over positions of <x, R_x>, and over biases of <b, R_b>, exactly; without biases the
relevance of the inputs adds up to the logit (tested in float64). The halves come from z being of degree two in what
enters the FFN: with whole gradients its relevance would count twice.

What is attributed, and why from 0: `hones.rivals.ruled`. What it finds on planted models: docs/methods.md.
"""

from hones.models.backward_rules import Rules
from hones.rivals.ruled import Ruled


class RelevancePatching(Ruled, known="relp"):
    """Contrastive attribution by a linear backward pass."""

    rules = Rules(norm=True, pattern=True, activation=True, product=0.5)
