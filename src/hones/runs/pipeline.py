"""All stages for all tasks from one configuration: what `hones run` and `hones demo` do.

After the heads, each task runs to its end before the next one begins. With workers (`ray:`) every task runs up to the
comparison first, so that the trainings of all of them (tasks, ways to steer, seeds) are shards that run side by side;
then each is tested.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hones.data.disjoint import check_disjoint
from hones.data.items import Items, check_pictures, load_items
from hones.errors import TaskStops
from hones.log import remark
from hones.method.found import HeadResult, RankedNeuron
from hones.method.head_ways import check_utility
from hones.method.masking import MaskingResult
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.results import Evidence
from hones.method.steering.settings import HONES
from hones.method.steering.trainings import learn
from hones.rivals import METHODS
from hones.rivals.auto import AUTO, Choice
from hones.rivals.base import Method
from hones.rivals.results import Comparison
from hones.runs.analysis import RunStudy
from hones.runs.comparing import ComparisonRequest, compare
from hones.runs.config import SPLITS, RunConfig
from hones.runs.evaluation import Evaluation
from hones.runs.evidence import EvidenceRequest
from hones.runs.locks import alone
from hones.runs.record import RunFolder
from hones.runs.source import read_run
from hones.runs.steering import TaskSteering
from hones.runs.stops import Stopped, Stops
from hones.runs.study import Study
from hones.runs.ways import make_steerings
from hones.sweep.ray import open_pool
from hones.sweep.run import SweepSettings
from hones.sweep.shards import ThisProcess
from hones.tasks import check_distinct, make_task
from hones.tasks.base import Task
from hones.tasks.log_probability import LogProbability


@dataclass(frozen=True)
class Outcome:
    """What the four stages found for one task, and the comparison and the evidence of steering if they were wanted."""

    task: str
    heads: HeadResult
    neurons: list[RankedNeuron]
    masking: MaskingResult
    steering: SteeringResult
    comparison: Comparison | None
    evidence: Evidence | None = None


def run_config(
    config: RunConfig,
    *,
    fresh: bool = False,
    on_read: Callable[[str, Items], None] | None = None,
    look: Callable[[Evaluation, str], None] | None = None,
    on_outcome: Callable[[Study, Outcome], None] | None = None,
    on_stopped: Callable[[Stopped], None] | None = None,
) -> list[Outcome]:
    """Run every stage of every task, skipping what the run folder already holds.

    A task that cannot go on (`hones.runs.stops`) is recorded in run.json, and the others run to their end.

    Args:
        on_read: hears of each split's items, once.
        look: hears of each task's baseline before its sweeps, and may stop it.
        on_outcome: hears of each task that has run to its end. on_stopped: of each that has stopped.

    Raises:
        HonesError: as the stages do; everything finished before stays. Without on_stopped also at the end, if a task
            has stopped.
    """
    run = RunFolder(config.out)
    tasks = [make_task(name, candidates=config.candidates) for name in config.tasks]
    check_distinct(tasks)
    for task in tasks:
        _evidence_request(config, task, None).check(task)
    splits = load_splits(config)
    if on_read is not None:
        for split, items in splits.items():
            on_read(split, items)
    stops = Stops(run, on_stopped)
    sweep = SweepSettings(config.engine, config.batch_size, config.max_new_tokens, config.memory)
    with ExitStack() as stack:
        # on the model in this process, or on workers that end with the stack
        if config.ray is None:
            vlm = config.model_spec.load()
        else:
            workers = stack.enter_context(open_pool(config.model_spec, **config.ray.model_dump()))
            vlm, sweep = workers.vlm, replace(sweep, workers=workers)
        study = Study(vlm, run, sweep, config.seed, fresh, max_left_out=config.max_left_out)
        study.look = look
        outcomes = _stages(config, study, tasks, splits, stops, on_outcome)
    if config.analyze is not None and outcomes:
        vlm = study.vlm if config.ray is None else config.model_spec.load()
        finished = read_run(run.path, classes=[name for name in config.tasks if ":" in name])
        sweep = replace(sweep, workers=ThisProcess())
        RunStudy(vlm, run, sweep, config.seed, fresh, config.max_left_out).analyze(finished, config.analyze)
    if on_stopped is None:
        stops.check()
    return outcomes


def _stages(
    config: RunConfig,
    study: Study,
    tasks: Sequence[Task],
    splits: dict[str, Items],
    stops: Stops,
    on_outcome: Callable[[Study, Outcome], None] | None,
) -> list[Outcome]:
    """All stages of all tasks but the analysis, of those that do not stop."""
    outcomes: list[Outcome] = []
    shared: dict[Any, Any] = {}
    usable: list[Task] = []
    named = None if config.also is None else [make_task(name, candidates=config.candidates) for name in config.also]
    for task in tasks:
        with suppress(TaskStops), stops.of(task.name, "heads"):
            study.prepare(task, splits["discovery"], "discovery")
            study.look_first(task, splits["discovery"], "discovery", "heads")
            usable.append(task)
    heads_of_tasks = _heads(config, study, usable, splits["discovery"]) if usable else []
    started = list(zip(usable, heads_of_tasks, strict=True))
    method = _ranking(config, study, usable, splits["discovery"])
    also = usable if named is None else named
    # workers train several tasks at once; one process ends a task before it begins the next
    groups = [started] if study.sweep.workers.side_by_side else [[one] for one in started]
    for group in groups:
        with alone(study.run.path, [task.name for task, _ in group]):
            begun = []
            for task, heads in group:
                with suppress(TaskStops):
                    begun.append(_until_training(config, study, task, splits, heads, method, shared, stops, also))
            learn(study.vlm, [job for _, steering in begun for job in steering.jobs], study.sweep.workers)
            for found, steering in begun:
                steered = None
                with suppress(TaskStops), stops.of(steering.task.name, "steer"):
                    steered = steering.finish()
                if steered is None:
                    continue
                outcome = found(steering=steered.result, evidence=steered.evidence)
                outcomes.append(outcome)
                study.run.stop(outcome.task, None)
                if on_outcome is not None:
                    on_outcome(study, outcome)
    return outcomes


def _heads(config: RunConfig, study: Study, tasks: Sequence[Task], discovery: Items) -> list[HeadResult]:
    """The heads of all tasks, scored by the metric or by the log-probability."""
    way = config.heads.way
    if check_utility(config.heads.utility, way) == "logprob":
        tasks = [LogProbability(task) for task in tasks]
    return study.heads(tasks, discovery, config.top_k, by=way)


def _ranking(config: RunConfig, study: Study, tasks: Sequence[Task], discovery: Items) -> Method | Choice | None:
    """How the neurons of all tasks are ranked; None: as HONES does, with the positive part of the configuration."""
    if config.method == AUTO:
        return study.choose(tasks, discovery) if tasks else None
    return None if config.method == HONES else METHODS[config.method]


def _until_training(
    config: RunConfig,
    study: Study,
    task: Task,
    splits: dict[str, Items],
    heads: HeadResult,
    method: Method | Choice | None,
    shared: dict[Any, Any],
    stops: Stops,
    also: Sequence[Task],
) -> tuple[partial[Outcome], TaskSteering]:
    """The stages of one task after its heads, up to its trainings: its outcome but for the steering, and that.

    Args:
        also: the tasks that are measured under its masks too.

    Raises:
        TaskStops: it cannot go on, which is recorded.
    """
    folder = study.run.path / task.name
    discovery, dev, test = (splits[name] for name in SPLITS)
    asked = config.compare
    comparison = None
    with stops.of(task.name, "neurons"):
        neurons = study.neurons(task, discovery, folder / "heads.json", config.ratio, config.positive_part, method)
    with stops.of(task.name, "mask"):
        others = _measured_too(config, study, also, task, test)
        masking = study.mask(task, test, folder / "neurons.json", config.draws, others)
    if asked is not None:
        with stops.of(task.name, "compare"):
            budgets = asked.budgets if asked.curves else ()
            compared = ComparisonRequest(
                config.compared, config.ratio, asked.draws, budgets, others, both=asked.keep, rest=asked.rest
            )
            comparison = compare(study, task, discovery, test, folder / "heads.json", compared, shared)
    with stops.of(task.name, "steer"):
        # after the comparison, whose sets may be steered too
        request = _evidence_request(config, task, splits.get("ood")) if config.steering.wants_evidence else None
        steering = TaskSteering(study, task, dev, test, folder / "neurons.json", config.training, request)
    found = partial(Outcome, task=task.name, heads=heads, neurons=neurons, masking=masking, comparison=comparison)
    return found, steering


def _measured_too(config: RunConfig, study: Study, also: Sequence[Task], task: Task, test: Items) -> list[Task]:
    """Of the tasks that are measured under the masks of all, those for one; of the run's own those that can be."""
    others = [other for other in also if other.name != task.name]
    if config.also is not None:
        return others
    usable = []
    for other in others:
        try:
            study.prepare(other, test, "test")
            usable.append(other)
        except TaskStops as stop:
            remark(f"{task.name}: {other.name} is not measured under its masks: {stop}")
    return usable


def _evidence_request(config: RunConfig, task: Task, ood: Items | None) -> EvidenceRequest:
    """The evidence of a task, tested also on the named tasks other than itself."""
    asked = config.steering
    named = config.tasks if asked.also is None else asked.also
    also = [make_task(name, candidates=config.candidates) for name in named]
    ways = make_steerings(",".join(asked.methods or (HONES,)))
    seeds = asked.seeds or (config.training.seed,)
    return EvidenceRequest(ways, seeds, [other for other in also if other.name != task.name], ood)


def load_splits(config: RunConfig) -> dict[str, Items]:
    """The items of every split.

    Raises:
        HonesError: as `load_items`, or a picture that is in two splits.
    """
    splits = {
        name: load_items(getattr(config.data, name), images=config.data.images, limit=getattr(config.limit, name))
        for name in SPLITS
    }
    if config.steering.ood is not None:
        images = config.steering.ood_images
        splits["ood"] = load_items(config.steering.ood, images=images, limit=config.limit.ood)
    for items in splits.values():
        check_pictures(items)
    check_disjoint(splits)
    return splits
