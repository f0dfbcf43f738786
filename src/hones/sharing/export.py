"""Export: scales and a model become a folder that others load.

    DIR/  what the format needs (formats.py), scales.json, README.md (card.py), hones_export.json (manifest.py)

It is written to a hidden folder beside DIR, checked there (check.py) and renamed, so that DIR is whole or not there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast, get_args

from safetensors import SafetensorError

from hones.errors import HonesError
from hones.files import sha256_of, versions, write_bytes, write_json
from hones.method.steering.settings import Scales
from hones.models.vlm import VLM
from hones.runs.artifacts import write_scales
from hones.sharing.base import facts_of
from hones.sharing.card import card
from hones.sharing.check import check_export
from hones.sharing.formats import lora_rank, peft, scale_vectors, write_adapter, write_merged
from hones.sharing.manifest import CARD, MANIFEST, Check, Format, Manifest, Provenance, read_manifest
from hones.sharing.origin import scales_for
from hones.sharing.tables import files_table
from hones.tabular import Table, Tabular

FORMATS: tuple[str, ...] = get_args(Format)


@dataclass(frozen=True)
class Exported(Tabular):
    """A written export: its folder, what it says about itself, and the sizes of its files in bytes."""

    folder: Path
    manifest: Manifest
    sizes: dict[str, int]

    @property
    def check(self) -> Check | None:
        """How far the reloaded export is from the hooked model; None where it was not checked."""
        return self.manifest.check

    def tables(self) -> list[Table]:
        """The files with their sizes, what is scaled, and how the reloaded export compares."""
        m = self.manifest
        said = f"{m.scaled_neurons} neurons in {m.scaled_layers} layers, largest scale {m.largest_scale:+.3g}"
        if m.rank is not None:
            said += f", rank {m.rank}"
        if m.check is None:
            said += "; not checked"
        else:
            said += (
                f"; reloaded: at most {m.check.deviation:.2g} logits from the scaled model ({m.check.dtype}, allowed "
                f"{m.check.tolerance:.2g}; the scales change up to {m.check.effect:.2g})"
            )
        return [files_table(f"Export as {m.format}", self.sizes, said)]


def export_scales(
    vlm: VLM,
    scales: str | Path | Scales,
    to: str | Path,
    *,
    format: str = "merged",
    run: str | Path | None = None,
    overwrite: bool = False,
    check: bool = True,
) -> Exported:
    """Write scales and their model as a folder that other software loads.

    Args:
        scales: scales.json, or scales just learned. What a run recorded beside the file goes into the model card.
        to: the folder; new or empty.
        format: merged (a plain checkpoint), ia3 or lora (PEFT adapters), json.
        run: the run folder that wrote the file, where it was copied from there.
        overwrite: replace an earlier export in `to`.
        check: load the export again and compare its logits with the hooked model's; a merged checkpoint needs room for
            a second model.

    Raises:
        HonesError: a scales file that is none, another model's or changed since its run; a folder in use; a format that
            cannot hold the scales; an export that deviates. Nothing is left behind.
    """
    folder = Path(to)
    form = check_request(format, folder, overwrite)
    origin = None
    if isinstance(scales, Scales):
        for site in scales.values:
            vlm.anatomy.check_neuron(*site)
    else:
        scales, origin = scales_for(vlm, scales, run)
    values = scales.values
    vectors = scale_vectors(vlm, values)
    if not vectors:
        raise HonesError("every scale is 0", expected="something to export")
    base = facts_of(vlm)
    provenance = Provenance() if origin is None else origin.provenance
    with _written_beside(folder) as part:
        try:
            match form:
                case "merged":
                    write_merged(vlm, values, part)
                case "ia3" | "lora":
                    write_adapter(vlm, values, part, form, base)
                case "json":
                    rows = [{"layer": k[0], "neuron": k[1], "scale": s} for k, s in sorted(values.items())]
                    header = base.model_dump() | provenance.model_dump()
                    write_json(part / "steering.json", {**header, "scales": rows})
        except SafetensorError as error:
            raise HonesError(f"cannot write {part} ({error})", do="free space or choose another --to") from error
        write_scales(part / "scales.json", scales)
        manifest = Manifest(
            **dict(base),
            **dict(provenance),
            format=form,
            dtype=vlm.dtype if form == "merged" else "float32",
            scaled_neurons=sum(scale != 0 for scale in values.values()),
            scaled_layers=len(vectors),
            largest_scale=max(values.values(), key=abs),
            rank=lora_rank(vectors) if form == "lora" else None,
            check=check_export(vlm, values, part, form) if check else None,
            versions=versions(),
        )
        write_bytes(part / CARD, card(manifest).encode())
        manifest = manifest.model_copy(update={"files": {p.name: sha256_of(p) for p in sorted(part.iterdir())}})
        write_json(part / MANIFEST, manifest.model_dump())
        sizes = {p.name: p.stat().st_size for p in sorted(part.iterdir())}
    return Exported(folder, manifest, sizes)


def check_request(format: str, folder: Path, overwrite: bool) -> Format:
    """Before any model is loaded: a known format, its library, and a folder that is new, empty, or with `overwrite` an
    earlier export.

    Raises:
        HonesError: it is not so.
    """
    if format not in FORMATS:
        raise HonesError(f"no format {format!r}", expected=" or ".join(FORMATS))
    if format in ("ia3", "lora"):
        peft()
    if folder.is_file():
        raise HonesError(f"{folder} is a file", expected="a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise HonesError(f"{folder} is not empty", expected="a new or empty folder", do="or pass --overwrite")
        read_manifest(folder)
    return cast(Format, format)


@contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """A folder in a hidden one beside `folder` that takes its place at the end; after an error it is gone.

    Raises:
        HonesError: it cannot be written.
    """
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent) as hidden:
            new, old = Path(hidden, "new"), Path(hidden, "old")
            new.mkdir()
            yield new
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except OSError as error:
        raise HonesError(f"cannot write beside {folder} ({error.strerror})", do="choose another --to") from error
