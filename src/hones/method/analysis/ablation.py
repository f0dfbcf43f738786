"""Cross-ablation: every task's drop when each exclusive group is masked, beside random neurons.

    drop[G, t] = P_t(theta) - P_t(theta with z = 0 for the neurons of group G)

The control of a group is `draws` random sets with as many neurons in every layer, outside all selected sets where the
layer has enough others; random_drop is its mean drop, advantage = drop - random_drop. Intervals: paired bootstrap over
items, draws resampled too (`hones.method.masking`). All groups and controls of all tasks are one sweep.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError
from hones.method.analysis.groups import Tasks
from hones.method.analysis.results import Ablation
from hones.method.masking import layer_matched_random, relative_drop, resampled_draws
from hones.models.anatomy import Site
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import PairedBootstrap
from hones.sweep.run import SweepSettings, sweep_tasks
from hones.tasks.base import Example, Task

Groups = Mapping[Tasks, Sequence[Site]]


def sweep_groups(
    vlm: VLM,
    jobs: Sequence[tuple[Task, Sequence[Example]]],
    groups: Groups,
    *,
    draws: int = 5,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> list[Float[np.ndarray, "arms _ _"]]:
    """Statistics of each task's items: the baseline, and for every nonempty group itself and its `draws` controls.

    Raises:
        HonesError: a task without items, no draws, or a neuron that the model lacks.
    """
    if draws < 1 or not all(examples for _, examples in jobs):
        raise HonesError("a task without test items, or no draws", expected="at least one each")
    union = {site for sites in groups.values() for site in sites}
    edits = [BASELINE]
    for sites in groups.values():
        if sites:
            controls = [layer_matched_random(sites, vlm.anatomy.neurons, seed + d, union) for d in range(draws)]
            edits += [Intervention(masked=frozenset(chosen)) for chosen in (sites, *controls)]
    return sweep_tasks(vlm, jobs, edits, sweep, "cross-ablation")


def score_ablations(
    task: Task, statistics: Float[np.ndarray, "arms items k"], groups: Groups, draws: int, seed: int
) -> list[Ablation]:
    """The task's drop under every nonempty group, from a sweep of `sweep_groups`."""
    totals = task.score(statistics.sum(1, dtype=np.float64))
    bootstrap = PairedBootstrap(statistics.shape[1], seed)
    resampled = np.stack([bootstrap.scores(arm, task.score) for arm in statistics])
    found = []
    for number, tasks in enumerate(tasks for tasks, sites in groups.items() if sites):
        own, controls = group_arms(number, draws)
        pair = [0, own]
        drop, drop_resampled = totals[0] - totals[own], resampled[0] - resampled[own]
        random = totals[0] - totals[controls].mean()
        random_resampled = resampled[0] - resampled_draws(resampled[controls], seed)
        found.append(
            Ablation(
                group=tasks,
                task=task.name,
                baseline=bootstrap.interval(totals[0], resampled[0]),
                masked=bootstrap.interval(totals[own], resampled[own]),
                drop=bootstrap.interval(drop, drop_resampled),
                relative_drop=relative_drop(totals[pair], resampled[pair], bootstrap),
                random_drop=bootstrap.interval(random, random_resampled),
                advantage=bootstrap.interval(drop - random, drop_resampled - random_resampled),
            )
        )
    return found


def group_arms(number: int, draws: int) -> tuple[int, slice]:
    """Where the `number`-th nonempty group and its controls stand among the arms."""
    own = 1 + number * (1 + draws)
    return own, slice(own + 1, own + 1 + draws)


def most_changed(
    task: Task, statistics: Float[np.ndarray, "arms items k"], groups: Groups, draws: int, count: int
) -> list[int]:
    """The `count` items that lose most when the groups with this task are masked, drops summed over these groups; the
    earlier item where they lose the same.
    """
    nonempty = [tasks for tasks, sites in groups.items() if sites]
    arms = [group_arms(n, draws)[0] for n, tasks in enumerate(nonempty) if task.name in tasks]
    scores = task.score(statistics[[0, *arms]].astype(np.float64))
    lost = (scores[:1] - scores[1:]).sum(0)
    return [int(i) for i in np.argsort(-lost, kind="stable")[:count]]
