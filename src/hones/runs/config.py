"""The configuration of `hones run`: everything that a run depends on.

It is YAML; unknown keys are errors. Relative paths are taken from the configuration's folder.

    model: llava-hf/llava-1.5-7b-hf
    out: runs/llava
    data: {discovery: discovery.json, dev: dev.json, test: test.json, images: train2014}
    tasks: [vqa, ocr, caption, retrieval]        # or yours: pope.yaml, tasks.py:Mine
    limit: {discovery: 5000, dev: 2000, test: 3000}
    ratio: 0.01
    heads: {by: single}                          # or subsets, conditional: heads that stand in for each other
    steering: {epochs: 2, methods: [all], seeds: [3407, 3408]}    # methods, seeds, also, ood: evidence, optional
    compare: {methods: [dvp, atp, random]}       # optional
    analyze: {cards: 8}                          # optional
    ray: {address: local, workers: 4}            # optional, gpus_per_worker too: docs/cluster.md
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from hones.data.items import MAX_LEFT_OUT
from hones.data.sources import source_in
from hones.errors import HonesError, from_validation
from hones.method.budget import AUTO, BUDGETS, DEFAULT_RATIO, DEFAULT_SEED, PositivePart, Rest
from hones.method.head_ways import By, HeadWay, Utility, make_head_way
from hones.method.steering.settings import HONES, SET, SteeringSettings
from hones.models.spec import ModelSpec
from hones.models.wordings import BY_NAME
from hones.rivals import METHODS, check_method_or_auto, check_methods, check_schedule, scheduled
from hones.runs.analysis_settings import AnalysisSettings
from hones.runs.config_file import config_content
from hones.runs.steering_config import SteeringConfig, as_steering_config, known_by
from hones.sweep.names import MAX_NEW_TOKENS, EngineName
from hones.tasks import TASKS
from hones.tasks.loading import is_file

if TYPE_CHECKING:
    from hones.rivals.base import Method

SPLITS = ("discovery", "dev", "test")
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFiles(_Section):
    """One annotation file per split, of any format (docs/data.md); their pictures are disjoint."""

    discovery: Path = Field(description="what heads and neurons are found on")
    dev: Path = Field(description="what scales are learned on")
    test: Path = Field(description="what masking and steering are tested on")
    images: Path | None = Field(default=None, description="folder of the pictures; null: images/ beside each file")


class Limits(_Section):
    """How many items of each split are used; null: all."""

    discovery: Count | None = None
    dev: Count | None = None
    test: Count | None = None
    ood: Count | None = Field(default=None, description="of steering.ood")


def _distinct(tasks: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(tasks)) < len(tasks):
        raise ValueError("a task is named twice")
    return tasks


class Comparing(_Section):
    """Which methods are compared with HONES, how often random ones are drawn, and whether budgets are varied."""

    methods: Annotated[tuple[str, ...], Field(min_length=1), known_by(check_methods)] = Field(
        description="`hones methods` lists them; all: every one but masks, oracle, best-of",
        examples=[["dvp", "atp", "random"]],
    )
    rounds: Count | None = Field(default=None, description="of methods that close in rounds; null: 6, of coax 2")
    width: Count | None = Field(default=None, description="closed in each; null: the selection over the rounds")
    draws: Count = Field(default=5, description="of random methods")
    curves: bool = Field(default=True, description="also mask other budgets")
    keep: bool = Field(default=False, description="also keep each set alone along the budgets (docs/proof.md)")
    rest: Rest = Field(default="zero", description="with keep: what the others become, zero or mean (over discovery)")
    budgets: Annotated[tuple[Share, ...], Field(min_length=1)] = Field(
        default=BUDGETS, description="of the curves, as shares of all neurons"
    )

    @model_validator(mode="after")
    def _rest_is_of_kept_sets(self) -> "Comparing":
        if self.rest != "zero" and not self.keep:
            raise ValueError(f"rest: {self.rest}; expected keep: true with it, or neither: a mask is 0")
        return self


class HeadsConfig(_Section):
    """Step 1: how heads are scored, and by what."""

    by: By = Field(default="single", description="single, as the paper; subsets, conditional: redundant heads too")
    utility: Utility | None = Field(
        default=None, description="metric or logprob; null: metric, or logprob by subsets and conditional"
    )
    share: float | None = Field(default=None, description="subsets: the chance of each head to be in one; null: 0.1")
    subsets: Count | None = Field(default=None, description="subsets: how many; null: 4 for each head")
    ridge: float | None = Field(default=None, description="subsets: shrinks the fit; null: 0, least squares")
    steps: Count | None = Field(default=None, description="conditional: sweeps over all heads; null: 6")

    @property
    def way(self) -> HeadWay | None:
        """What is asked for; None: single."""
        return make_head_way(self.by, share=self.share, subsets=self.subsets, ridge=self.ridge, steps=self.steps)

    @model_validator(mode="after")
    def _options_are_of_the_way(self) -> "HeadsConfig":
        try:
            _ = self.way
        except HonesError as error:
            raise ValueError(str(error)) from error
        return self


class RayConfig(_Section):
    """The workers of a run: --ray, --workers and --gpus-per-worker."""

    address: str = Field(description="local, auto, or HOST:PORT of a cluster's head", examples=["local"])
    workers: Count = Field(default=1, description="a replica of the model each")
    gpus_per_worker: float | None = Field(default=None, ge=0, description="null: 1, or 0 where there are none")


class RunConfig(_Section):
    """Everything a run depends on. compare, analyze: stages that are left out unless asked for."""

    model: str = Field(description="hub id, local folder, or built in: tiny-llava, tiny-qwen2.5-vl, tiny-text")
    out: Path = Field(description="run folder", examples=["runs/a"])
    data: DataFiles = Field(description="an annotation file per split, no picture in two of them (docs/data.md)")
    tasks: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)] = Field(
        default=tuple(TASKS), description="or yours: TASK.yaml, FILE.py:CLASS (docs/tasks.md)"
    )
    limit: Limits = Field(default=Limits(), description="the first N items of a split only; null: all")
    revision: str | None = Field(default=None, description="branch, tag or commit of the model on the hub")
    dtype: str = Field(
        default="auto",
        description="auto: float32 on a CPU; float32, bfloat16, float16; fast: bfloat16 where there are units for it",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N")
    device_map: str | dict[str, int | str] | None = Field(
        default=None, description="auto: spread the layers over all GPUs; in place of device"
    )
    attn_implementation: str | None = Field(
        default=None, description="eager, sdpa or flash_attention_2; null: the model's"
    )
    trust_remote_code: bool = Field(default=False, description="run the model's own code from the hub")
    chat_template: str | None = Field(
        default=None, description="a file with a Jinja template, or llava-1.5; null: the model's own"
    )
    top_k: Count | None = Field(default=None, description="critical heads; null: 3 %, at least 5")
    heads: HeadsConfig = Field(default=HeadsConfig(), description="how heads are scored")
    ratio: Annotated[float | None, BeforeValidator(lambda x: None if x == AUTO else x)] = Field(
        default=DEFAULT_RATIO, gt=0, le=1, description="share of all neurons; auto: the least that halves the metric"
    )
    method: Annotated[str, known_by(check_method_or_auto)] = Field(
        default=HONES, description="how neurons are ranked, `hones methods` lists them; auto: by what is at hand"
    )
    positive_part: PositivePart = Field(default="mean", description="mean, as released, or item: the other reading")
    draws: Count = Field(default=5, description="random control sets of masking")
    also: Annotated[tuple[str, ...], AfterValidator(_distinct)] | None = Field(
        default=None, description="other tasks to measure under the same masks; null: those of the run"
    )
    candidates: int = Field(default=50, ge=2, description="retrieval: captions per picture, one of them true")
    max_new_tokens: Count = Field(default=MAX_NEW_TOKENS, description="longest answer")
    batch_size: Count | None = Field(default=None, description="pictures at once; null: by the device's memory")
    memory: PositiveFloat | None = Field(default=None, description="GiB that sweeps may take; null: what is free")
    engine: EngineName = Field(default="replay", description="replay (fast) or naive (the definition); same numbers")
    max_left_out: float = Field(
        default=MAX_LEFT_OUT, ge=0, le=1, description="share of unusable items beyond which a stage stops"
    )
    seed: int = Field(default=DEFAULT_SEED, ge=0, description="of bootstraps, controls and training")
    anyway: bool = Field(default=False, description="sweep even where the unedited model scores 0")
    steering: Annotated[SteeringConfig, BeforeValidator(as_steering_config)] = Field(
        default=SteeringConfig(), description="step 4: the training, and the evidence that is wanted"
    )
    compare: Comparing | None = Field(default=None, description="other methods, masked on the same items")
    analyze: AnalysisSettings | None = Field(default=None, description="what the sets of the tasks share and do")
    ray: RayConfig | None = Field(default=None, description="compute on Ray workers (docs/cluster.md)")

    @model_validator(mode="after")
    def _the_positive_part_is_of_hones(self) -> "RunConfig":
        if self.positive_part != "mean" and self.method != HONES:
            raise ValueError(f"positive_part: {self.positive_part} with method: {self.method}; expected one of them")
        return self

    @model_validator(mode="after")
    def _rounds_are_of_a_method(self) -> "RunConfig":
        if self.compare is not None:
            try:
                check_schedule(self._compared, self.compare.rounds, self.compare.width)
            except HonesError as error:
                raise ValueError(f"compare: {error}") from error
        return self

    @model_validator(mode="after")
    def _sets_are_compared(self) -> "RunConfig":
        compared = {HONES, *self._compared} if self.compare is not None else ()
        for missing in [name for name in self.steering.sets if name not in compared]:
            raise ValueError(f"steering.methods: {SET}{missing}; expected {missing} in compare.methods too")
        return self

    @property
    def model_spec(self) -> ModelSpec:
        """The model, and how it is loaded."""
        return ModelSpec(
            self.model,
            dtype=self.dtype,
            device=self.device,
            revision=self.revision,
            device_map=self.device_map,
            attention=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
            chat_template=self.chat_template,
        )

    @property
    def compared(self) -> list["Method"]:
        """The methods that are compared with HONES; none unless asked for."""
        if self.compare is None:
            return []
        return scheduled([METHODS[name] for name in self._compared], self.compare.rounds, self.compare.width)

    @property
    def _compared(self) -> list[str]:
        if self.compare is None:
            return []
        masked = () if self.positive_part == "mean" else ("hones-per-item",)
        return check_methods(",".join(dict.fromkeys((*masked, *self.compare.methods))))

    @property
    def training(self) -> SteeringSettings:
        """The steering settings, with the run's seed unless they have their own."""
        own = "seed" in self.steering.model_fields_set
        return self.steering.training if own else self.steering.training.model_copy(update={"seed": self.seed})


