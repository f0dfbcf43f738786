"""Whose heads and neurons a file holds: the name and revision of the model that they were found on.

heads.json has them as two keys, neurons.json in every row, so that a file that is copied alone, cut or put together
still says them. The revision decides, a commit of the hub or a digest of the local files: the same files in another
folder are the same model. A file without them, of the public release or of an older version, fits any model that has
its heads and neurons.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import read_json
from hones.models.vlm import VLM
from hones.runs.former import is_revision


def found_on(vlm: VLM) -> dict[str, str]:
    """What heads.json and the rows of neurons.json say of the model; of a local folder its own name, not its place."""
    folder = Path(vlm.name)
    name = folder.resolve().name if folder.is_dir() else vlm.name
    return {"model": name, "revision": vlm.revision}


def check_found_on(vlm: VLM, file: Path) -> None:
    """Raises HonesError unless a heads or neurons file is of this model, or does not say whose it is."""
    content = read_json(file)
    for row in content if isinstance(content, list) else [content]:
        check_model(vlm, file, named(row, file), "heads and neurons were found on")


def named(row: Any, where: Path) -> dict[str, str]:
    """The revision by the name of the model that a row or file names; empty where it says none.

    Raises:
        HonesError: it is no text.
    """
    if not isinstance(row, dict) or not row.get("revision"):
        return {}
    revision, model = row["revision"], row.get("model", "a model")
    if not (isinstance(revision, str) and isinstance(model, str)):
        raise HonesError(f"{where} names no model and revision", expected="texts, or neither")
    return {model: revision}


def check_model(vlm: VLM, where: Path, models: Mapping[str, str], what: str) -> None:
    """Raises HonesError where revisions are named and this model's is none of them."""
    if models and not any(is_revision(vlm, revision) for revision in models.values()):
        name, revision = next(iter(models.items()))
        raise HonesError(
            f"{where} names {name} at revision {revision}, this is {vlm.name} at {vlm.revision or 'no revision'}",
            expected=f"the model that the {what}",
            do="see --model and --revision",
        )
