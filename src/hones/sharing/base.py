"""The base model's own files: its processor, its licence, the dtype that it is stored in."""

from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from transformers import AutoConfig
from transformers.utils import cached_file

from hones.errors import HonesError, seam
from hones.models.loading import BUILT_IN, source_of
from hones.models.merged import merged_models
from hones.models.planted import CONSTRUCTED, PLANTS
from hones.models.vlm import VLM
from hones.sharing.manifest import BaseModelFacts, Kind

PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "NOTICE.md")


def facts_of(vlm: VLM) -> BaseModelFacts:
    """What an export says of the model; of a local folder its own name, not where it lies."""
    kind = _kind(vlm)
    return BaseModelFacts(
        model=Path(vlm.name).resolve().name if kind == "folder" else vlm.name,
        kind=kind,
        revision=vlm.revision,
        commit=vlm.revision if kind == "hub" and vlm.revision != "unknown" else None,
        license=_license(vlm),
        layers=len(vlm.anatomy.layers),
        neurons_per_layer=vlm.anatomy.neurons,
        pictures=vlm.shows_pictures,
    )


def _kind(vlm: VLM) -> Kind:
    """Where the model was loaded from; memory: attached by the user."""
    if vlm.name in (*BUILT_IN, *PLANTS, *CONSTRUCTED, *merged_models()):
        return "built-in"
    if not vlm.revision:
        return "memory"
    return "folder" if Path(vlm.name).is_dir() else "hub"


def _license(vlm: VLM) -> str | None:
    """The licence that the base model's card or configuration names; of the built-in ones hones' own, or that of the
    language model which others ship; else None.
    """
    if (merged := merged_models().get(vlm.name)) is not None:
        return merged.base.license
    if _kind(vlm) == "built-in":
        return metadata("hones")["License-Expression"]
    for file in files_of(vlm, ("README.md",)):
        try:
            with seam(f"read {file}"):
                front = metadata_load(file)
        except HonesError:
            continue  # a card without readable front matter names none
        if isinstance(front, dict) and isinstance(front.get("license"), str):
            return front["license"]
    configured = getattr(vlm.model.config, "license", None)
    return configured if isinstance(configured, str) else None


def files_of(vlm: VLM, names: tuple[str, ...]) -> list[Path]:
    """Those of the named files that the base model has, in its folder or on the hub; none of an attached model."""
    if _kind(vlm) == "memory":
        return []
    options: dict[str, Any] = {
        "revision": None if vlm.revision == "unknown" else vlm.revision,  # which a folder is not asked for
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    found = [cached_file(source_of(vlm.name), name, **options) for name in names]
    return [Path(file) for file in found if file is not None]


def stored_dtype(name: str, revision: str | None) -> str:
    """The dtype of the model's files as its configuration says; "auto" where it says none or cannot be read."""
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        with seam(f"read the configuration of {name}"):
            config = AutoConfig.from_pretrained(source_of(name), **options)
    except HonesError:
        return "auto"  # loading the model, which follows, names the problem
    dtype = config.dtype or config.get_text_config().dtype
    return "auto" if dtype is None else str(dtype).removeprefix("torch.")
