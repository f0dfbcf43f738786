"""What a finished run says about itself: its model, and for each task the sets it found and the items it used.

A task counts that has heads.json and neurons.json; all sets are of one method and one budget. A task's items are those
that run.json records: the discovery items of `hones neurons` and the test items of `hones mask`. Everything must be as
it was; a difference is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from hones.data.items import Items, load_items
from hones.data.readers import source_sha256
from hones.errors import HonesError, from_validation
from hones.files import digest_of
from hones.method.found import HeadResult, RankedNeurons
from hones.rivals import make_method
from hones.rivals.base import Method
from hones.runs.artifacts import read_heads, read_neurons
from hones.runs.record import RunFolder, StageRecord
from hones.tasks import in_order, make_task
from hones.tasks.base import Definition, Task
from hones.tasks.custom import task_of_content


@dataclass(frozen=True)
class Split:
    """Items with the task that asks about them. used: what the run recorded of them, None for items it has not used."""

    task: Task
    items: Items
    used: dict[str, str] | None


@dataclass(frozen=True)
class Source:
    """One task of a run. method: how its neurons were ranked."""

    name: str
    heads: HeadResult
    neurons: RankedNeurons
    method: Method
    discovery: Split
    test: Split


@dataclass(frozen=True)
class FinishedRun:
    """A run's model and tasks. skipped: tasks that have heads but no neurons yet. depends: what the neurons of each
    depended on.
    """

    folder: RunFolder
    model: str
    revision: str
    dtype: str
    seed: int
    max_new_tokens: int
    tasks: tuple[Source, ...]
    skipped: tuple[str, ...]
    depends: Mapping[str, Mapping[str, Any]]

    @property
    def hub_revision(self) -> str | None:
        """The commit to load, None for files on this machine."""
        return None if self.revision.startswith("sha256:") or self.revision == "unknown" else self.revision


def read_run(
    path: str | Path,
    *,
    data: Path | None = None,
    discovery: Path | None = None,
    images: Path | None = None,
    classes: Sequence[str] = (),
) -> FinishedRun:
    """Read a run.

    Args:
        data: the test annotation file, where it is not what run.json says.
        discovery: the discovery annotation file, likewise.
        images: the folder of all pictures, likewise.
        classes: the run's custom tasks that are Python classes, as `make_task` takes them: a run folder names them, but
            runs no code.

    Raises:
        HonesError: not a run folder, no task with heads and neurons, files that are missing or have changed, or
            tasks whose neurons were found by different methods or at different budgets.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        raise HonesError(f"{path} is not a run folder", expected="a folder with run.json, as `hones heads` leaves it")
    folder = RunFolder(path)
    stages = folder.record.stages
    names, begun = (in_order(s.removesuffix(e) for s in stages if s.endswith(e)) for e in ("/neurons", "/heads"))
    skipped = tuple(name for name in begun if name not in names)
    if not names:
        raise HonesError(f"{path} has no task with heads.json and neurons.json", do="run `hones neurons` first")
    records = {name: _records(folder, stages, name) for name in names}
    moved = {"discovery": discovery, "test": data}
    places = _Places(folder, moved, images, tuple(make_task(given) for given in classes))
    tasks = tuple(_source(places, name, record) for name, record in records.items())
    neurons = {name: record.neurons.fingerprint for name, record in records.items()}
    for what in ("method", "ratio"):
        _common(path, what, {name: getattr(x, what) for name, x in neurons.items()})
    answered = {name: (record.mask or record.heads).fingerprint.max_new_tokens for name, record in records.items()}
    return FinishedRun(
        folder,
        _common(path, "model", {name: x.model for name, x in neurons.items()}),
        _common(path, "revision", {name: x.revision for name, x in neurons.items()}),
        _common(path, "dtype", {name: x.dtype for name, x in neurons.items()}),
        _common(path, "seed", {name: x.seed for name, x in neurons.items()}),
        _common(path, "max_new_tokens", answered),
        tasks,
        skipped,
        {name: stages[f"{name}/neurons"].fingerprint for name in names},
    )


@dataclass(frozen=True)
class _Places:
    """Where everything is now. classes: custom tasks that the user has named."""

    folder: RunFolder
    moved: Mapping[str, Path | None]
    images: Path | None
    classes: tuple[Task, ...]


class _Used(BaseModel):
    items: list[str]
    file: str | None
    images: str
    candidates: int | None
    task: Definition | None = None


class _Asked(BaseModel):
    data: str
    asked: str
    task: str | None = None

    @property
    def of_items(self) -> dict[str, str]:
        """What identifies the items, as `Study.prepare` finds it."""
        task = {} if self.task is None else {"task": self.task}
        return {"data": self.data, "asked": self.asked, **task}


