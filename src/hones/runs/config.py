"""The configuration of `hones run`: everything that a run depends on.

It is YAML; unknown keys are errors. Relative paths are taken from the configuration's folder.

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

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hones.data.items import MAX_LEFT_OUT
from hones.data.sources import source_in
from hones.errors import HonesError, from_validation
from hones.method.budget import DEFAULT_RATIO, DEFAULT_SEED, PositivePart
from hones.method.steering.settings import HONES, SET, SteeringSettings
from hones.models.spec import ModelSpec
from hones.rivals import METHODS, check_methods
from hones.runs.analysis_settings import AnalysisSettings
from hones.runs.steering_config import SteeringConfig, as_steering_config, known_by
from hones.sweep.names import MAX_NEW_TOKENS, EngineName
from hones.tasks import TASKS
from hones.tasks.loading import is_file

if TYPE_CHECKING:
    from hones.rivals.base import Method

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


class Comparing(_Section):
    """Which methods are compared with HONES, how often random ones are drawn, and whether budgets are varied."""

    methods: Annotated[tuple[str, ...], Field(min_length=1), known_by(check_methods)]
    draws: Count = 5
    curves: bool = True


class RayConfig(_Section):
    """The workers of a run: --ray, --workers and --gpus-per-worker."""

    address: str
    workers: Count = 1
    gpus_per_worker: float | None = Field(default=None, ge=0)


class RunConfig(_Section):
    """Everything a run depends on. compare, analyze: stages that are left out unless asked for. anyway: sweep even
    where the unedited model scores 0.
    """

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
    anyway: bool = False
    steering: Annotated[SteeringConfig, BeforeValidator(as_steering_config)] = SteeringConfig()
    compare: Comparing | None = None
    analyze: AnalysisSettings | None = None
    ray: RayConfig | None = None

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
        )

    @property
    def compared(self) -> list["Method"]:
        """The methods that are compared with HONES; none unless asked for."""
        return [METHODS[name] for name in self._compared]

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
        raise from_validation(error, str(file)) from error
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
