"""The comparison as a stage of a run folder: rankings on the discovery items, masks on the test items.

RUN/T/methods/NAME/neuron_importance.npy, neurons.json   as each method finishes; a rerun skips them
RUN/T/comparison.json
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hones.data.items import Items
from hones.files import digest_of, read_npy
from hones.method.neurons import neuron_budget, select_neurons
from hones.rivals import METHODS
from hones.rivals.base import Method
from hones.rivals.compare import BUDGETS, Ranking, compare_methods
from hones.rivals.ranked import ranked
from hones.rivals.results import Comparison
from hones.runs.artifacts import read_result, write_neurons, write_result
from hones.runs.given import Given, critical_heads, give
from hones.runs.locks import alone_on
from hones.runs.prepared import Prepared
from hones.runs.study import DEFAULT_RATIO, Study
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task


def rank(
    study: Study,
    methods: Sequence[Method],
    given: Given,
    items: Prepared,
    place: Callable[[Method], Path],
    ratio: float,
) -> dict[str, Ranking]:
    """The methods' rankings, from the run folder where it has them; of a random method the first draw.

    place: the folder of a method's files.
    """

    def stage(method: Method) -> tuple[str, dict[str, Any]]:
        name = str(place(method).relative_to(study.run.path))
        return name, study.fingerprint(items, ratio=ratio, **given.fingerprint_of(method))

    def checkpoint(method: Method) -> Path:
        return study.checkpoint_file(stage(method)[0].replace("/", "."))

    def summed(method: Method) -> SweepSettings:
        depends = study.fingerprint(items, **given.fingerprint_of(method))
        return study.summed(checkpoint(method), {**depends, **study.swept()})

    missing = [method for method in methods if not study.is_finished(*stage(method))]
    for number, found in ranked(missing, given.context, summed):
        method, own = missing[number], place(missing[number])
        write_neurons(own, found.importance, select_neurons(found.importance, ratio))
        budget, started = neuron_budget(found.importance.size, ratio), time.monotonic() - found.seconds
        files = [own / "neurons.json", own / "neuron_importance.npy"]
        study.finish(*stage(method), started, files, discovery=items, budget=budget)
        study.remove_journal(checkpoint(method))
    stages = study.run.record.stages
    return {
        method.name: Ranking(
            method.name,
            (read_npy(place(method) / "neuron_importance.npy"),),
            stages[stage(method)[0]].seconds or 0.0,
        )
        for method in methods
    }


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

    def place(method: Method) -> Path:
        return folder / "methods" / method.name

    found = rank(study, [hones], given, items, place, ratio)
    given = replace(given, context=replace(given.context, hones=found[hones.name].importances[0]))
    found |= rank(study, methods[1:], given, items, place, ratio)
    rankings = [drawn(method, given, found[method.name], draws) for method in methods]
    file = folder / "comparison.json"
    digests = {m.name: digest_of(place(m) / "neuron_importance.npy") for m in methods}
    inputs = study.fingerprint(held_out, methods=digests, ratio=ratio, draws=draws, budgets=[*budgets], **study.swept())
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
