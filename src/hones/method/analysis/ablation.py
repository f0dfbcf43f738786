"""Cross-ablation: every task's drop when each exclusive group is masked, beside random neurons.

    drop[G, t] = P_t(theta) - P_t(theta with z = 0 for the neurons of group G)

The control of a group is `draws` random sets with as many neurons in every layer, outside all selected sets where the
layer has enough others; random_drop is its mean drop, advantage = drop - random_drop. Intervals: paired bootstrap over
items, draws resampled too (`hones.stats`). All groups and controls of all tasks are one sweep.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hones.errors import HonesError
from hones.method.analysis.groups import Tasks
from hones.method.analysis.results import Ablation
from hones.method.masking import layer_matched_random
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.stats import UNEDITED, ArmName, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task

Groups = Mapping[Tasks, Sequence[Site]]


def measure_groups(
    vlm: VLM,
    jobs: Sequence[tuple[Task, Sequence[Example]]],
    groups: Groups,
    *,
    draws: int = 5,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> list[Measurement]:
    """Every nonempty group masked, an arm of its name, and its control, ("random", its name), on each task's items.

    Raises:
        HonesError: a task without items, no draws, or a neuron that the model lacks.
    """
    if draws < 1 or not all(examples for _, examples in jobs):
        raise HonesError("a task without test items, or no draws", expected="at least one each")
    union = {site for sites in groups.values() for site in sites}
    arms: dict[ArmName, Intervention | list[Intervention]] = {UNEDITED: BASELINE}
    for tasks, sites in groups.items():
        if sites:
            controls = [
                layer_matched_random(sites, vlm.anatomy.neurons, seed + d, union, vlm.anatomy.alike)
                for d in range(draws)
            ]
            arms[tasks] = Intervention(masked=frozenset(sites))
            arms["random", tasks] = [Intervention(masked=frozenset(drawn)) for drawn in controls]
    return measure(vlm, jobs, arms, sweep, seed=seed, progress="cross-ablation")


def score_ablations(task: Task, measured: Measurement, groups: Groups) -> list[Ablation]:
    """The task's drop under every nonempty group, from what `measure_groups` measured of it."""
    return [
        Ablation(
            group=tasks,
            task=task.name,
            baseline=measured.level(UNEDITED),
            masked=measured.level(tasks),
            drop=measured.drop(tasks),
            relative_drop=measured.relative_drop(tasks),
            random_drop=measured.drop(("random", tasks)),
            advantage=measured.difference(("random", tasks), tasks),
        )
        for tasks, sites in groups.items()
        if sites
    ]


def most_changed(task: Task, measured: Measurement, groups: Groups, count: int) -> list[int]:
    """The `count` items that lose most when the groups with this task are masked, drops summed over these groups; the
    earlier item where they lose the same.
    """
    base = measured.by_item(UNEDITED)
    lost = np.zeros(measured.items)
    for tasks, sites in groups.items():
        if sites and task.name in tasks:
            lost += base - measured.by_item(tasks)
    return [int(i) for i in np.argsort(-lost, kind="stable")[:count]]
