"""What an export says about itself: hones_export.json, read again by `hones push` and where its scales are used.

The model card is written from it alone; what it says of model and scales is the header of steering.json too.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hones.errors import HonesError, from_validation
from hones.files import read_json
from hones.stats import Interval

MANIFEST = "hones_export.json"
CARD = "README.md"

Format = Literal["merged", "ia3", "lora", "json"]
Kind = Literal["hub", "built-in", "folder", "memory"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Record):
    """The items of one split: the file's name, how many were used, the digest of the data and of what was asked."""

    file: str | None
    items: int
    data: str | None = None
    asked: str | None = None


class Metric(_Record):
    """The test metric without and with the scales, and the paired gain, each with its interval at 95 %."""

    name: str
    items: int
    base: Interval
    steered: Interval
    gain: Interval


class Figure(_Record):
    """One more row of evidence, by which way to steer and on which items; means over seeds."""

    what: str
    metric: str
    items: int
    base: Interval
    steered: Interval
    gain: Interval


class Check(_Record):
    """The reloaded export beside the hooked model on probe prompts, in logits.

    deviation: largest |exported - hooked|. tolerance: what it may be. effect: largest |hooked - base|.
    largest_logit: of the hooked model, absolute. positions: how many were compared.
    """

    dtype: str
    deviation: float
    tolerance: float
    effect: float
    largest_logit: float
    positions: int


class BaseModelFacts(_Record):
    """Which model.

    model: hub id, built-in name, or the name of a local folder. kind: which of these. revision: the hub's commit, or a
    digest of the files. commit: the former alone. license: as the base model's card says. layers, neurons_per_layer:
    the model's shape. pictures: whether it takes pictures.
    """

    model: str
    kind: Kind
    revision: str
    commit: str | None
    license: str | None
    layers: int
    neurons_per_layer: int
    pictures: bool = True


class Provenance(_Record):
    """How the scales came about, as their run recorded it; None or empty where it did not.

    prompt: the words in which the model was asked, with {prompt} in the place of the prompt. figures: means over seeds,
    for other tasks, other data, other ways to steer.
    """

    task: str | None = None
    method: str | None = None
    prompt: str | None = None
    settings: dict[str, bool | int | float | str | None] = {}
    learned_on: Split | None = None
    tested_on: Split | None = None
    metric: Metric | None = None
    figures: tuple[Figure, ...] = ()


class Manifest(Provenance, BaseModelFacts):
    """A whole export: which scales of which model, and as what. files: name in the folder to SHA-256, but for this."""

    hones_export: Literal[1] = 1
    format: Format
    dtype: str
    scaled_neurons: int
    scaled_layers: int
    largest_scale: float
    rank: int | None = None
    check: Check | None = None
    versions: dict[str, str] = {}
    files: dict[str, str] = Field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export.

    Raises:
        HonesError: the folder is not one, or its manifest is not of that form.
    """
    file = folder / MANIFEST
    if not file.is_file():
        raise HonesError(f"{folder} is not an export of hones (no {MANIFEST})", do="write one with `hones export`")
    try:
        return Manifest.model_validate(read_json(file))
    except ValidationError as error:
        raise from_validation(error, str(file), do="write it again with `hones export`") from error