class _AskedOfModel(_Asked):
    model: str
    revision: str
    dtype: str
    seed: int
    heads: str | None = None
    method: str
    ratio: float | Literal["auto"]


class _Answered(_Asked):
    max_new_tokens: int


class _Heads(BaseModel):
    fingerprint: _Answered


class _Neurons(BaseModel):
    fingerprint: _AskedOfModel
    discovery: _Used


class _Mask(BaseModel):
    fingerprint: _Answered
    test: _Used


class _Records(BaseModel):
    """What run.json says of one task."""

    heads: _Heads
    neurons: _Neurons
    mask: _Mask | None = None


def _records(folder: RunFolder, stages: Mapping[str, StageRecord], name: str) -> _Records:
    """The task's records, whose artifacts must be as they were written."""
    own = {stage: stages[f"{name}/{stage}"] for stage in ("heads", "neurons", "mask") if f"{name}/{stage}" in stages}
    try:
        records = _Records.model_validate({stage: entry.model_dump(exclude_unset=True) for stage, entry in own.items()})
    except ValidationError as error:
        what = f"{folder.path}/run.json: {name}"
        raise from_validation(error, what, do="run the stage again with this version") from error
    for stage in ("heads", "neurons"):
        if not folder.is_finished(f"{name}/{stage}", own[stage].fingerprint):
            raise HonesError(
                f"{folder.path}: what {name}/{stage} left is missing or has changed", do="run the stage again"
            )
    return records


def _source(places: _Places, name: str, records: _Records) -> Source:
    folder, found = places.folder, records.neurons
    file = folder.path / name / "heads.json"
    method = make_method(found.fingerprint.method)
    if method.needs_heads and found.fingerprint.heads != digest_of(file):
        raise HonesError(f"{folder.path}: {name}/neurons.json was found with other heads than {file}")
    discovery = _used(places, name, "discovery", found.fingerprint, found.discovery)
    moved = places.moved["test"]
    if records.mask is not None:
        test = _used(places, name, "test", records.mask.fingerprint, records.mask.test)
    elif moved is not None:
        test = Split(discovery.task, load_items(moved, images=places.images), None)
    else:
        raise HonesError(f"{folder.path} has no test items of {name}", do="run `hones mask` first, or pass --data")
    neurons = read_neurons(folder.path / name / "neurons.json")
    return Source(name, read_heads(file), neurons, method, discovery, test)


def _used(places: _Places, name: str, split: str, asked: _Asked, used: _Used) -> Split:
    """The items a stage used, where they are now."""
    folder, moved, images = places.folder, places.moved[split], places.images
    root, option = folder.path.resolve(), {"discovery": "--discovery", "test": "--data"}[split]
    if used.file is None and moved is None:
        raise HonesError(f"{folder.path} does not say where the {split} items of {name} are", do=f"pass {option}")
    file = moved if moved is not None else root / str(used.file)
    sha = source_sha256(file)
    if sha is not None and sha != asked.data:
        raise HonesError(
            f"{file} has changed: sha256 {sha[:16]}, the run used {asked.data[:16]} as {split} items of {name}",
            do=f"pass the file as it was with {option}",
        )
    pictures = images if images is not None or moved is not None else root / used.images
    items = load_items(file, images=pictures, ids=used.items)
    return Split(_task(places, name, used), items, asked.of_items)


def _task(places: _Places, name: str, used: _Used) -> Task:
    """The task as the run used it; the code of a class is run only where the user has named it."""
    if used.task is None:
        return make_task(name) if used.candidates is None else make_task(name, candidates=used.candidates)
    if used.task.content is not None:
        return task_of_content(used.task.content, f"{places.folder.path}/run.json: {name}")
    for task in places.classes:
        if task.name == name and task.definition is not None:
            if task.definition.digest != used.task.digest:
                raise HonesError(
                    f"the task {name} has changed: {task.definition.given} is {task.definition.digest}, the run used "
                    f"{used.task.digest}",
                    do="give the file as it was, or run the stages again with --fresh",
                )
            return task
    raise HonesError(f"{name} of {places.folder.path} is a Python class", do=f"pass --task {used.task.given}")


def _common(path: Path, what: str, values: Mapping[str, Any]) -> Any:
    """What all tasks have in common."""
    (first, wanted), *others = values.items()
    for name, value in others:
        if value != wanted:
            raise HonesError(f"{path}: {what} is {wanted} for {first} and {value} for {name}", expected="one for all")
    return wanted
