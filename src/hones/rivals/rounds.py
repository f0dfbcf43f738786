"""rounds: hones+'s contrast, its gradient taken again each time a part of the budget has been closed.

V(g) is what the model knows about the items (`hones.rivals.hones_plus`), with a gate g[l,i] on z[l,i] at every
position, 1 open and 0 closed, as masking has it. The set S of n neurons that is wanted costs most together:

    maximise V(1) - V(1 - 1_S)  over |S| = n.

hones+ takes the n largest dV/dg at g = 1, which is this to first order around the *open* model. There a neuron counts
for nothing that another one makes up for, and two that do the same count twice. So go in R steps, as Frank and Wolfe
do: with C_0 empty and n_r = ceil(n r / R),

    s_r = dV/dg at g = 1 - 1_{C_(r-1)},    C_r = C_(r-1) + the n_r - n_(r-1) neurons outside with the largest s_r > 0.

Once a set is closed, what stands in for it carries the answer and has the gradient. One round is hones+ itself. The
cost is R forward and backward passes per prompt, R times hones+'s.

The ranking: neurons closed in round 1, by s_1, then those of round 2, and so on; then all others by the last gradient
s_R, the last round's own among them, which are its largest. Numbers: s_R itself for these; each neuron closed before
stands above them by one more max s_R (1 where that is not positive) than the next one. What no round finds positive is
never selected.

The ranking is for a budget: at another one other neurons are closed before the gradient is taken again. So the curves
of a comparison, like `hones neurons --ratio`, rank anew for every budget. With a width, w neurons are closed in each
round whatever the budget, n_r = w r, and one ranking serves all budgets. `--ratio auto` looks along the ranking of 1 %
of the neurons, and records that.

Shapes: g, s [L, I].
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from hones.method.budget import DEFAULT_RATIO, neuron_budget
from hones.models.writing import importance_shape
from hones.rivals.base import Context, Importance, Method
from hones.rivals.gates import GateGradients, Job
from hones.rivals.hones_plus import knowledge_of
from hones.rivals.known import ROUNDS


@dataclass(frozen=True)
class Schedule:
    """How many neurons are closed when. width: per round; None: the budget, a share `ratio` of all, over the rounds."""

    rounds: int = ROUNDS
    width: int | None = None
    ratio: float = DEFAULT_RATIO

    def closed(self, total: int) -> list[int]:
        """How many of `total` neurons are closed after each round; rounds that would close none are left out."""
        if self.width is not None:
            after = [min(total, self.width * r) for r in range(1, self.rounds + 1)]
        else:
            budget = neuron_budget(total, self.ratio)
            after = [-(-budget * r // self.rounds) for r in range(1, self.rounds + 1)]
        return [*dict.fromkeys(after)]


@dataclass(frozen=True)
class Rounds(Method, known="rounds"):
    """Contrastive attribution, closed in rounds."""

    cut_by_items = True
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def options(self) -> dict[str, Any]:
        """The schedule; with a width the budget plays no part."""
        asked = asdict(self.schedule)
        return asked if self.schedule.width is None else asked | {"ratio": None}

    def with_schedule(self, **asked: int) -> "Rounds":
        """With these rounds, this width."""
        return replace(self, schedule=replace(self.schedule, **asked))

    def for_budget(self, ratio: float) -> "Rounds":
        return replace(self, schedule=replace(self.schedule, ratio=ratio))

    def importance(self, context: Context) -> Importance:
        """The numbers above, float32.

        Raises:
            HonesError: all answers are the same.
        """
        closed = self.schedule.closed(context.vlm.anatomy.total_neurons)
        gradients = GateGradients(context, self.jobs(context), len(closed))
        return close_in_rounds(
            lambda gates: self.score(gradients.at(gates)).astype(np.float32), importance_shape(context.vlm), closed
        )

    def jobs(self, context: Context) -> Sequence[Job]:
        """Whose gradients are taken in each round."""
        return [knowledge_of(context.task, context.examples)]

    def score(self, gradients: Float[np.ndarray, "jobs layers neurons"]) -> Importance:
        """By what a round chooses."""
        return gradients[0]


def close_in_rounds(
    score: Callable[[Importance], Importance], shape: tuple[int, int], closed: Sequence[int]
) -> Importance:
    """The numbers above, of the dtype of the scores.

    Args:
        score: s at given gates.
        closed: how many neurons are closed after each round.
    """
    gates = np.ones(shape, dtype=np.float32)
    order: list[int] = []
    last = score(gates)
    for count in closed[:-1]:
        found = largest(np.where(gates > 0, last, 0), count - len(order))
        if not len(found):
            break
        order.extend(found.tolist())
        gates.flat[found] = 0
        last = score(gates)
    # a closed neuron has a gradient too, which says what opening it again would do
    rest = np.where(gates > 0, last, -np.inf)
    unit = rest.max() if rest.max() > 0 else 1
    numbers = np.where(gates > 0, last, 0)
    numbers.flat[order] = unit * np.arange(len(order) + 1, 1, -1)
    return numbers


def largest(score: Importance, count: int) -> Int[np.ndarray, " found"]:
    """The flat indices of the largest positive ones; ties go to the earlier, as in `select_neurons`."""
    order = np.argsort(-score.ravel(), kind="stable")[:count]
    return order[score.flat[order] > 0]
