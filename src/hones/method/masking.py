"""Step 3 of the paper: the causal check.

Set the selected z to zero at every position, evaluate on the test items, and report the absolute drop and the
relative drop 100 * (base - masked) / base with paired bootstrap intervals. The control masks random neurons with the
same count in every layer, over several draws that are resampled like the items; `advantage` is the metric under the
control (mean over draws) minus the metric under the selection, so positive means that the selection matters more than
its layers. What the selection costs other tasks and plain text beside is `hones.method.selectivity`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hones.errors import HonesError, TaskStops
from hones.method.beside import measure_beside
from hones.method.found import RankedNeuron, sites_of
from hones.method.selectivity import Selectivity, selectivity_table
from hones.models.interventions import BASELINE, Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.stats import UNEDITED, Interval
from hones.sweep.measure import measure
from hones.sweep.run import Job, SweepSettings
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class MaskingResult(Tabular):
    """The metric with and without the selected neurons.

    Drops are base - masked; `relative_drop` is in per cent, None where the baseline is 0 and there is nothing to lose.
    selectivity: what the selection costs elsewhere; None in files of versions that did not measure it.
    """

    metric_name: str
    items: int
    neurons: int
    baseline: Interval
    masked: Interval
    absolute_drop: Interval
    relative_drop: Interval | None
    control: Interval
    advantage: Interval
    control_draws: tuple[float, ...]
    baseline_details: dict[str, float] = field(default_factory=dict)
    masked_details: dict[str, float] = field(default_factory=dict)
    selectivity: Selectivity | None = None

    def tables(self) -> list[Table]:
        """One row; and what the mask costs elsewhere, a row each, where that says something."""
        found = self.selectivity
        selective = "selective" if found is not None and found.others else ""
        columns = (
            Column("metric_name", "metric", "metric", detail=True),
            Column("items", "items", "count", detail=True),
            Column("neurons", "neurons", "count", detail=True),
            Column("baseline", "base", "interval", terse=True),
            Column("masked", "masked", "interval", terse=True),
            Column("control", "random", "interval", terse=True),
            Column("absolute_drop", "drop [95 %]", "interval", "+.3f", beside="relative_drop", full="drop"),
            Column("relative_drop", "drop, %", "interval", ".1f", " %"),
            Column("advantage", "random - masked", "interval", "+.3f", bold="advantage"),
            Column("selective_drop", selective, "interval", "+.2f", below="general", terse=True, full="selective drop"),
            Column("general"),
        )
        caption = "random: as many neurons in the same layers, mean over draws; bold: interval above zero"
        row = {**vars(self), "selective_drop": None, "general": None}
        if found is None:
            return [Table("masking", "Masking the selected neurons", columns, [row], caption)]
        row |= {"selective_drop": found.selective_drop, "general": "general" if found.general else None}
        tables = [Table("masking", "Masking the selected neurons", columns, [row], caption)]
        if found.says_something:
            own = {**row, "on": "its own task", "drop": self.absolute_drop}
            tables.append(selectivity_table(own, found))
        return tables


def evaluate_masking(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    neurons: Sequence[RankedNeuron | Site],
    *,
    draws: int = 5,
    others: Sequence[Job] = (),
    sweep: SweepSettings | None = None,
    beside: SweepSettings | None = None,
    seed: int = 3407,
) -> MaskingResult:
    """Mask the neurons, and `draws` layer-matched random sets, on the test items; the neurons on others too.

    Args:
        neurons: what `select_neurons` gives, or (layer, neuron) each.
        others: other tasks with their test items.
        beside: how the sweep of the others runs; None: as `sweep`, without its journal and answers.

    Raises:
        HonesError: no neurons, no examples, no draws, or a neuron that the model lacks.
    """
    sites = sites_of(neurons)
    if not sites or not examples:
        raise TaskStops(f"{len(sites)} neurons to mask and {len(examples)} test items", expected="at least one each")
    if draws < 1:
        raise HonesError(str(draws), argument="draws", expected="at least one random set to compare with")

    # z[l, i] <- 0 of the selection, and of `draws` random sets with as many neurons in every layer
    controls = [
        layer_matched_random(sites, vlm.anatomy.neurons, seed + draw, alike=vlm.anatomy.alike) for draw in range(draws)
    ]
    arms = {
        UNEDITED: BASELINE,
        "neurons": Intervention(masked=frozenset(sites)),
        "random": [Intervention(masked=frozenset(drawn)) for drawn in controls],
    }
    progress = f"{task.name}: masking"
    (measured,) = measure(vlm, [(task, examples)], arms, sweep, seed=seed, progress=progress)

    # the selection alone on other tasks and plain text
    masks = {"neurons": Intervention(masked=frozenset(sites))}
    apart = beside or replace(sweep or SweepSettings(), journal=None, answers=None)
    elsewhere = measure_beside(vlm, others, masks, apart, seed=seed, progress=progress)

    # What is lost, how much more than under the control, and what elsewhere
    return MaskingResult(
        metric_name=task.metric_name,
        items=len(examples),
        neurons=len(set(sites)),
        baseline=measured.level(UNEDITED),
        masked=measured.level("neurons"),
        absolute_drop=measured.drop("neurons"),
        relative_drop=measured.relative_drop("neurons"),
        control=measured.level("random"),
        advantage=measured.difference("random", "neurons"),
        control_draws=measured.by_draw("random"),
        baseline_details=task.details(measured.sums(UNEDITED)),
        masked_details=task.details(measured.sums("neurons")),
        selectivity=elsewhere.of(measured, "neurons", measured.difference("random", "neurons")),
    )


def layer_matched_random(
    neurons: Sequence[RankedNeuron | Site],
    width: int,
    seed: int,
    avoid: Collection[Site] = frozenset(),
    alike: Callable[[int, int], range] | None = None,
) -> list[Site]:
    """Random neurons outside the selection, as many in every layer as the selection has there.

    avoid: further neurons not to draw. Where a layer has too few others, it is drawn from these too, and where it has
    fewer unselected neurons than that, from its selected ones. alike: a model's (`anatomy.alike`): as many in every
    expert of every layer, since masking those of one that is never chosen would cost nothing.
    """
    rng = np.random.default_rng(seed)
    chosen = set(sites_of(neurons))
    avoided = {*chosen, *avoid}
    drawn: list[Site] = []
    of_neuron = alike or (lambda layer, neuron: range(width))
    groups = Counter((layer, of_neuron(layer, i)) for layer, i in chosen)
    for (layer, within), count in sorted(groups.items(), key=lambda group: (group[0][0], group[0][1].start)):
        pools = ([i for i in within if (layer, i) not in taken] for taken in (avoided, chosen, ()))
        pool = next(pool for pool in pools if len(pool) >= count)
        drawn += [(layer, int(i)) for i in rng.choice(pool, size=count, replace=False)]
    return drawn
