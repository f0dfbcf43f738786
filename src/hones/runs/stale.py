"""Results that no longer belong together: of a stage that did not finish, changed by hand, or found from other inputs.

A stage's record in run.json names the digests of its files and of what it was computed from. A folder without run.json
says nothing about itself, and nothing is said about it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from hones.errors import joined
from hones.files import digest_of
from hones.runs.results import FILES, RunResults

_STAGES = dict(zip(FILES, ("heads", "neurons", "mask", "compare", "keep", "both"), strict=True))


def stale(results: RunResults) -> list[str]:
    """A line for every result that the page shows and that is not what the folder's other results belong to."""
    if not (results.folder / "run.json").is_file():
        return []
    lines = [line for task in results.tasks for line in _of_task(results, task.task)]
    if results.analysis is not None:
        lines += _written(results, "analysis", "analysis/analysis.json")
        used = _used(results, "analysis").get("tasks", {}).items()
        kinds = ("heads", "neurons")
        files = {f"{task}/{kind}.json": digests.get(kind) for task, digests in used for kind in kinds}
        lines += _from(results, "analysis", files)
    return lines


def _of_task(results: RunResults, task: str) -> Iterator[str]:
    for name, stage in _STAGES.items():
        if (results.folder / task / name).is_file():
            yield from _written(results, f"{task}/{stage}", f"{task}/{name}")
    steering = sorted((results.folder / task).glob("steering/*/result.json"))
    for file in steering:
        stage = f"{task}/steer" if file.parent.name == "hones" else f"{task}/steer/{file.parent.name}"
        if stage in results.record.stages:
            yield from _written(results, stage, str(file.relative_to(results.folder)))
    if (results.folder / task / "steering/evidence.json").is_file():
        yield from _written(results, f"{task}/evidence", f"{task}/steering/evidence.json")
        used = _used(results, f"{task}/evidence")
        scales = {f"{task}/steering/{name}": digest for name, digest in used.get("scales", {}).items()}
        yield from _from(results, f"{task}/evidence", {f"{task}/neurons.json": used.get("neurons"), **scales})
    for stage, key in (
        ("neurons", "heads"),
        ("methods/hones", "heads"),
        ("mask", "neurons"),
        ("keep", "neurons"),
        ("steer", "neurons"),
    ):
        used = _used(results, f"{task}/{stage}").get(key)
        yield from _from(results, f"{task}/{stage}", {f"{task}/{key}.json": used})
    for stage in ("compare", "both"):
        compared = _used(results, f"{task}/{stage}").get("methods", {}).items()
        arrays = {f"{task}/methods/{method}/neuron_importance.npy": digest for method, digest in compared}
        yield from _from(results, f"{task}/{stage}", arrays)


def _used(results: RunResults, stage: str) -> dict[str, Any]:
    return results.record.stages[stage].fingerprint if stage in results.record.stages else {}


def _written(results: RunResults, stage: str, file: str) -> Iterator[str]:
    """Whether the stage has finished and the file is what it wrote."""
    if stage not in results.record.stages:
        yield f"{file}: run.json has no finished {stage}"
        return
    recorded = results.record.stages[stage].artifacts.get(file)
    if recorded is not None and digest_of(results.folder / file) != recorded:
        yield f"{file}: changed since {stage} wrote it"


def _from(results: RunResults, stage: str, used: Mapping[str, str | None]) -> Iterator[str]:
    """Whether the files that a stage was computed from, by their digests, are those that the folder holds now."""
    here = {name: results.folder / name for name, digest in used.items() if digest is not None}
    changed = [name for name, file in here.items() if file.is_file() and digest_of(file) != used[name]]
    if changed:
        yield f"{stage}: not found from the present {joined(changed)}"
