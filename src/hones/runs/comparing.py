"""The comparison as a stage of a run folder: rankings on the discovery items, masks on the test items.

RUN/T/methods/NAME/neuron_importance.npy, neurons.json   as each method finishes; a rerun skips them
RUN/T/methods/NAME/at-RATIO/                             the same of a method that ranks for a budget, for the curves
RUN/T/comparison.json
RUN/T/both.json                                          where it is asked in both directions: a stage of its own
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hones.data.items import Items
from hones.files import digest_of, read_npy
from hones.method.budget import BUDGETS, DEFAULT_RATIO, Rest, neuron_budget
from hones.method.keeping import mean_activations
from hones.method.neurons import select_neurons
from hones.rivals import METHODS
from hones.rivals.base import Method
from hones.rivals.best_of import trial_of
from hones.rivals.both import compare_both
from hones.rivals.both_results import BothDirections
from hones.rivals.compare import Ranking, compare_methods
from hones.rivals.ranked import ranked
from hones.rivals.results import Comparison
from hones.runs.answers import MASKED
from hones.runs.artifacts import write_neurons
from hones.runs.found_on import found_on
from hones.runs.growing import let_others_grow, other_jobs, without_others
from hones.runs.keeping import check_means
from hones.runs.locks import alone
from hones.runs.method_inputs import MethodInputs, critical_heads, method_inputs
from hones.runs.prepared import Prepared
from hones.runs.stage import Workspace
from hones.stats import UNEDITED
from hones.sweep.answer_log import AnswerLog
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task


@dataclass(frozen=True)
class ComparisonRequest:
    """What HONES is compared with, itself named or not.

    ratio: None: that of the task's neurons in the run folder, or else 1 %. draws: of the random methods. budgets:
    further ratios. also: tasks that are measured under the same masks, each but for the compared one. both: whether
    each set is kept alone too, along the budgets. rest: with both, what replaced neurons become: 0, or their mean over
    the discovery items.
    """

    methods: Sequence[Method]
    ratio: float | None = None
    draws: int = 5
    budgets: Sequence[float] = BUDGETS
    also: Sequence[Task] = ()
    both: bool = False
    rest: Rest = "zero"


def rank(
    study: Workspace,
    methods: Sequence[Method],
    given: MethodInputs,
    items: Prepared,
    place: Callable[[Method], Path],
    ratio: float,
) -> dict[str, Ranking]:
    """The methods' rankings, from the run folder where it has them; of a random method the first draw.

    place: the folder of a method's files, each a stage of its own.
    """
    names = {method.name: str(place(method).relative_to(study.run.path)) for method in methods}
    stages = {
        method.name: study.stage(names[method.name], items, ratio=ratio, **given.fingerprint_of(method))
        for method in methods
    }

    def summed(method: Method) -> SweepSettings:
        return stages[method.name].summed(study.fingerprint(items, **given.fingerprint_of(method)))

    missing = [method for method in methods if not stages[method.name].is_finished()]
    for number, found in ranked(missing, given.context, summed):
        method = missing[number]
        folder = place(method)
        selected = select_neurons(found.importance, ratio, study.vlm.anatomy.expert_of)
        write_neurons(folder, found.importance, selected, found_on(study.vlm))
        files = [folder / "neurons.json", folder / "neuron_importance.npy"]
        budget = neuron_budget(found.importance.size, ratio)
        trial = trial_of(given.context, method)
        stages[method.name].finish(files, found.seconds, discovery=items, budget=budget, **trial)
    recorded = study.run.record.stages
    return {
        method.name: Ranking(
            method.name,
            (read_npy(place(method) / "neuron_importance.npy"),),
            recorded[names[method.name]].seconds or 0.0,
        )
        for method in methods
    }


def compare(
    study: Workspace,
    task: Task,
    discovery: Items,
    test: Items,
    heads_file: Path | None,
    request: ComparisonRequest,
    shared: dict[Any, Any] | None = None,
) -> Comparison:
    """Rank on the discovery items, mask on the test items; writes methods/NAME/ and comparison.json of the task, and
    both.json where that is asked for.

    Args:
        shared: handed to every task of one comparison, keeps what methods need for several tasks.

    Raises:
        HonesError: something a method needs is missing; inputs other than those of an earlier comparison; means with
            workers, which have the model.
    """
    hones = METHODS["hones"]
    methods = [hones, *(method for method in request.methods if method is not hones)]
    ratio = request.ratio
    if ratio is None:
        ratio = study.run.record.ratio_of(task.name) or DEFAULT_RATIO
    neuron_budget(study.vlm.anatomy.total_neurons, ratio)
    if request.both:
        check_means(study, request.rest)
    methods = [method.for_budget(ratio) for method in methods]
    with alone(study.run.path, [task.name]):
        heads = critical_heads(study.vlm, task, heads_file, methods)
        items = study.prepare(task, discovery, "discovery")
        given = method_inputs(study, task, discovery, items.examples, heads, methods, shared)
        held_out = study.prepare(task, test, "test")
        folder = study.run.path / task.name

        def place(method: Method) -> Path:
            return folder / "methods" / method.name

        # HONES first: some of the others start from what it found
        first = rank(study, [hones], given, items, place, ratio)
        given = replace(given, context=replace(given.context, hones=first[hones.name].importances[0]))
        rankings = first | rank(study, methods[1:], given, items, place, ratio)
        budgets = [*request.budgets]
        digests = {m.name: digest_of(place(m) / "neuron_importance.npy") for m in methods}
        for budget in budgets:
            others = [m.for_budget(budget) for m in methods if m.for_budget(budget).options != m.options]

            def place_at(method: Method, budget: float = budget) -> Path:
                return place(method) / f"at-{budget:g}"

            for name, found in rank(study, others, given, items, place_at, budget).items():
                rankings[name] = replace(rankings[name], at={**rankings[name].at, budget: found.importances[0]})
            digests |= {f"{m.name}/at-{budget:g}": digest_of(place_at(m) / "neuron_importance.npy") for m in others}
        beside_it, more = other_jobs(study, task, [x for x in request.also if x.name != task.name], test)
        inputs = {"methods": digests, "ratio": ratio, "draws": request.draws, "budgets": budgets, **study.swept()}
        stage = study.stage(f"{task.name}/compare", held_out, **inputs, **more)
        file = folder / "comparison.json"
        let_others_grow(stage, file)

        def drawn() -> list[Ranking]:
            all_draws = []
            for method in methods:
                found = rankings[method.name]
                if method.drawn:
                    seeds = range(study.seed + 1, study.seed + request.draws)
                    others = [method.importance(replace(given.context, seed=seed)) for seed in seeds]
                    found = replace(found, importances=(*found.importances, *others))
                all_draws.append(found)
            return all_draws

        def compute() -> Comparison:
            arms = {(method.name, ratio): f"{MASKED}:{method.name}" for method in methods}
            log = AnswerLog({UNEDITED: UNEDITED, **arms}.get)
            options = {"ratio": ratio, "budgets": budgets, "seed": study.seed, "others": beside_it}
            sweep, beside = stage.journalled(without_others(stage), answers=log), stage.journalled(part=".also")
            result = compare_methods(study.vlm, task, held_out.examples, drawn(), sweep=sweep, beside=beside, **options)
            study.keep_answers(task, "test", log, lambda arm: arm.startswith(f"{MASKED}:"))
            return result

        comparison = stage.once(file, Comparison, compute, discovery=items, test=held_out)
        if request.both:
            along = budgets or [ratio]
            rest = {} if request.rest == "zero" else {"rest": "mean", "means": items.fingerprint}
            kept = study.stage(f"{task.name}/both", held_out, **{**inputs, "budgets": along, **rest})

            def keep_all() -> BothDirections:
                means = mean_activations(study.vlm, items.examples) if request.rest == "mean" else None
                settings = {"budgets": along, "means": means, "sweep": kept.journalled(), "seed": study.seed}
                return compare_both(study.vlm, task, held_out.examples, drawn(), **settings)

            kept.once(folder / "both.json", BothDirections, keep_all, discovery=items, test=held_out)
        return comparison
