"""The comparison as a stage of a run folder: rankings on the discovery items, masks on the test items.

RUN/T/methods/NAME/neuron_importance.npy, neurons.json   as each method finishes; a rerun skips them
RUN/T/comparison.json
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hones.artifacts import read_result, write_neurons, write_result
from hones.comparators import METHODS, Method
from hones.comparators.compare import BUDGETS, Ranking, compare_methods
from hones.comparators.given import Given, critical_heads, give
from hones.comparators.results import Comparison
from hones.data.items import Items
from hones.locks import alone_on
from hones.neurons import neuron_budget, select_neurons
from hones.prepared import Prepared
from hones.store import digest_of, read_npy
from hones.study import DEFAULT_RATIO, Study
from hones.tasks.base import Task


def rank(study: Study, method: Method, given: Given, items: Prepared, folder: Path, ratio: float) -> Ranking:
    """One method's ranking, from the run folder where it has it; of a random method the first draw."""
    files = [folder / "neurons.json", folder / "neuron_importance.npy"]
    stage = str(folder.relative_to(study.run.path))
    inputs = study.fingerprint(items, ratio=ratio, **given.fingerprint_of(method))
    if not study.is_finished(stage, inputs):
        started = time.monotonic()
        importance = method.importance(given.context)
        selected = select_neurons(importance, ratio)
        write_neurons(folder, importance, selected)
        budget = neuron_budget(importance.size, ratio)
        study.finish(stage, inputs, started, files, discovery=items, budget=budget)
    return Ranking(method.name, (read_npy(files[1]),), float(study.run.record["stages"][stage]["seconds"]))


def drawn(method: Method, given: Given, first: Ranking, draws: int) -> Ranking:
    """All draws of a random method; the others' rankings as they are."""
    if not method.drawn:
        return first
    seeds = range(given.context.seed + 1, given.context.seed + draws)
    more: list[Float[np.ndarray, "layers neurons"]] = [
        method.importance(replace(given.context, seed=seed)) for seed in seeds
    ]
    return replace(first, importances=(*first.importances, *more))


@alone_on(lambda task, *_, **__: [task.name])
def compare(
    study: Study,
    task: Task,
    discovery: Items,
    test: Items,
    methods: Sequence[Method],
    heads_file: Path | None,
    *,
    ratio: float = DEFAULT_RATIO,
    draws: int = 5,
    budgets: Sequence[float] = BUDGETS,
    shared: dict[Any, Any] | None = None,
) -> Comparison:
    """Rank on the discovery items, mask on the test items; writes methods/NAME/ and comparison.json of the task.

    Args:
        methods: HONES itself is compared with, named or not.
        draws: of the random methods.
        shared: handed to every task of one comparison, keeps what methods need for several tasks.

    Raises:
        HonesError: something a method needs is missing; inputs other than those of an earlier comparison.
    """
    hones = METHODS["hones"]
    methods = [hones, *(method for method in methods if method is not hones)]
    neuron_budget(study.vlm.anatomy.total_neurons, ratio)
    heads = critical_heads(study.vlm, task, heads_file, methods)
    items = study.prepare(task, discovery, "discovery")
    given = give(study.vlm, task, discovery, items.examples, heads, methods, study.seed, study.sweep, shared)
    held_out = study.prepare(task, test, "test")
    folder = study.run.task(task.name)
    rankings = []
    for method in methods:
        first = rank(study, method, given, items, folder / "methods" / method.name, ratio)
        if method is hones:
            given = replace(given, context=replace(given.context, hones=first.importances[0]))
        rankings.append(drawn(method, given, first, draws))
    file = folder / "comparison.json"
    found = {m.name: digest_of(folder / "methods" / m.name / "neuron_importance.npy") for m in methods}
    inputs = study.fingerprint(held_out, methods=found, ratio=ratio, draws=draws, budgets=[*budgets], **study.swept())
    if study.is_finished(f"{task.name}/compare", inputs):
        return read_result(file, Comparison)
    started, journal = time.monotonic(), study.journal_file(f"{task.name}.compare")
    sweep = study.journalled(journal, inputs)
    options = {"ratio": ratio, "budgets": budgets, "sweep": sweep, "seed": study.seed}
    result = compare_methods(study.vlm, task, held_out.examples, rankings, **options)
    write_result(file, result)
    study.finish(f"{task.name}/compare", inputs, started, [file], discovery=items, test=held_out)
    study.remove_journal(journal)
    return result
