"""Where a scales file comes from, and whether it is this model's.

RUN/T/steering/METHOD/scales.json has a run.json three folders up, which records the file's digest, the model's
revision, the data and the settings; result.json beside it has the test metric. An export has its own manifest. A file
that lies elsewhere says nothing of its model: only its layers and neurons can be checked.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hones.artifacts import read_result, read_scales
from hones.errors import HonesError
from hones.models.vlm import VLM
from hones.sharing.manifest import MANIFEST, Metric, Split, read_manifest
from hones.steering import SteeringResult
from hones.steering.train import Scales
from hones.store import digest_of, read_json, sha256_of


@dataclass(frozen=True)
class Origin:
    """What is recorded of a scales file; None where nothing is.

    models: the revisions of the models that its run used, by their names.
    """

    where: Path
    models: dict[str, str]
    shape: tuple[int, int] | None = None
    task: str | None = None
    method: str | None = None
    settings: dict[str, bool | int | float | str | None] | None = None
    learned_on: Split | None = None
    tested_on: Split | None = None
    metric: Metric | None = None

    def check(self, vlm: VLM) -> None:
        """Raises HonesError unless this is a model that the scales were learned on."""
        shape = len(vlm.anatomy.layers), vlm.anatomy.neurons
        if self.models and vlm.revision not in self.models.values():
            name, revision = next(iter(self.models.items()))
            raise HonesError(
                f"{self.where} names {name} at revision {revision}, this is {vlm.name} at {vlm.revision}",
                expected="the model that the scales were learned on",
                do="see --model and --revision",
            )
        if self.shape is not None and shape != self.shape:
            raise HonesError(
                f"{self.where} names a model of {self.shape[0]} layers of {self.shape[1]} neurons",
                expected=f"{shape[0]} of {shape[1]} as {vlm.name} has",
            )


def scales_for(vlm: VLM, file: str | Path, run: str | Path | None = None) -> tuple[Scales, Origin | None]:
    """A scales file that fits the model, and what its run or export recorded.

    Args:
        run: the run folder that wrote the file, where it was copied from there.

    Raises:
        HonesError: the file is no scales file, of another model, or names neurons that this one lacks.
    """
    file = Path(file)
    scales = read_scales(file)
    origin = origin_of(file, None if run is None else Path(run))
    if origin is not None:
        origin.check(vlm)
    try:
        for site in scales.values:
            vlm.anatomy.check_neuron(*site)
    except HonesError as error:
        raise HonesError(f"{file}: {error}") from error
    return scales, origin


def origin_of(file: Path, run: Path | None = None) -> Origin | None:
    """What the file's run, or the export that it lies in, recorded.

    Raises:
        HonesError: `run` did not write this file, or the file has changed since its run.
    """
    if run is not None:
        return _of_run(file, run)
    folders = file.resolve().parents
    if len(folders) > 3 and folders[1].name == "steering" and (folders[3] / "run.json").is_file():
        return _of_run(file, folders[3])
    if (file.parent / MANIFEST).is_file():
        return _of_export(file)
    return None


def _of_export(file: Path) -> Origin:
    folder, found = file.parent, read_manifest(file.parent)
    if found.files.get(file.name) != sha256_of(file):
        raise HonesError(f"{file} is not the file that was exported", do="export again, or move it out of the folder")
    return Origin(
        where=folder / MANIFEST,
        models={found.model: found.revision},
        shape=(found.layers, found.neurons_per_layer),
        task=found.task,
        method=found.method,
        settings=found.settings,
        learned_on=found.learned_on,
        tested_on=found.tested_on,
        metric=found.metric,
    )


def _of_run(file: Path, run: Path) -> Origin:
    record, stages = run / "run.json", _stages(run / "run.json")
    digest = digest_of(file)
    for stage in stages:
        for name, written in stage["artifacts"].items():
            place = PurePosixPath(name)
            if place.name == "scales.json" and written == digest:
                return _of_stage(record, run / place.parent, stage)
            if (run / place).resolve() == file.resolve():
                raise HonesError(
                    f"{file} is not the file that its run wrote: it has changed since",
                    do="steer again, or move it out of the run folder to use it without the run's figures",
                )
    inside = file.resolve().is_relative_to(run.resolve())
    if not inside:
        raise HonesError(f"{record} names no scales file like {file}", do="give the run that wrote it, or no --run")
    return Origin(record, _models(stages))


def _of_stage(record: Path, folder: Path, stage: dict[str, Any]) -> Origin:
    """The run's record of the stage that wrote `folder`/scales.json."""
    fingerprint, tested = stage["fingerprint"], _split(stage, "test", stage["fingerprint"])
    settings = {k: v for k, v in fingerprint.get("settings", {}).items() if not isinstance(v, dict | list)}
    return Origin(
        where=record,
        models=_models([stage]),
        task=folder.parent.parent.name,
        method=folder.name,
        settings=settings,
        learned_on=_split(stage, "dev", fingerprint.get("dev", {})),
        tested_on=tested,
        metric=_metric(folder / "result.json", stage),
    )


def _stages(record: Path) -> list[dict[str, Any]]:
    """Every finished stage of run.json, with fingerprint and artifacts."""
    content = read_json(record)
    stages = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(_is_stage(stage) for stage in stages.values()):
        raise HonesError(f"{record} is not a run record", expected="an object with 'stages', each with a fingerprint")
    return [{"artifacts": {}, **stage} for stage in stages.values()]


def _is_stage(stage: Any) -> bool:
    return (
        isinstance(stage, dict)
        and isinstance(stage.get("fingerprint"), dict)
        and isinstance(stage.get("artifacts", {}), dict)
    )


def _models(stages: list[dict[str, Any]]) -> dict[str, str]:
    found = (stage["fingerprint"] for stage in stages)
    return {str(f.get("model")): str(f["revision"]) for f in found if f.get("revision")}


def _split(stage: dict[str, Any], name: str, fingerprint: dict[str, Any]) -> Split | None:
    used = stage.get(name)
    if not isinstance(used, dict):
        return None
    file = used.get("file")
    digests = {key: fingerprint.get(key) for key in ("data", "asked")}
    return Split(file=None if file is None else Path(file).name, items=len(used.get("items", ())), **digests)


def _metric(file: Path, stage: dict[str, Any]) -> Metric | None:
    """The test metric; None where the run has none.

    Raises:
        HonesError: result.json has changed since the run.
    """
    if not file.is_file():
        return None
    if digest_of(file) not in stage["artifacts"].values():
        raise HonesError(f"{file} is not the file that its run wrote", do="steer again")
    found = read_result(file, SteeringResult)
    return Metric(name=found.metric_name, items=found.items, base=found.base, steered=found.steered, gain=found.gain)
