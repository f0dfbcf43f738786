"""All stages for all tasks from one configuration: what `hones run` and `hones demo` do.

After the heads, each task runs to its end before the next one begins. With workers (`ray:`) every task runs up to the
comparison first, so that the trainings of all of them (tasks, ways to steer, seeds) are shards that run side by side;
then each is tested.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hones.data.disjoint import check_disjoint
from hones.data.items import Items, load_items
from hones.errors import TaskStops
from hones.method.heads import HeadResult
from hones.method.masking import MaskingResult
from hones.method.neurons import RankedNeuron
from hones.method.steering.controls import HONES
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.results import Evidence
from hones.method.steering.trainings import Begun, learn
from hones.rivals.compare import BUDGETS
from hones.rivals.results import Comparison
from hones.runs.analysis import RunStudy
from hones.runs.artifacts import read_result
from hones.runs.comparing import compare
from hones.runs.config import SPLITS, Comparing, DataFiles, Limits, RayConfig, RunConfig, read_config
from hones.runs.locks import alone
from hones.runs.record import RunFolder
from hones.runs.source import read_run
from hones.runs.steering import Wanted, begin
from hones.runs.stops import Stopped, Stops
from hones.runs.study import Study
from hones.runs.ways import make_steerings
from hones.sweep.ray import open_pool
from hones.sweep.run import SweepSettings
from hones.sweep.shards import ThisProcess
from hones.tasks import check_distinct, make_task
from hones.tasks.base import Task

__all__ = [
    "Comparing",
    "DataFiles",
    "Limits",
    "Outcome",
    "RayConfig",
    "RunConfig",
    "load_splits",
    "read_config",
    "run_config",
]


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
    on_outcome: Callable[[Study, Outcome], None] | None = None,
    on_stopped: Callable[[Stopped], None] | None = None,
) -> list[Outcome]:
    """Run every stage of every task, skipping what the run folder already holds.

    A task that cannot go on (`hones.runs.stops`) is recorded in run.json, and the others run to their end.

    Args:
        on_outcome: hears of each task that has run to its end. on_stopped: of each that has stopped.

    Raises:
        HonesError: as the stages do; everything finished before stays. Without on_stopped also at the end, if a task
            has stopped.
    """
    run = RunFolder(config.out)
    tasks = [make_task(name, candidates=config.candidates) for name in config.tasks]
    check_distinct(tasks)
    for task in tasks:
        _wanted(config, task, None).check(task)
    splits = load_splits(config)
    stops = Stops(run, on_stopped)
    with ExitStack() as stack:
        study = _open_study(config, run, fresh, stack)
        outcomes = _stages(config, study, tasks, splits, stops, on_outcome)
    if config.analyze is not None and outcomes:
        vlm = study.vlm if config.ray is None else config.model_spec.load()
        finished = read_run(run.path, classes=[name for name in config.tasks if ":" in name])
        sweep = replace(study.sweep, workers=ThisProcess())
        RunStudy(vlm, run, sweep, config.seed, fresh, config.max_left_out).analyze(finished, config.analyze)
    if on_stopped is None:
        stops.check()
    return outcomes


def _open_study(config: RunConfig, run: RunFolder, fresh: bool, stack: ExitStack) -> Study:
    """The study, on the model in this process, or on workers that end with the stack."""
    sweep = SweepSettings(config.engine, config.batch_size, config.max_new_tokens)
    if config.ray is None:
        vlm = config.model_spec.load()
    else:
        workers = stack.enter_context(open_pool(config.model_spec, **config.ray.model_dump()))
        vlm, sweep = workers.vlm, replace(sweep, workers=workers)
    return Study(vlm, run, sweep, config.seed, fresh, max_left_out=config.max_left_out)


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
    tasks = [task for task in tasks if _can_begin(study, task, splits, stops)]
    heads_of_tasks = study.heads(tasks, splits["discovery"], config.top_k) if tasks else []
    started = list(zip(tasks, heads_of_tasks, strict=True))
    together = [started] if study.sweep.workers.side_by_side else [[one] for one in started]
    for group in together:
        with alone(study.run.path, [task.name for task, _ in group]):
            begun = [_until_training(config, study, task, splits, heads, shared, stops) for task, heads in group]
            going = [one for one in begun if one is not None]
            learn(study.vlm, [lesson for one in going for lesson in one.steering.lessons], study.sweep.workers)
            for one in going:
                try:
                    outcomes.append(one.outcome(stops))
                except TaskStops:
                    continue
                study.run.stop(one.task, None)
                if on_outcome is not None:
                    on_outcome(study, outcomes[-1])
    return outcomes


def _can_begin(study: Study, task: Task, splits: dict[str, Items], stops: Stops) -> bool:
    """Whether the task's discovery items can be used; if not, the task has stopped."""
    try:
        with stops.of(task.name, "heads"):
            study.prepare(task, splits["discovery"], "discovery")
    except TaskStops:
        return False
    return True


