"""Where a scales file comes from, and whether it is this model's.

A file in a run folder, or copied from one that is named, has a record (recorded.py); a file in an export its manifest.
A file that lies elsewhere says nothing of its model: only its layers and neurons can be checked.
"""

from dataclasses import dataclass
from pathlib import Path

from hones.errors import HonesError
from hones.files import sha256_of
from hones.method.steering.settings import Scales
from hones.models.vlm import VLM
from hones.runs.artifacts import read_scales
from hones.sharing.manifest import MANIFEST, read_manifest
from hones.sharing.recorded import Recorded, recorded_of, run_of


@dataclass(frozen=True)
class Origin:
    """The file that speaks of the scales, what it says, and the (layers, neurons) of the model where it names them."""

    where: Path
    said: Recorded
    shape: tuple[int, int] | None = None

    def check(self, vlm: VLM) -> None:
        """Raises HonesError unless this is a model that the scales were learned on."""
        models, shape = self.said.models, (len(vlm.anatomy.layers), vlm.anatomy.neurons)
        if models and vlm.revision not in models.values():
            name, revision = next(iter(models.items()))
            here = f"{vlm.name} at {vlm.revision or 'no revision'}"
            raise HonesError(
                f"{self.where} names {name} at revision {revision}, this is {here}",
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
        HonesError: `run` did not write this file, or the file has changed since it was written.
    """
    run = run_of(file) if run is None else run
    if run is not None:
        return Origin(run / "run.json", recorded_of(file, run))
    if not (file.parent / MANIFEST).is_file():
        return None
    found = read_manifest(file.parent)
    if found.files.get(file.name) != sha256_of(file):
        raise HonesError(f"{file} is not the file that was exported", do="export again, or move it out of the folder")
    names = ("task", "method", "settings", "learned_on", "tested_on", "metric", "figures")
    said = Recorded({found.model: found.revision}, **{name: getattr(found, name) for name in names})
    return Origin(file.parent / MANIFEST, said, (found.layers, found.neurons_per_layer))
