"""All stages for all tasks from one configuration: what `hones run` and `hones demo` do.

A configuration is YAML; unknown keys are errors. Relative paths are taken from the configuration's folder.

    model: llava-hf/llava-1.5-7b-hf
    out: runs/llava
    data: {discovery: discovery.json, dev: dev.json, test: test.json, images: train2014}
    tasks: [vqa, ocr, caption, retrieval]        # or yours: pope.yaml, tasks.py:Mine
    limit: {discovery: 5000, dev: 2000, test: 3000}
    ratio: 0.01
    steering: {epochs: 2, methods: [all], seeds: [3407, 3408]}    # methods, seeds, also, ood: evidence, optional
    compare: {methods: [dvp, atp, random]}       # optional
    analyze: {cards: 8}                          # optional
    ray: {address: local, workers: 4}            # optional, gpus_per_worker too: docs/cluster.md
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hones.analysis.source import read_run
from hones.analysis.stage import AnalysisSettings, RunStudy
from hones.artifacts import read_result
from hones.cluster import open_pool
from hones.cluster.recipe import Recipe
from hones.comparators import Method, make_methods
from hones.comparators.compare import BUDGETS
from hones.comparators.results import Comparison
from hones.comparators.stage import compare
from hones.data.disjoint import check_disjoint
from hones.data.items import MAX_LEFT_OUT, Items, load_items
from hones.data.sources import source_in
from hones.errors import HonesError, TaskStops
from hones.heads import HeadResult
from hones.masking import MaskingResult
from hones.neurons import PositivePart, RankedNeuron
from hones.steering import SteeringResult, SteeringSettings
from hones.steering.config import SteeringConfig, as_steering_config
from hones.steering.controls import HONES, SET, make_steerings
from hones.steering.results import Evidence
from hones.steering.stage import Wanted, steer
from hones.stops import Stopped, Stops
from hones.store import RunFolder
from hones.study import DEFAULT_RATIO, DEFAULT_SEED, Study
from hones.sweep import MAX_NEW_TOKENS, EngineName, SweepSettings
from hones.sweep.shards import ThisProcess
from hones.tasks import TASKS, Task, check_distinct, make_task
from hones.tasks.loading import is_file

SPLITS = ("discovery", "dev", "test")
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFiles(_Section):
    """One annotation file per split, of any format (docs/data.md); their pictures are disjoint."""

    discovery: Path
    dev: Path
    test: Path
    images: Path | None = None


class Limits(_Section):
    """How many items of each split are used; default all."""

    discovery: Count | None = None
    dev: Count | None = None
    test: Count | None = None
    ood: Count | None = None


def _distinct(tasks: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(tasks)) < len(tasks):
        raise ValueError("a task is named twice")
    return tasks


def _known(methods: tuple[str, ...]) -> tuple[str, ...]:
    try:
        make_methods(",".join(methods))
    except HonesError as error:
        raise ValueError(str(error)) from error
    return methods


class Comparing(_Section):
    """Which methods are compared with HONES, how often random ones are drawn, and whether budgets are varied."""

    methods: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known)]
    draws: Count = 5
    curves: bool = True


class RayConfig(_Section):
    """The workers of a run: --ray, --workers and --gpus-per-worker."""

    address: str
    workers: Count = 1
    gpus_per_worker: float | None = Field(default=None, ge=0)


class RunConfig(_Section):
    """Everything a run depends on. compare, analyze: stages that are left out unless asked for."""

    model: str
    out: Path
    data: DataFiles
    tasks: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)] = tuple(TASKS)
    limit: Limits = Limits()
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | dict[str, int | str] | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    top_k: Count | None = None
    ratio: float = Field(default=DEFAULT_RATIO, gt=0, le=1)
    positive_part: PositivePart = "mean"
    draws: Count = 5
    candidates: int = Field(default=50, ge=2)
    max_new_tokens: Count = MAX_NEW_TOKENS
    batch_size: Count | None = None
    engine: EngineName = "replay"
    max_left_out: float = Field(default=MAX_LEFT_OUT, ge=0, le=1)
    seed: int = Field(default=DEFAULT_SEED, ge=0)
    steering: Annotated[SteeringConfig, BeforeValidator(as_steering_config)] = SteeringConfig()
    compare: Comparing | None = None
    analyze: AnalysisSettings | None = None
    ray: RayConfig | None = None

    @model_validator(mode="after")
    def _sets_are_compared(self) -> "RunConfig":
        compared = {method.name for method in self.compared} | {HONES} if self.compare is not None else set()
        for missing in [name for name in self.steering.sets if name not in compared]:
            raise ValueError(f"steering.methods: {SET}{missing}; expected {missing} in compare.methods too")
        return self

    @property
    def compared(self) -> list[Method]:
        """The methods that are compared with HONES; none unless asked for."""
        if self.compare is None:
            return []
        masked = () if self.positive_part == "mean" else ("hones-per-item",)
        return make_methods(",".join(dict.fromkeys((*masked, *self.compare.methods))))

    @property
    def training(self) -> SteeringSettings:
        """The steering settings, with the run's seed unless they have their own."""
        own = "seed" in self.steering.model_fields_set
        return self.steering.training if own else self.steering.training.model_copy(update={"seed": self.seed})


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


