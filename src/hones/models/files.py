"""Which files of a folder make the model, and whether they are what their names say.

Of a folder's files those count that transformers reads for a model of this kind: configuration, weights, tokenizer,
processor, chat template, and code where it is run. What else lies there (a README, pictures, what a training or a
desktop left, hidden files, folders) does not make the model another one.
"""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from tokenizers import __version__ as tokenizers_version

from hones.errors import HonesError, seam

SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
VOCABULARY = ("vocab*.json", "vocab*.txt", "merges*.txt", "*.model", "tokenizer.model.*", "*.spm", "*.tiktoken")
TOKENIZERS = ("tokenizer.json", "tokenizer.*.json", "tekken.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them; those behind the first are not read."""
INDEX = ".index.json"
ADAPTER = "adapter_config.json"
OF_TRAINING = (
    *("optimizer.*", "optimizer_*", "scheduler.pt", "trainer_state.json", "training_args.bin", "rng_state*"),
    *("global_step*", "zero_to_fp32.py", "latest", "pytorch_model_fsdp*", "*.ckpt", "*.distcp"),
)
"""What a training leaves beside a model, or in its place."""

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = (b"<!doctype", b"<html", b"<head>", b"<?xml")
_OLD_CHECKPOINT = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # with which torch.save began before it wrote zips


def model_files(folder: Path, code: bool = False) -> list[Path]:
    """The files that make the model, by name.

    Args:
        code: the model's own Python files are run too.
    """
    weights = _weights(folder)
    patterns = (*SETTINGS, *TOKENIZERS, *VOCABULARY, *(("*.py",) if code else ()))

    def counts(name: str) -> bool:
        return name in weights or any(fnmatch(name, pattern) for pattern in patterns)

    files = [p for p in folder.iterdir() if not p.name.startswith(".") and counts(p.name) and p.is_file()]
    return sorted(files)


def revision_of(folder: Path, more: Sequence[Path] = (), code: bool = False) -> str:
    """A digest of the files that make the model, and of more."""
    return _digest([*model_files(folder, code), *more])


def former_revision_of(folder: Path, more: Sequence[Path] = ()) -> str:
    """The digest as versions before this one took it: of every file in the folder."""
    return _digest([*sorted(p for p in folder.iterdir() if p.is_file()), *more])


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} ".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def _weights(folder: Path) -> set[str]:
    """The names of the files of weights that transformers reads, with their index where they are several."""
    named = _content(folder / "config.json").get("transformers_weights")
    first = next((name for name in (named, *WEIGHTS) if isinstance(name, str) and (folder / name).is_file()), None)
    return set() if first is None else {first, *_shards(folder / first)}


def _shards(index: Path) -> set[str]:
    """The files that an index of weights names; none for weights themselves."""
    places = _content(index).get("weight_map") if index.name.endswith(INDEX) else None
    return {str(place) for place in places.values()} if isinstance(places, dict) else set()


