"""Where a scales file comes from, and whether it is this model's.

A file in a run folder, RUN/T/steering/METHOD/[seed-N/]scales.json, or copied from one that is named: run.json lists
every stage's artifacts with their digests. The stage that wrote the file names the model, the data and the settings;
result.json beside it and RUN/T/steering/evidence.json have the figures, and are believed only if run.json knows their
digests too. A file in an export has a manifest. One that lies elsewhere says nothing of its model: only its layers and
neurons can be checked.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hones.errors import HonesError, HonesWarning, first_invalid
from hones.files import digest_of, read_json, sha256_of, short_of_two
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.results import Elsewhere, Evidence, Tested
from hones.method.steering.settings import HONES, Scales
from hones.models.vlm import VLM
from hones.runs.artifacts import read_result, read_scales
from hones.runs.found_on import check_model
from hones.runs.record import StageRecord, UsedItems, read_record
from hones.sharing.manifest import MANIFEST, Figure, Metric, Provenance, Split, read_manifest
from hones.stats import Interval
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
        """Raises HonesError unless this is a model that the scales were learned on; warns if it is asked otherwise."""
        check_model(vlm, self.where, self.models, "scales were learned on")
        shape = (len(vlm.anatomy.layers), vlm.anatomy.neurons)
        if self.shape is not None and shape != self.shape:
            raise HonesError(
                f"{self.where} names a model of {self.shape[0]} layers of {self.shape[1]} neurons",
                expected=f"{shape[0]} of {shape[1]} as {vlm.name} has",
            )
        if self.provenance.prompt not in (None, vlm.conventions.prompt):
            learned, now = short_of_two(self.provenance.prompt, vlm.conventions.prompt)
            words = f"{self.where}: these scales were learned on prompts as {learned}, {vlm.name} is asked as {now}"
            warnings.warn(f"{words}; see --chat-template", HonesWarning, stacklevel=3)


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
    artifacts = [(Path(name), digest, stage) for stage in stages for name, digest in stage.artifacts.items()]

    def writer(place: Path, digest: str) -> StageRecord | None:
        """The stage that wrote this content to a file of the run."""
        return next((stage for name, of, stage in artifacts if (name, of) == (place, digest)), None)

    def writer_of_result(place: Path) -> StageRecord | None:
        """The stage that wrote a file of the run as it is now; None where there is no such file."""
        if not (run / place).is_file():
            return None
        if (stage := writer(place, digest_of(run / place))) is None:
            raise HonesError(f"{run / place} is not the file that its run wrote", do="steer again")
        return stage

    digest = digest_of(file)
    if file.resolve().is_relative_to(run.resolve()):
        places = [file.resolve().relative_to(run.resolve())]
    else:
        places = [name for name, of, _ in artifacts if of == digest and name.name == "scales.json"]
    place = next((place for place in places if len(place.parts) > 3), None)
    if place is None:
        raise HonesError(f"{run} wrote no scales file like {file}", do="give the run that wrote it, or no --run")
    learned = writer(place, digest)
    if learned is None and any(name == place for name, *_ in artifacts):
        raise HonesError(
            f"{file} is not the file that its run wrote: it has changed since",
            do="steer again, or move it out of the run folder to use it without the run's figures",
        )
    task, _, method, *_ = place.parts
    facts: dict[str, Any] = {"task": task, "method": method}
    if learned is not None:
        inputs = learned.fingerprint
        settings = flat(inputs.get("settings", {}))
        facts["settings"] = {name: value for name, value in settings.items() if not isinstance(value, list)}
        facts["prompt"] = inputs.get("template")
        facts["learned_on"] = _split(learned.dev, inputs.get("dev") or inputs)
    result = place.with_name("result.json")
    tested = writer_of_result(result)
    if tested is not None:
        said = read_result(run / result, SteeringResult)
        facts["tested_on"] = _split(tested.test, tested.fingerprint)
        measured = {"base": said.base, "steered": said.steered, "gain": said.gain}
        facts["metric"] = Metric(name=said.metric_name, items=said.items, **measured)
    evidence = Path(task, "steering", "evidence.json")
    if writer_of_result(evidence) is not None:
        facts["figures"] = _figures(run / evidence, method)
    fingerprints = [stage.fingerprint for stage in (stages if learned is None else [learned])]
    models = {str(inputs.get("model")): str(inputs["revision"]) for inputs in fingerprints if inputs.get("revision")}
    return Origin(run / "run.json", models, Provenance(**facts))


def _split(used: UsedItems | None, inputs: Mapping[str, Any]) -> Split | None:
    if used is None:
        return None
    file = None if used.file is None else Path(used.file).name
    return Split(file=file, items=len(used.items), data=inputs.get("data"), asked=inputs.get("asked"))


def _figures(file: Path, method: str) -> list[Figure]:
    """The rows of evidence.json: every way to steer; for scales of HONES also the other tasks."""
    try:
        evidence = TypeAdapter(Evidence).validate_python(read_json(file))
    except ValidationError as error:
        raise HonesError(f"{file} is not an evidence file ({first_invalid(error)})", do="steer again") from error
    rows: list[tuple[str, Tested | Elsewhere, Interval, Interval]] = [
        (f"{way.method}, {where}", tested, way.steered, way.gain)
        for where, tested in (("test items", evidence.test), ("out of domain", evidence.out_of_domain))
        if tested is not None
        for way in tested.methods
    ]
    if method == HONES:
        rows += [(f"{other.task} items", other, other.steered, other.change) for other in evidence.elsewhere]
    return [
        Figure(what=what, metric=of.metric_name, items=of.items, base=of.base, steered=steered, gain=gain)
        for what, of, steered, gain in rows
    ]
