"""Where a scales file comes from, and whether it is this model's.

A file in a run folder, RUN/T/steering/METHOD/[seed-N/]scales.json, or copied from one that is named: run.json lists
every stage's artifacts with their digests. The stage that wrote the file names the model, the data and the settings;
result.json beside it and RUN/T/steering/evidence.json have the figures, and are believed only if run.json knows their
digests too. A file in an export has a manifest. One that lies elsewhere says nothing of its model: only its layers and
neurons can be checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hones.errors import HonesError
from hones.files import digest_of, read_json, sha256_of
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.settings import Scales
from hones.models.vlm import VLM
from hones.runs.artifacts import read_result, read_scales
from hones.runs.record import StageRecord, UsedItems, read_record
from hones.sharing.manifest import MANIFEST, Figure, Metric, Provenance, Split, read_manifest
from hones.sweep.resume import flat


@dataclass(frozen=True)
class Origin:
    """The file that speaks of the scales, the revisions of the models that it names, and how the scales came about.

    shape: (layers, neurons) of the model, where it says so.
    """

    where: Path
    models: Mapping[str, str]
    provenance: Provenance
    shape: tuple[int, int] | None = None

    def check(self, vlm: VLM) -> None:
        """Raises HonesError unless this is a model that the scales were learned on."""
        if self.models and vlm.revision not in self.models.values():
            name, revision = next(iter(self.models.items()))
            here = f"{vlm.name} at {vlm.revision or 'no revision'}"
            raise HonesError(
                f"{self.where} names {name} at revision {revision}, this is {here}",
                expected="the model that the scales were learned on",
                do="see --model and --revision",
            )
        shape = (len(vlm.anatomy.layers), vlm.anatomy.neurons)
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
        HonesError: the file is no scales file, of another model, or names neurons that this one lacks; `run` did not
            write it, or it has changed since it was written.
    """
    file = Path(file)
    scales = read_scales(file)
    run = run_of(file) if run is None else Path(run)
    origin = None
    if run is not None:
        origin = _of_run(file, run)
    elif (file.parent / MANIFEST).is_file():
        origin = _of_export(file)
    if origin is not None:
        origin.check(vlm)
    try:
        for site in scales.values:
            vlm.anatomy.check_neuron(*site)
    except HonesError as error:
        raise HonesError(f"{file}: {error}") from error
    return scales, origin


def run_of(file: Path) -> Path | None:
    """The run folder that a scales file lies in."""
    for folder in file.resolve().parents:
        if folder.name == "steering" and (folder.parent.parent / "run.json").is_file():
            return folder.parent.parent
    return None


def _of_export(file: Path) -> Origin:
    manifest = read_manifest(file.parent)
    if manifest.files.get(file.name) != sha256_of(file):
        raise HonesError(f"{file} is not the file that was exported", do="export again, or move it out of the folder")
    provenance = Provenance(**{name: getattr(manifest, name) for name in Provenance.model_fields})
    shape = (manifest.layers, manifest.neurons_per_layer)
    return Origin(file.parent / MANIFEST, {manifest.model: manifest.revision}, provenance, shape)


def _of_run(file: Path, run: Path) -> Origin:
    stages = [*read_record(run / "run.json").stages.values()]
    place = _place(file, run, stages)
    if place is None:
        raise HonesError(f"{run} wrote no scales file like {file}", do="give the run that wrote it, or no --run")
    learned = [stage for stage in stages if str(place) in stage.artifacts]
    if any(stage.artifacts[str(place)] != digest_of(file) for stage in learned):
        raise HonesError(
            f"{file} is not the file that its run wrote: it has changed since",
            do="steer again, or move it out of the run folder to use it without the run's figures",
        )
    facts: dict[str, Any] = {"task": place.parts[0], "method": place.parts[2]}
    if learned:
        inputs = learned[0].fingerprint
        settings = flat(inputs.get("settings", {}))
        facts["settings"] = {name: value for name, value in settings.items() if not isinstance(value, list)}
        facts["learned_on"] = _split(learned[0].dev, inputs.get("dev") or inputs)
    result = place.with_name("result.json")
    tested = _writer(result, run, stages)
    if tested is not None:
        said = read_result(run / result, SteeringResult)
        facts["tested_on"] = _split(tested.test, tested.fingerprint)
        facts["metric"] = Metric(
            name=said.metric_name, items=said.items, base=said.base, steered=said.steered, gain=said.gain
        )
    evidence = Path(place.parts[0], "steering", "evidence.json")
    if _writer(evidence, run, stages) is not None:
        facts["figures"] = _figures(run / evidence, place.parts[2])
    inputs_of = [stage.fingerprint for stage in learned or stages]
    models = {str(inputs.get("model")): str(inputs["revision"]) for inputs in inputs_of if inputs.get("revision")}
    return Origin(run / "run.json", models, Provenance(**facts))


def _place(file: Path, run: Path, stages: Sequence[StageRecord]) -> Path | None:
    """T/steering/METHOD/[seed-N/]scales.json of the file, or of the one in the run that it is a copy of."""
    if file.resolve().is_relative_to(run.resolve()):
        inside = file.resolve().relative_to(run.resolve())
        return inside if len(inside.parts) > 3 else None
    digest = digest_of(file)
    places = (Path(name) for stage in stages for name, of in stage.artifacts.items() if of == digest)
    return next((place for place in places if place.name == "scales.json" and len(place.parts) > 3), None)


def _writer(place: Path, run: Path, stages: Sequence[StageRecord]) -> StageRecord | None:
    """The stage that wrote a file of the run; None where there is no such file.

    Raises:
        HonesError: the file is not the one that a stage recorded.
    """
    if not (run / place).is_file():
        return None
    digest = digest_of(run / place)
    for stage in stages:
        if stage.artifacts.get(str(place)) == digest:
            return stage
    raise HonesError(f"{run / place} is not the file that its run wrote", do="steer again")


def _split(used: UsedItems | None, inputs: Mapping[str, Any]) -> Split | None:
    if used is None:
        return None
    file = None if used.file is None else Path(used.file).name
    return Split(file=file, items=len(used.items), data=inputs.get("data"), asked=inputs.get("asked"))


def _figures(evidence: Path, method: str) -> list[Figure]:
    """The rows of evidence.json: every way to steer; of its first way, which is HONES, also the other tasks.

    Raises:
        HonesError: it is not of that form.
    """
    content = read_json(evidence)
    try:
        figures = _of_ways(content["test"], "test items")
        if content.get("out_of_domain") is not None:
            figures += _of_ways(content["out_of_domain"], "out of domain")
        first = content["test"]["methods"][0]["method"]
        if first.replace(":", "-") == method:
            rows = content.get("elsewhere", ())
            figures += [_figure(f"{row['task']} items", row, row["steered"], row["change"]) for row in rows]
    except (KeyError, IndexError, TypeError, AttributeError, ValidationError) as error:
        raise HonesError(f"{evidence} is not an evidence file ({type(error).__name__})", do="steer again") from error
    return figures


def _of_ways(tested: Mapping[str, Any], where: str) -> list[Figure]:
    """One per way to steer on one file."""
    return [_figure(f"{row['method']}, {where}", tested, row["steered"], row["gain"]) for row in tested["methods"]]


def _figure(what: str, measured: Mapping[str, Any], steered: Any, gain: Any) -> Figure:
    shared = {"metric": measured["metric_name"], "items": measured["items"], "base": measured["base"]}
    return Figure(what=what, steered=steered, gain=gain, **shared)
