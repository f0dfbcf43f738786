"""What a finished run says about itself: its model, and for each task the sets it found and the items it used.

A task counts that has heads.json and neurons.json. Its items are those that run.json records: the discovery items of
`hones neurons` and the test items of `hones mask`. Everything must be as it was; a difference is named.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hones.artifacts import read_heads, read_neurons
from hones.data.items import Items, load_items
from hones.errors import HonesError
from hones.heads import HeadResult
from hones.neurons import PositivePart, RankedNeurons
from hones.store import RunFolder
from hones.tasks import TASKS, Task, make_task


@dataclass(frozen=True)
class Split:
    """Items with the task that asks about them. used: what the run recorded of them, None for items it has not used."""

    task: Task
    items: Items
    used: dict[str, str] | None


@dataclass(frozen=True)
class Source:
    """One task of a run."""

    name: str
    heads: HeadResult
    neurons: RankedNeurons
    positive_part: PositivePart
    discovery: Split
    test: Split


@dataclass(frozen=True)
class FinishedRun:
    """A run's model and tasks. skipped: tasks that have heads but no neurons yet."""

    folder: RunFolder
    model: str
    revision: str
    dtype: str
    max_new_tokens: int
    tasks: tuple[Source, ...]
    skipped: tuple[str, ...]

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
) -> FinishedRun:
    """Read a run.

    Args:
        data: the test annotation file, where it is not what run.json says.
        discovery: the discovery annotation file, likewise.
        images: the folder of all pictures, likewise.

    Raises:
        HonesError: not a run folder, no task with heads and neurons, files that are missing or have changed.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        raise HonesError(f"{path} is not a run folder", expected="a folder with run.json, as `hones heads` leaves it")
    folder = RunFolder(path)
    stages = folder.record["stages"]
    names = [name for name in TASKS if f"{name}/neurons" in stages]
    skipped = tuple(name for name in TASKS if f"{name}/heads" in stages and name not in names)
    if not names:
        raise HonesError(f"{path} has no task with heads.json and neurons.json", do="run `hones neurons` first")
    moved = {"discovery": discovery, "test": data}
    tasks = tuple(_source(folder, stages, name, moved, images) for name in names)
    used = {name: stages[f"{name}/neurons"]["fingerprint"] for name in names}
    model, revision, dtype = (_common(path, used, key) for key in ("model", "revision", "dtype"))
    answered = {name: stages[stage]["fingerprint"] for name in names if (stage := f"{name}/mask") in stages}
    heads = {name: stages[f"{name}/heads"]["fingerprint"] for name in names}
    longest = _common(path, answered or heads, "max_new_tokens")
    return FinishedRun(folder, model, revision, dtype, longest, tasks, skipped)


def _source(
    folder: RunFolder, stages: Mapping[str, Any], name: str, moved: Mapping[str, Path | None], images: Path | None
) -> Source:
    for stage in (f"{name}/heads", f"{name}/neurons"):
        if stage not in stages or not folder.is_finished(stage, stages[stage]["fingerprint"]):
            raise HonesError(f"{folder.path}: what {stage} left is missing or has changed", do="run the stage again")
    found = stages[f"{name}/neurons"]
    file = folder.task(name) / "heads.json"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if found["fingerprint"]["heads"] != digest:
        raise HonesError(f"{folder.path}: {name}/neurons.json was found with other heads than {file}")
    discovery = _split(folder, stages, f"{name}/neurons", "discovery", moved["discovery"], images, name)
    test = _split(folder, stages, f"{name}/mask", "test", moved["test"], images, name)
    part = found["fingerprint"]["positive_part"]
    return Source(name, read_heads(file), read_neurons(folder.task(name) / "neurons.json"), part, discovery, test)


def _split(
    folder: RunFolder,
    stages: Mapping[str, Any],
    stage: str,
    split: str,
    moved: Path | None,
    images: Path | None,
    name: str,
) -> Split:
    """The items a stage used, where they are now."""
    option = {"discovery": "--discovery", "test": "--data"}[split]
    recorded = stages.get(stage)
    if recorded is None:
        if moved is None:
            raise HonesError(
                f"{folder.path} has no {split} items of {name}", do=f"run `hones mask` first, or pass {option}"
            )
        candidates = stages[f"{name}/neurons"]["discovery"]["candidates"]
        return Split(_task(name, candidates), load_items(moved, images=images), None)
    details, used = recorded[split], recorded["fingerprint"]
    if "candidates" not in details or (details["file"] is None and moved is None):
        raise HonesError(
            f"{folder.path}/run.json does not say where the {split} items of {name} are",
            do=f"run {stage.split('/')[1]} again with this version, or pass {option}",
        )
    root = folder.path.resolve()
    file = moved or root / details["file"]
    sha = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else used["data"]
    if sha != used["data"]:
        raise HonesError(
            f"{file} has changed: sha256 {sha[:16]}, the run used {used['data'][:16]} as {split} items of {name}",
            do=f"pass the file as it was with {option}",
        )
    pictures = images or (root / details["images"] if moved is None else None)
    items = load_items(file, images=pictures, ids=details["items"])
    return Split(_task(name, details["candidates"]), items, {key: used[key] for key in ("data", "asked")})


def _task(name: str, candidates: int | None) -> Task:
    return make_task(name) if candidates is None else make_task(name, candidates=candidates)


def _common(path: Path, fingerprints: Mapping[str, Mapping[str, Any]], key: str) -> Any:
    """What all tasks have in common under a key."""
    (first, wanted), *others = ((name, fingerprint[key]) for name, fingerprint in fingerprints.items())
    for name, value in others:
        if value != wanted:
            raise HonesError(f"{path}: {key} is {wanted} for {first} and {value} for {name}", expected="one for all")
    return wanted
