"""coax: neurons whose effect grows once others are closed, which stand in for them.

CoAx (Gong et al. 2026, arXiv 2607.01940) scores a unit u by how much its ablation effect grows when a seed set S is
ablated already, where a backup that is idle beside S shows:

    growth(u | S) = E(u | S) - E(u),    E(u) = V(1) - V(1 - 1_u),    E(u | S) = V(1 - 1_S) - V(1 - 1_(S + u)),

in gates g on z, V being hones+'s contrast (`hones.rivals.hones_plus`; the source has the output's own metric in its
place, which asks for no answers). One ablation per unit is for heads; there are too many neurons. So here both effects
are taken to first order, at open gates and at those with S closed:

    score[l,i] = dV/dg at g = 1 - 1_S  -  dV/dg at g = 1,

an approximation. `growth` is the definition: neurons closed a little follow it (tested); closed wholly, which is no
small step, they follow it by rank alone. Over every other neuron of a small random Qwen, four seeds: the same sign for
94 %, rank correlation .73 (of the plain effect, which hones+ ranks by, with its gradient: .86), 8 of the 10 largest.
The values' own correlation is .05 there, as one neuron of the first layer, whose gradients have the wrong sign at open
gates as well, outweighs all others; among few neurons with this one it can be close to -1.

S is the first part of the budget, half of it, by hones+'s ranking. The ranking: S, in its order, then all others by
their growth. As in `rounds`, which this is but for the subtraction: `--rounds N` closes the budget in N parts, S being
all parts before, and growth is taken against open gates each time; `--width W` has the first W neurons as seeds
whatever the budget. What does not grow is never selected.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from hones.models.sites import Site
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance
from hones.rivals.gates import Gated, GateGradients
from hones.rivals.rounds import Rounds, Schedule, close_in_rounds

ROUNDS = 2
"""Half of the budget is seeds, half of it what grows."""


@dataclass(frozen=True)
class ConditionalCoAblation(Rounds, known="coax"):
    """Contrastive attribution, the growth of it once seeds are closed."""

    schedule: Schedule = field(default_factory=lambda: Schedule(rounds=ROUNDS))

    def importance(self, context: Context) -> Importance:
        """The numbers above, float32, as `rounds` has them.

        Raises:
            HonesError: all answers are the same.
        """
        closed = self.schedule.closed(context.vlm.anatomy.total_neurons)
        gradients = GateGradients(context, self.jobs(context), len(closed))
        opened: list[Float[np.ndarray, "layers neurons"]] = []

        def score(gates: Importance) -> Importance:
            (now,) = gradients.at(gates)
            if not opened:
                opened.append(now.copy())
                return now.astype(np.float32)
            return (now - opened[0]).astype(np.float32)

        return close_in_rounds(score, importance_shape(context.vlm), closed)


def growth(gated: Gated, seeds: frozenset[Site], unit: Site, gates: Importance) -> float:
    """By its definition, from four values of V; gates: open ones."""

    def value(closed: frozenset[Site]) -> float:
        these = gates.copy()
        for site in closed:
            these[site] = 0
        return gated.value(these)

    alone = frozenset({unit})
    return (value(seeds) - value(seeds | alone)) - (value(frozenset()) - value(alone))
