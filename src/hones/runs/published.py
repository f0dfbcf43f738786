"""found.json: what a run found, as one small file for other people; `hones publish` writes it, `--neurons` takes it.

Heads and H* with intervals, the neurons of every method, scales, and what they were found with: model and revision,
items by their digests, settings, versions. No path of a machine is in it. src/hones/runs/found.schema.json is its JSON
schema, made of the classes below.
"""

from collections.abc import Mapping
from math import isnan, nan
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hones.errors import HonesError, from_validation
from hones.files import read_json
from hones.method.found import HeadResult, HeadScore, RankedNeuron, RankedNeurons
from hones.stats import Interval

KEY = "hones_found"
"""What tells such a file from others, and holds the version of its schema."""
SCHEMA_FILE = Path(__file__).parent / "found.schema.json"
Index = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Level(_Part):
    """A number with its 95 % interval; low and high are null where it is not known."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval) -> "Level":
        """A measured one."""
        low, high = (None if isnan(x) else x for x in (interval.low, interval.high))
        return cls(value=interval.value, low=low, high=high)

    @property
    def interval(self) -> Interval:
        """With NaN for what is not known."""
        low, high = (nan if x is None else x for x in (self.low, self.high))
        return Interval(self.value, low, high)


class FoundHead(_Part):
    """One head; score: what the metric loses when it is replaced by the mean of its layer's others."""

    layer: Index
    head: Index
    score: Level
    intervened: float
    items: Index
    critical: bool


class FoundHeads(_Part):
    """All heads, best first; critical ones are H*, of the first top_k those that cost something.

    by: how heads were scored; left out: each replaced alone.
    """

    metric: str
    baseline: Level
    items: Index
    top_k: Count
    by: Literal["subsets", "conditional"] | None = None
    scored: Annotated[tuple[FoundHead, ...], Field(min_length=1)]

    @model_serializer(mode="wrap")
    def _without_none(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in content(self).items() if (key, value) != ("by", None)}


class FoundNeuron(_Part):
    """One neuron, and by what it was ranked."""

    layer: Index
    neuron: Index
    score: float


class FoundNeurons(_Part):
    """What a method selects, best first. ratio: share of all neurons that was asked for."""

    method: str
    ratio: float | None = None
    selected: Annotated[tuple[FoundNeuron, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_once(self) -> "FoundNeurons":
        if len({(n.layer, n.neuron) for n in self.selected}) < len(self.selected):
            raise ValueError("a neuron is named twice")
        return self


class FoundScale(_Part):
    """z of a neuron is multiplied by 1 + scale."""

    layer: Index
    neuron: Index
    scale: float


class FoundMasking(_Part):
    """The metric on test items with the neurons masked; random: as many in the same layers.

    advantage: random - masked.
    """

    metric: str
    items: Count
    neurons: Count
    baseline: Level
    masked: Level
    random: Level
    drop: Level
    advantage: Level


class FoundItems(_Part):
    """The items of one split: how many, the file's name, SHA-256 of its content, digest of what was asked."""

    items: Index
    file: str | None = None
    data: str | None = None
    asked: str | None = None


class FoundTask(_Part):
    """One task. neurons: what the run selected; methods: what others select; scales: by way to steer."""

    heads: FoundHeads | None = None
    neurons: FoundNeurons | None = None
    methods: dict[str, FoundNeurons] = {}
    scales: dict[str, tuple[FoundScale, ...]] = {}
    masking: FoundMasking | None = None
    data: dict[str, FoundItems] = {}
    seed: int | None = None


class Published(_Part):
    """What a run found.

    revision: the hub's commit, or a digest of the model's files. layers, heads_per_layer, neurons_per_layer: the shape
    of the model, as far as the run says. settings: what all stages share. versions: of those that it may depend on.
    """

    hones_found: Literal[1] = 1
    model: str
    revision: str
    dtype: str | None = None
    layers: Count | None = None
    heads_per_layer: Count | None = None
    neurons_per_layer: Count | None = None
    settings: dict[str, bool | int | float | str | None] = {}
    versions: dict[str, str] = {}
    tasks: Annotated[dict[str, FoundTask], Field(min_length=1)]

    def task(self, name: str | None = None) -> FoundTask:
        """A task, or the only one.

        Raises:
            HonesError: there is no such task, or there are several and none is named.
        """
        if name is None and len(self.tasks) == 1:
            return next(iter(self.tasks.values()))
        if name not in self.tasks:
            what = "no task is named" if name is None else f"no task {name!r} was published"
            raise HonesError(what, expected=f"one of {', '.join(self.tasks)}")
        return self.tasks[name]

    def neurons(self, task: str | None = None, method: str | None = None) -> RankedNeurons:
        """The neurons of a task that the run selected, or that another method selects, best first.

        Raises:
            HonesError: no such task, or no neurons of it.
        """
        of = self.task(task)
        found = of.neurons if method is None else of.methods.get(method)
        if method is not None and of.neurons is not None and of.neurons.method == method:
            found = of.neurons
        if found is None:
            known = [*of.methods, *([of.neurons.method] if of.neurons is not None else [])]
            raise HonesError(
                f"no neurons of {method or 'the run'} were published", expected=f"one of {', '.join(known) or 'none'}"
            )
        return RankedNeurons(RankedNeuron(rank, n.layer, n.neuron, n.score) for rank, n in enumerate(found.selected, 1))

    def heads(self, task: str | None = None) -> HeadResult:
        """The heads of a task, best first.

        Raises:
            HonesError: no such task, or no heads of it.
        """
        found = self.task(task).heads
        if found is None:
            raise HonesError("no heads were published", expected="a file of a run with heads")
        base = found.baseline.value
        scores = tuple(HeadScore(h.layer, h.head, h.score.interval, base, h.intervened, h.items) for h in found.scored)
        # what else is known of the way stays with the run; of steps that ended early K is as far as they came
        top_k = sum(h.critical for h in found.scored) if found.by == "conditional" else found.top_k
        return HeadResult(found.metric, found.baseline.interval, found.items, scores, top_k)


def is_published(content: Any) -> bool:
    """Whether the content of a JSON file says that it is one of these."""
    return isinstance(content, Mapping) and KEY in content


def published_of(content: Any, path: Path) -> Published:
    """The content of a JSON file as what a run found.

    Raises:
        HonesError: it is not of that form; the line names the first place.
    """
    try:
        return Published.model_validate(content)
    except ValidationError as error:
        raise from_validation(error, str(path), expected="what `hones publish` writes") from error


def read_published(path: str | Path) -> Published:
    """What `hones publish` wrote.

    Raises:
        HonesError: no such file, or not of that form.
    """
    path = Path(path)
    content = read_json(path)
    if not is_published(content):
        raise HonesError(f"{path} is no published run", expected=f"an object with {KEY}, as `hones publish` writes it")
    return published_of(content, path)
