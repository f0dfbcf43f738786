"""What a benchmark may measure beside the mask of a method's first |P| neurons, each a file of statistics per method.

    T/methods/NAME/both.npy      [2 + 2 B, items, k]: nothing edited, nothing kept, then the method's first neurons kept
                                 alone, and replaced by 0, at each of BUDGETS (multiples of |P|)
    T/methods/NAME/also-U.npy    [2, items, k] of task U: nothing edited, the method's first |P| zeroed

A file that is there is not computed again; the missing ones of a task are swept together, with a journal.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import Float

from hones.benchmark.contenders import Ranked
from hones.benchmark.metrics import BUDGETS, budget
from hones.files import read_npy, write_npy
from hones.method.keeping import keeping
from hones.method.neurons import select_neurons
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.runs.prepared import Prepared
from hones.runs.study import Study
from hones.stats import ArmName
from hones.sweep.measure import measure
from hones.tasks.base import Task

Statistics = Float[np.ndarray, "arms items k"]


def both_directions(
    study: Study, task: Task, held_out: Prepared, ranked: Sequence[Ranked], planted: int, known: Mapping[str, Any]
) -> dict[str, Statistics]:
    """both.npy of every method, by its name.

    Args:
        planted: |P|. known: what all depends on beside the ranking and the items.
    """

    def arms(ranking: Ranked) -> list[Intervention]:
        sets = [_first(study.vlm, ranking, multiple, planted) for multiple in BUDGETS]
        kept = [keeping(study.vlm, chosen, None) for chosen in ((), *sets)]
        return [BASELINE, *kept, *(Intervention(masked=chosen) for chosen in sets)]

    return _statistics(study, f"{task.name}/both", task, held_out, ranked, arms, known)


def beside(
    study: Study, task: Task, other: Task, held_out: Prepared, ranked: Sequence[Ranked], known: Mapping[str, Any]
) -> dict[str, Statistics]:
    """also-U.npy of every method, by its name.

    Args:
        task: whose neurons are zeroed. other, held_out: U and its test items.
    """
    name = f"{task.name}/also-{other.name}"
    return _statistics(study, name, other, held_out, ranked, lambda x: [BASELINE, Intervention(masked=x.chosen)], known)


def _first(vlm: VLM, ranking: Ranked, multiple: float, planted: int) -> frozenset[tuple[int, int]]:
    """The first neurons of a ranking, a multiple of |P|, those with an importance above 0."""
    total = vlm.anatomy.total_neurons
    chosen = select_neurons(ranking.importance, budget(planted, multiple, total) / total)
    return frozenset((n.layer, n.neuron) for n in chosen)


def _statistics(
    study: Study,
    name: str,
    of: Task,
    held_out: Prepared,
    ranked: Sequence[Ranked],
    arms: Callable[[Ranked], Sequence[Intervention]],
    known: Mapping[str, Any],
) -> dict[str, Statistics]:
    """The statistics of each method's arms, from its file where it is there; the missing ones in one sweep.

    name: TASK/FILE. of, held_out: what is asked under the arms.
    """
    file = name.partition("/")[2]
    stages = {}
    for ranking in ranked:
        stage_name = f"{ranking.folder.relative_to(study.run.path)}/{file}"
        if not ranking.contender.kept:
            study.run.forget(stage_name)
        stages[ranking.contender.name] = study.stage(stage_name, held_out, ranked=ranking.digest, **known)
    missing = [ranking for ranking in ranked if not stages[ranking.contender.name].is_finished()]
    if missing:
        started = time.monotonic()
        edits = {ranking.contender.name: arms(ranking) for ranking in missing}
        of_all: dict[ArmName, Intervention] = {
            (method, n): edit for method, of_method in edits.items() for n, edit in enumerate(of_method)
        }
        digest = sha256(repr(sorted(ranking.digest for ranking in missing)).encode()).hexdigest()[:8]
        together = study.stage(f"{name}-{digest}", held_out, **known)
        progress = f"{study.run.path.parent.name}: {name}"
        (measured,) = measure(
            study.vlm, [(of, held_out.examples)], of_all, together.journalled(), seed=study.seed, progress=progress
        )
        for ranking in missing:
            method = ranking.contender.name
            statistics = np.stack([measured.arms[method, n][0] for n in range(len(edits[method]))])
            place = ranking.folder / f"{file}.npy"
            write_npy(place, statistics.astype(np.float64))
            stages[method].finish([place], time.monotonic() - started, test=held_out)
        together.clean_up()
    return {ranking.contender.name: read_npy(ranking.folder / f"{file}.npy") for ranking in ranked}
