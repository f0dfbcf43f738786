"""What a model's name says before anything is loaded: whether its folder is there, and how many heads it has."""

from pathlib import Path
from typing import Any

from hones.errors import HonesError
from hones.files import cache_folder, read_json
from hones.models.merged import Merged, merged_models

BUILT_IN_FOLDER = Path(__file__).parent / "tiny"
MIXERS = ("conv", "linear", "lru", "mamba", "ssm")  # in what settings of other layers than attention are called
WITH_PICTURES = ("tiny-llava", "tiny-qwen2.5-vl")
WITHOUT_PICTURES = ("tiny-text",)
BUILT_IN = (*WITH_PICTURES, *WITHOUT_PICTURES)


def check_place(name: str) -> None:
    """Whether a name that can only be a folder is one; a hub id is OWNER/NAME.

    Raises:
        HonesError: there is no such folder, or the name is of a built-in model that has to be got first.
    """
    folder_of(name)
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")
    if is_path and not Path(name).is_dir():
        raise HonesError(
            f"no folder {name}", expected=f"a folder with a model, a hub id OWNER/NAME, or {' or '.join(BUILT_IN)}"
        )


def merged_place(model: Merged) -> Path:
    """Where `hones models get` keeps a model."""
    return cache_folder() / "models" / model.key


def folder_of(name: str) -> Path | None:
    """The folder of a built-in model; None for other names.

    Raises:
        HonesError: it has to be got first.
    """
    if name in BUILT_IN:
        return BUILT_IN_FOLDER / name
    merged = merged_models().get(name)
    if merged is None:
        return None
    folder = merged_place(merged)
    if not folder.is_dir():
        raise HonesError(f"{name} is not on this machine", do=f"hones models get {name}")
    return folder


def heads_by_config(name: str) -> int | None:
    """How many heads the decoder of a built-in or local model has, as its config.json says; None: it does not.

    It does not where layers may mix positions otherwise than by attention.
    """
    try:
        file = (folder_of(name) or Path(name)) / "config.json"
        content: Any = read_json(file)
        content = content.get("text_config", content)
        if any(word in key for word in MIXERS for key in content):
            return None
        return int(content["num_hidden_layers"]) * int(content["num_attention_heads"])
    except (HonesError, AttributeError, KeyError, TypeError, ValueError):
        return None  # whoever loads the model says what is wrong with the file