def _content(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, which whoever loads the model says."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def check_files(folder: Path, code: bool = False) -> None:
    """Look at the beginning of every file that makes the model, before anything is loaded.

    A pointer in place of a vocabulary or a template would be read without complaint.

    Args:
        code: the model's own Python files are run too, which may need none of the usual files.

    Raises:
        HonesError: a file is a git-lfs pointer, a web page, empty, no checkpoint or no JSON; or weights that the index
            names are not there; or the folder holds an adapter, or lacks a configuration, weights or a tokenizer. The
            line names the file.
    """
    if (folder / ADAPTER).is_file():
        base = _content(folder / ADAPTER).get("base_model_name_or_path") or "its base model"
        raise HonesError(
            f"{folder} holds an adapter of {base}, not a model",
            expected="a whole model",
            do="merge it: PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(other_folder)",
        )
    if not code:
        _check_whole(folder)
    files = model_files(folder)
    for missing in sorted(name for file in files for name in _shards(file) if not (folder / name).is_file()):
        raise HonesError(f"{folder} lacks {missing}, which its index of weights names", do="download the model again")
    for file in files:
        with file.open("rb") as opened:
            _check_begin(file, opened.read(512))
        if file.suffix == ".json" and (file.name in SETTINGS or file.name.endswith(INDEX)):
            _check_object(file)


def _check_whole(folder: Path) -> None:
    """Raises HonesError where a folder has not all of a model: what a training leaves often lacks something."""
    if not (folder / "config.json").is_file():
        below = sorted(p.parent.name for p in folder.glob("*/config.json"))
        inside = f"one of its folders: {', '.join(below[:5])}" if below else "save the model with save_pretrained"
        raise HonesError(f"{folder} has no config.json", expected="a folder that save_pretrained wrote", do=inside)
    if not _weights(folder):
        of_training = next((p.name for pattern in OF_TRAINING for p in sorted(folder.glob(pattern))), None)
        found = "" if of_training is None else f"; {of_training} is of a training, not for loading"
        raise HonesError(
            f"{folder} has no weights{found}",
            expected=" or ".join((WEIGHTS[0], WEIGHTS[2])),
            do="save the trained model with save_pretrained; parts of DeepSpeed or FSDP have to be merged first",
        )
    if not any(fnmatch(p.name, pattern) for p in folder.iterdir() for pattern in (*TOKENIZERS, *VOCABULARY)):
        raise HonesError(
            f"{folder} has no tokenizer",
            expected="tokenizer.json, or a vocabulary (vocab.json and merges.txt, tokenizer.model)",
            do="copy it from the base model, or tokenizer.save_pretrained(folder)",
        )


def _check_begin(file: Path, begin: bytes) -> None:
    """Raises HonesError where a file's first bytes are not those of its kind."""
    unread = any(fnmatch(file.name, pattern) for pattern in VOCABULARY) and (file.parent / "tokenizer.json").is_file()
    if begin.startswith(_POINTER) and not unread:
        raise HonesError(
            f"{file} is a git-lfs pointer, not the file itself",
            do="run `git lfs pull` in its folder, or download the file from the hub",
        )
    if begin.lstrip().lower().startswith(_PAGE):
        raise HonesError(f"{file} is a web page", expected="the file itself", do="download it again")
    if not begin and not fnmatch(file.name, "merges*.txt"):
        raise HonesError(f"{file} is empty", do="download the model again")
    if file.suffix == ".bin" and not begin.startswith((b"PK", _OLD_CHECKPOINT)):
        raise HonesError(
            f"{file} is no checkpoint of PyTorch",
            expected="weights that torch.save wrote",
            do="download it again, or save the model with save_pretrained",
        )


def _check_object(file: Path) -> None:
    """Raises HonesError where settings are no JSON: some that cannot be read are left out without a word."""
    with seam(f"read {file}", expected="JSON in UTF-8", do="download it again, or mend it"):
        content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or (file.name.endswith(INDEX) and not isinstance(content.get("weight_map"), dict)):
        kind = "index of weights" if file.name.endswith(INDEX) else "JSON object"
        raise HonesError(f"{file} is no {kind}", do="download it again, or mend it")


def what_is_wrong(folder: Path) -> str | None:
    """The first file that cannot be read, by name, and why; asked after loading has failed."""
    for file in model_files(folder):
        try:
            with seam(f"read {file}"):
                for read in _readers(file):
                    read(file)
        except HonesError as error:
            hint = ""
            if file.name == "tokenizer.json" and _content(file):
                newer = f"it may be of a newer version than tokenizers {tokenizers_version}"
                hint = f"; {newer}: upgrade transformers and tokenizers, or take the tokenizer as it was published"
            return f"{error}{hint}"
    return None


def _readers(file: Path) -> Iterator[Callable[[Path], object]]:
    """What tries a file, the cheapest first."""
    if file.suffix in (".json", ".jinja"):
        yield lambda path: path.read_text(encoding="utf-8")
    if file.suffix == ".json":
        yield lambda path: json.loads(path.read_bytes())
    if file.name == "tokenizer.json":
        yield lambda path: Tokenizer.from_file(str(path))
    if file.suffix == ".safetensors":
        yield _open_tensors
    if file.suffix == ".bin":
        yield _open_checkpoint


def _open_tensors(file: Path) -> None:
    with safe_open(file, "pt") as tensors:
        tensors.keys()


def _open_checkpoint(file: Path) -> None:
    """Raises ValueError unless it holds weights by name; none is read into memory where the file is a zip."""
    content = torch.load(file, map_location="meta", mmap=zipfile.is_zipfile(file), weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, not weights by name")
