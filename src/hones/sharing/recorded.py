"""What a run folder records of a scales file, RUN/T/steering/METHOD/[seed-N/]scales.json.

run.json lists every stage's artifacts with their digests. The stage that wrote the file names the model, the data and
the settings; result.json beside it and RUN/T/steering/evidence.json have the figures, and are believed only if run.json
knows their digests too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hones.errors import HonesError
from hones.files import digest_of, read_json
from hones.method.steering.evaluate import SteeringResult
from hones.runs.artifacts import read_result
from hones.runs.record import StageRecord, UsedItems, read_record
from hones.sharing.manifest import Figure, Metric, Split
from hones.sweep.journal import flat

Settings = dict[str, bool | int | float | str | None]


@dataclass(frozen=True)
class Recorded:
    """models: the revisions of the models that the run used, by their names. The rest: None or empty where not said.

    figures: from evidence.json, means over seeds: other tasks, other data, other ways to steer.
    """

    models: dict[str, str]
    task: str | None = None
    method: str | None = None
    settings: Settings | None = None
    learned_on: Split | None = None
    tested_on: Split | None = None
    metric: Metric | None = None
    figures: tuple[Figure, ...] = ()


def run_of(file: Path) -> Path | None:
    """The run folder that a scales file lies in."""
    for folder in file.resolve().parents:
        if folder.name == "steering" and (folder.parent.parent / "run.json").is_file():
            return folder.parent.parent
    return None


def recorded_of(file: Path, run: Path) -> Recorded:
    """What the run says of the file, which lies in it or was copied from it.

    Raises:
        HonesError: the run did not write this file, or it, its result or the evidence has changed since.
    """
    stages = read_record(run / "run.json").stages
    place = _place(file, run, stages)
    if place is None:
        raise HonesError(f"{run} wrote no scales file like {file}", do="give the run that wrote it, or no --run")
    written = [stage for stage in stages.values() if str(place) in stage.artifacts]
    if any(stage.artifacts[str(place)] != digest_of(file) for stage in written):
        raise HonesError(
            f"{file} is not the file that its run wrote: it has changed since",
            do="steer again, or move it out of the run folder to use it without the run's figures",
        )
    task, method = place.parts[0], place.parts[2]
    result, evidence = place.with_name("result.json"), Path(task, "steering", "evidence.json")
    tested = _stage_of(result, run, stages)
    found = None if tested is None else read_result(run / result, SteeringResult)
    learned = {"dev": {}, **written[0].fingerprint} if written else {}
    return Recorded(
        models=_models(written or [*stages.values()]),
        task=task,
        method=method,
        settings={k: v for k, v in flat(learned.get("settings", {})).items() if not isinstance(v, list)},
        learned_on=_split(written[0].dev, learned["dev"] or learned) if written else None,
        tested_on=None if tested is None else _split(tested.test, tested.fingerprint),
        metric=None if found is None else _metric(found),
        figures=() if _stage_of(evidence, run, stages) is None else evidence_figures(run / evidence, method),
    )


def evidence_figures(file: Path, method: str) -> tuple[Figure, ...]:
    """The rows of evidence.json: every way to steer; of its first way, which is HONES, also the other tasks.

    Raises:
        HonesError: it is not of that form.
    """
    content = read_json(file)
    try:
        figures = _tested(content["test"], "test items")
        if content.get("out_of_domain") is not None:
            figures += _tested(content["out_of_domain"], "out of domain")
        own = content["test"]["methods"][0]["method"]
        for row in content.get("elsewhere", ()) if _folder(own) == method else ():
            kept = {key: row[key] for key in ("items", "base", "steered")}
            figures.append(Figure(what=f"{row['task']} items", metric=row["metric_name"], gain=row["change"], **kept))
    except (KeyError, IndexError, TypeError, AttributeError, ValidationError) as error:
        raise HonesError(f"{file} is not an evidence file ({type(error).__name__})", do="steer again") from error
    return tuple(figures)


def _tested(tested: dict[str, Any], where: str) -> list[Figure]:
    """A row per way to steer on one file."""
    shared = {"metric": tested["metric_name"], "items": tested["items"], "base": tested["base"]}
    return [
        Figure(what=f"{row['method']}, {where}", steered=row["steered"], gain=row["gain"], **shared)
        for row in tested["methods"]
    ]


def _folder(method: str) -> str:
    """The folder of a method: its name with a dash for the colon."""
    return method.replace(":", "-")


def _place(file: Path, run: Path, stages: dict[str, StageRecord]) -> Path | None:
    """T/steering/METHOD/[seed-N/]scales.json of the file, or of the one in the run that it is a copy of."""
    if file.resolve().is_relative_to(run.resolve()):
        inside = file.resolve().relative_to(run.resolve())
        return inside if len(inside.parts) > 3 else None
    digest = digest_of(file)
    places = (Path(name) for stage in stages.values() for name, of in stage.artifacts.items() if of == digest)
    return next((place for place in places if place.name == "scales.json" and len(place.parts) > 3), None)


def _stage_of(place: Path, run: Path, stages: dict[str, StageRecord]) -> StageRecord | None:
    """The stage that recorded a file; None where there is no such file.

    Raises:
        HonesError: the file is not the one that a stage recorded.
    """
    if not (run / place).is_file():
        return None
    digest = digest_of(run / place)
    for stage in stages.values():
        if stage.artifacts.get(str(place)) == digest:
            return stage
    raise HonesError(f"{run / place} is not the file that its run wrote", do="steer again")


def _models(stages: list[StageRecord]) -> dict[str, str]:
    found = (stage.fingerprint for stage in stages)
    return {str(f.get("model")): str(f["revision"]) for f in found if f.get("revision")}


def _split(used: UsedItems | None, fingerprint: dict[str, Any]) -> Split | None:
    if used is None:
        return None
    digests = {key: fingerprint.get(key) for key in ("data", "asked")}
    return Split(file=None if used.file is None else Path(used.file).name, items=len(used.items), **digests)


def _metric(found: SteeringResult) -> Metric:
    return Metric(name=found.metric_name, items=found.items, base=found.base, steered=found.steered, gain=found.gain)
