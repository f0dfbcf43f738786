"""The proof in the other direction: keep the selected neurons alone.

Masking a set C says that a task needs it; keeping C says whether it suffices. All other FFN neurons of the model are
replaced at every position, z[l,i](s) <- r[l,i], where r is 0 or the neuron's mean over discovery items, and the metric
P on the test items is put on the scale from nothing kept to the whole model:

    faithfulness  F(C) = (P(C kept) - P(nothing kept)) / (P(whole) - P(nothing kept))
    completeness  K(C) = (P(C replaced) - P(nothing kept)) / (P(whole) - P(nothing kept))

F near 1: the set does the task by itself. K is what is left without the set: near 0 where nothing outside can do it.
The control keeps random neurons with the same count in every layer. Shares are resampled as a whole, all arms on the
same items; where the interval of P(whole) - P(nothing kept) reaches 0 there is no scale, and none is given.

The definition is `keep_neurons` (`hones.models.interventions`) under whole greedy answers, one cell at a time: the
engine "naive". The engine "replay" gives the same cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesError, TaskStops
from hones.method.budget import Rest
from hones.method.found import RankedNeuron, sites_of
from hones.method.masking import layer_matched_random
from hones.models.capture import Z, collect
from hones.models.interventions import BASELINE, Constants, Intervention, Kept
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.progress import track
from hones.stats import UNEDITED, Interval, Share
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Example, Task

EMPTY = "empty"
"""The arm with nothing kept."""


@dataclass(frozen=True)
class KeepingResult(Tabular):
    """The metric with the selected neurons alone, without them, with nothing kept, and with random neurons alone.

    of: how many neurons the model has. rest: what the others become. span: whole - empty. advantage: kept - random.
    faithfulness, random_faithfulness, completeness: shares of the span, None where its interval reaches 0.
    """

    metric_name: str
    items: int
    neurons: int
    of: int
    rest: Rest
    whole: Interval
    kept: Interval
    empty: Interval
    random: Interval
    removed: Interval
    span: Interval
    advantage: Interval
    faithfulness: Interval | None
    random_faithfulness: Interval | None
    completeness: Interval | None
    random_draws: tuple[float, ...]

    def sentence(self) -> str:
        """Why there is no share, in words; "" where there is one."""
        if self.faithfulness is not None:
            return ""
        return f"no share is given: the whole model is not surely ahead of one with nothing kept ({self.span:+.3f})"

    def tables(self) -> list[Table]:
        """One row."""
        columns = (
            Column("metric_name", "metric", "metric", detail=True),
            Column("items", "items", "count", detail=True),
            Column("neurons", "neurons", "count", detail=True),
            Column("rest", "others become", detail=True),
            Column("whole", "whole", "interval", terse=True),
            Column("kept", "kept", "interval", terse=True, bold="advantage"),
            Column("random", "random", "interval", terse=True),
            Column("empty", "none kept", "interval", terse=True),
            Column("removed", "without", "interval", terse=True),
            Column("faithfulness", "faithfulness", "interval", ".2f", missing="-"),
            Column("completeness", "left without", "interval", ".2f", missing="-", full="completeness"),
            Column("random_faithfulness", "", "interval", ".2f", missing="-", full="faithfulness of random neurons"),
            Column("advantage", "", "interval", "+.3f", full="kept - random"),
        )
        caption = (
            "kept, random: these alone, random ones in the same layers; without: all but these; the last two as shares "
            "of whole - none kept; bold: kept - random above zero"
        )
        said = "\n".join(filter(None, (self.sentence(), caption)))
        return [Table("keep", f"Only the selected neurons kept, {self.rest} for the rest", columns, [vars(self)], said)]


def evaluate_keeping(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    neurons: Sequence[RankedNeuron | Site],
    *,
    means: Float[np.ndarray, "layers neurons"] | None = None,
    draws: int = 5,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
) -> KeepingResult:
    """Keep the neurons alone, nothing, and `draws` layer-matched random sets alone; and all but the neurons.

    Args:
        examples: the test items.
        neurons: what `select_neurons` gives, or (layer, neuron) each.
        means: what replaced neurons become (`mean_activations`); None: 0.

    Raises:
        HonesError: no neurons, no examples, no draws, or a neuron that the model lacks.
    """
    sites = sites_of(neurons)
    if not sites or not examples:
        raise TaskStops(f"{len(sites)} neurons to keep and {len(examples)} test items", expected="at least one each")
    if draws < 1:
        raise HonesError(str(draws), argument="draws", expected="at least one random set to compare with")
    for site in sites:
        vlm.anatomy.check_neuron(*site)

    # z[l, i] <- r[l, i] outside of the selection, outside of random sets, everywhere, and of the selection alone
    constants = None if means is None else Constants(means)
    controls = [
        layer_matched_random(sites, vlm.anatomy.neurons, seed + draw, alike=vlm.anatomy.alike) for draw in range(draws)
    ]
    arms = {
        UNEDITED: BASELINE,
        "kept": keeping(vlm, sites, constants),
        EMPTY: keeping(vlm, (), constants),
        "random": [keeping(vlm, drawn, constants) for drawn in controls],
        "removed": Intervention(masked=frozenset(sites), constants=constants),
    }
    (measured,) = measure(vlm, [(task, examples)], arms, sweep, seed=seed, progress=f"{task.name}: keeping")

    # On the scale from nothing kept to the whole model
    return KeepingResult(
        metric_name=task.metric_name,
        items=len(examples),
        neurons=len(set(sites)),
        of=vlm.anatomy.total_neurons,
        rest="zero" if means is None else "mean",
        whole=measured.level(UNEDITED),
        kept=measured.level("kept"),
        empty=measured.level(EMPTY),
        random=measured.level("random"),
        removed=measured.level("removed"),
        span=measured.difference(UNEDITED, EMPTY),
        advantage=measured.difference("kept", "random"),
        faithfulness=interval_or_none(measured.recovered("kept", EMPTY)),
        random_faithfulness=interval_or_none(measured.recovered("random", EMPTY)),
        completeness=interval_or_none(measured.recovered("removed", EMPTY)),
        random_draws=measured.by_draw("random"),
    )


def keeping(vlm: VLM, neurons: Sequence[Site] | frozenset[Site], constants: Constants | None) -> Intervention:
    """Only these neurons stay."""
    return Intervention(kept=Kept.of(neurons, vlm.anatomy), constants=constants)


def interval_or_none(share: Share | None) -> Interval | None:
    """The interval of a share where there is one."""
    return None if share is None else share.interval


@torch.no_grad()
def mean_activations(vlm: VLM, examples: Sequence[Example]) -> Float[np.ndarray, "layers neurons"]:
    """r[l, i]: z[l, i] of the unedited model, mean over the positions of an item's first prompt, then over items.

    Every item counts the same, however long its prompt; float32, summed in float64, one item at a time.

    Raises:
        HonesError: no examples, or logits that are not finite.
    """
    if not examples:
        raise HonesError("no items to take mean activations of", expected="at least one")
    layers, _, width = vlm.anatomy.shape
    total = torch.zeros(layers, width, dtype=torch.float64)

    def over_positions(z: Float[Tensor, "one positions neurons"]) -> Float[Tensor, " neurons"]:
        return z[0].double().mean(0).cpu()

    with collect(vlm.anatomy, Z, over_positions) as found:
        for example in track(examples, "mean activations"):
            vlm.logits(vlm.encode([example.open_picture()], example.prompts[:1]), 1)
            total += torch.stack([found[layer] for layer in range(layers)])
    return (total / len(examples)).numpy().astype(np.float32)