def read_config(file: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Read a configuration.

    Args:
        changes: what stands in place of the file's own, `key=value` or `section.key=value`, the value as YAML.

    Raises:
        HonesError: no such file, not YAML, an unknown or missing key, a value out of range, or one that
            `hones init` left to be filled in.
    """
    content = config_content(file, RunConfig, changes)
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        raise from_validation(error, str(file), keys=RunConfig) from error
    base = file.parent
    data = config.data
    files = {name: source_in(base, path) for name in (*SPLITS, "images") if (path := getattr(data, name)) is not None}
    steering, names = config.steering, ("ood", "ood_images")
    outside = {name: source_in(base, path) for name in names if (path := getattr(steering, name)) is not None}
    tasks, also, beside = (_tasks_in(base, names) for names in (config.tasks, steering.also or (), config.also or ()))
    steering = steering.model_copy(update={**outside, **({"also": also} if steering.also is not None else {})})
    places = {"out": base / config.out, "data": DataFiles(**files), "tasks": tasks, "steering": steering}
    if config.also is not None:
        places["also"] = beside
    if config.chat_template is not None and config.chat_template not in BY_NAME:
        places["chat_template"] = str(base / config.chat_template)
    return config.model_copy(update=places)


def _tasks_in(base: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Task names, those of files from the configuration's folder."""
    return tuple(str(base / name) if is_file(name) else name for name in names)
