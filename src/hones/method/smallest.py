"""The smallest budget at which masking a ranking's first neurons costs a task half of its baseline: `--ratio auto`.

On the discovery items, never on those that the mask is tested on. Budgets double from one neuron to a tenth of all, and
are masked in one sweep; then, in a second one, STEPS budgets between the first that costs half and the one before it,
evenly on a log scale. The first of these that costs half is taken: it is the smallest to within 9 %.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.errors import TaskStops
from hones.log import remark
from hones.method.found import sites_of
from hones.method.neurons import select_neurons
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import UNEDITED
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task

HALF = 0.5
MOST = 0.1
STEPS = 7


@dataclass(frozen=True)
class SmallestBudget:
    """ratio: neurons as a share of all. tried: (neurons, share of the baseline that masking them costs), ascending."""

    neurons: int
    ratio: float
    tried: tuple[tuple[int, float], ...]

    def __str__(self) -> str:
        path = ", ".join(f"{neurons}: {share:.0%}" for neurons, share in self.tried)
        return f"{self.neurons} neurons ({100 * self.ratio:.3g} % of all); the baseline lost by neurons masked: {path}"


def smallest_budget(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    importance: Float[np.ndarray, "layers neurons"],
    sweep: Callable[[str], SweepSettings] = lambda part: SweepSettings(),
    *,
    seed: int = 3407,
) -> SmallestBudget:
    """Mask the first neurons of a ranking at growing budgets, on discovery items.

    Args:
        sweep: how each of the two sweeps runs, "doubled" and "between".

    Raises:
        TaskStops: the model scores 0, or a tenth of all neurons does not cost half of what it scores.
    """
    most = max(1, round(MOST * importance.size))
    ranked = sites_of(select_neurons(importance, most / importance.size))
    if not ranked:
        raise TaskStops(f"{task.name}: no neuron has a positive importance", expected="some, for --ratio auto")

    def shares(counts: Sequence[int], part: str) -> dict[int, float]:
        """What masking so many costs."""
        masks = {count: Intervention(masked=frozenset(ranked[:count])) for count in counts}
        progress = f"{task.name}: budgets {part}"
        arms = {UNEDITED: BASELINE, **masks}
        (measured,) = measure(vlm, [(task, examples)], arms, sweep(part), seed=seed, progress=progress)
        lost = {count: measured.share_lost(count) for count in counts}
        return {count: share.value for count, share in lost.items() if share is not None}

    doubled = [*(2**k for k in range(len(ranked).bit_length()) if 2**k < len(ranked)), len(ranked)]
    found = shares(doubled, "doubled")
    if not found:
        what = f"{task.name}: the model scores 0 on the discovery items, so no budget costs half of it"
        raise TaskStops(what, do="give --ratio a number")
    reached = next((count for count in doubled if found[count] >= HALF), None)
    if reached is None:
        costs = f"masking {len(ranked):,} neurons costs {found[len(ranked)]:.0%} of the baseline on the discovery items"
        raise TaskStops(f"{task.name}: {costs}", expected="half of it, for --ratio auto", do="give --ratio a number")
    before = max((count for count in doubled if count < reached), default=reached)
    between = {int(count) for count in np.geomspace(before, reached, STEPS + 2).round()} - {before, reached}
    if between:
        found |= shares(sorted(between), "between")
    tried = tuple(sorted(found.items()))
    smallest = next(count for count, share in tried if share >= HALF)  # all before these cost less
    chosen = SmallestBudget(smallest, smallest / importance.size, tried)
    remark(f"{task.name}: --ratio auto selects {chosen}")
    return chosen