@dataclass(frozen=True)
class _Trainee:
    """A task before its trainings, and what its stages have found so far."""

    task: str
    heads: HeadResult
    neurons: list[RankedNeuron]
    masking: MaskingResult
    comparison: Comparison | None
    steering: Begun[SteeringResult] | Begun[Evidence]
    first_result: Path

    def outcome(self, stops: Stops) -> Outcome:
        """After the trainings: the scales are tested."""
        with stops.of(self.task, "steer"):
            found = self.steering.end()
        evidence = found if isinstance(found, Evidence) else None
        steering = read_result(self.first_result, SteeringResult) if isinstance(found, Evidence) else found
        return Outcome(self.task, self.heads, self.neurons, self.masking, steering, self.comparison, evidence)


def _until_training(
    config: RunConfig,
    study: Study,
    task: Task,
    splits: dict[str, Items],
    heads: HeadResult,
    shared: dict[Any, Any],
    stops: Stops,
) -> _Trainee | None:
    """The stages of one task after its heads, up to its trainings; None if it has stopped."""
    folder, at = study.run.task(task.name), partial(stops.of, task.name)
    found, discovery = folder / "neurons.json", splits["discovery"]
    try:
        with at("neurons"):
            neurons = study.neurons(task, discovery, folder / "heads.json", config.ratio, config.positive_part)
        with at("mask"):
            masking = study.mask(task, splits["test"], found, config.draws)
        with at("compare"):
            comparison = _compare(config, study, task, splits, shared)
        with at("steer"):
            steering = _begin_steering(config, study, task, splits, found)
    except TaskStops:
        return None
    first = folder / "steering" / HONES / "result.json"
    return _Trainee(task.name, heads, neurons, masking, comparison, steering, first)


def _begin_steering(
    config: RunConfig, study: Study, task: Task, splits: dict[str, Items], neurons_file: Path
) -> Begun[SteeringResult] | Begun[Evidence]:
    """After the comparison, whose sets may be steered too."""
    dev, test = splits["dev"], splits["test"]
    if not config.steering.wants_evidence:
        return study.begin_steering(task, dev, test, neurons_file, config.training)
    wanted = _wanted(config, task, splits.get("ood"))
    return begin(study, task, dev, test, neurons_file, config.training, wanted)


def _wanted(config: RunConfig, task: Task, ood: Items | None) -> Wanted:
    """The evidence of a task, tested also on the named tasks other than itself."""
    wanted = config.steering
    named = config.tasks if wanted.also is None else wanted.also
    also = [other for other in (make_task(n, candidates=config.candidates) for n in named) if other.name != task.name]
    ways, seeds = make_steerings(",".join(wanted.methods or (HONES,))), wanted.seeds or (config.training.seed,)
    return Wanted(ways, seeds, also, ood)


def _compare(
    config: RunConfig, study: Study, task: Task, splits: dict[str, Items], shared: dict[Any, Any]
) -> Comparison | None:
    wanted = config.compare
    if wanted is None:
        return None
    heads = study.run.task(task.name) / "heads.json"
    budgets = BUDGETS if wanted.curves else ()
    options: dict[str, Any] = {"ratio": config.ratio, "draws": wanted.draws, "budgets": budgets, "shared": shared}
    return compare(study, task, splits["discovery"], splits["test"], config.compared, heads, **options)


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
    check_disjoint(splits)
    return splits