def read_config(file: Path) -> RunConfig:
    """Read a configuration.

    Raises:
        HonesError: no such file, not YAML, an unknown or missing key, or a value out of range.
    """
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HonesError(
            f"cannot read {file} ({error.strerror})", expected="a YAML configuration", do="see `hones run --help`"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise HonesError(f"{file} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise HonesError(f"{file} holds a {type(content).__name__}", expected="keys such as model, out and data")
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = [".".join(map(str, first["loc"]))] if first["loc"] else []
        raise HonesError(": ".join([str(file), *where, first["msg"]])) from error
    base = file.parent
    data = config.data
    files = {name: source_in(base, path) for name in (*SPLITS, "images") if (path := getattr(data, name)) is not None}
    steering, names = config.steering, ("ood", "ood_images")
    outside = {name: source_in(base, path) for name in names if (path := getattr(steering, name)) is not None}
    tasks, also = (_tasks_in(base, names) for names in (config.tasks, steering.also or ()))
    steering = steering.model_copy(update={**outside, **({"also": also} if steering.also is not None else {})})
    places = {"out": base / config.out, "data": DataFiles(**files), "tasks": tasks, "steering": steering}
    return config.model_copy(update=places)


def _tasks_in(base: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Task names, those of files from the configuration's folder."""
    return tuple(str(base / name) if is_file(name) else name for name in names)


def run_config(
    config: RunConfig,
    *,
    fresh: bool = False,
    on_outcome: Callable[[Study, Outcome], None] | None = None,
    on_stopped: Callable[[Stopped], None] | None = None,
) -> list[Outcome]:
    """Run every stage of every task, skipping what the run folder already holds.

    A task that cannot go on (`hones.stops`) is recorded in run.json, and the others run to their end.

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
        vlm = study.vlm if config.ray is None else _recipe(config).load()
        finished = read_run(run.path, classes=[name for name in config.tasks if ":" in name])
        sweep = replace(study.sweep, workers=ThisProcess())
        RunStudy(vlm, run, sweep, config.seed, fresh, config.max_left_out).analyze(finished, config.analyze)
    if on_stopped is None:
        stops.check()
    return outcomes


def _recipe(config: RunConfig) -> Recipe:
    names = ("dtype", "device", "revision", "device_map", "attn_implementation", "trust_remote_code")
    return Recipe(config.model, **{name: getattr(config, name) for name in names})


def _open_study(config: RunConfig, run: RunFolder, fresh: bool, stack: ExitStack) -> Study:
    """The study, on the model in this process, or on workers that end with the stack."""
    sweep = SweepSettings(config.engine, config.batch_size, config.max_new_tokens)
    if config.ray is None:
        vlm = _recipe(config).load()
    else:
        workers = stack.enter_context(open_pool(_recipe(config), **config.ray.model_dump()))
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
    for task, heads in zip(tasks, heads_of_tasks, strict=True):
        try:
            outcomes.append(_outcome(config, study, task, splits, heads, shared, stops))
        except TaskStops:
            continue
        study.run.stop(task.name, None)
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


def _outcome(
    config: RunConfig,
    study: Study,
    task: Task,
    splits: dict[str, Items],
    heads: HeadResult,
    shared: dict[Any, Any],
    stops: Stops,
) -> Outcome:
    """The stages of one task after its heads."""
    folder, at = study.run.task(task.name), partial(stops.of, task.name)
    with at("neurons"):
        neurons = study.neurons(task, splits["discovery"], folder / "heads.json", config.ratio, config.positive_part)
    with at("mask"):
        masking = study.mask(task, splits["test"], folder / "neurons.json", config.draws)
    with at("compare"):
        comparison = _compare(config, study, task, splits, shared)
    with at("steer"):
        steering, evidence = _steer(config, study, task, splits, folder / "neurons.json")
    return Outcome(task.name, heads, neurons, masking, steering, comparison, evidence)


def _steer(
    config: RunConfig, study: Study, task: Task, splits: dict[str, Items], neurons_file: Path
) -> tuple[SteeringResult, Evidence | None]:
    """After the comparison, whose sets may be steered too."""
    wanted, dev, test = config.steering, splits["dev"], splits["test"]
    if not wanted.wants_evidence:
        return study.steer(task, dev, test, neurons_file, config.training), None
    what = _wanted(config, task, splits.get("ood"))
    evidence = steer(study, task, dev, test, neurons_file, config.training, what)
    first = read_result(study.run.task(task.name) / "steering" / HONES / "result.json", SteeringResult)
    return first, evidence


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
