"""Files written whole or not at all (written beside, flushed, renamed), and what identifies them: digests, versions."""

import hashlib
import io
import json
import os
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from hones.errors import HonesError

_LIBRARIES = ("hones", "torch", "transformers", "tokenizers", "numpy", "pillow", "nltk", "sacrebleu", "rapidfuzz")


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    return {name: version(name) for name in _LIBRARIES}


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array atomically, never pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        HonesError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HonesError(f"no file {path}", do="run the stage that writes it first") from error
    except (ValueError, RecursionError, OSError) as error:  # also undecodable bytes, digits or brackets without end
        raise HonesError(f"{path} is not readable JSON ({error})", do="run the stage that writes it again") from error


def read_npy(path: Path) -> np.ndarray:
    """Read an array; pickled content is refused.

    Raises:
        HonesError: no such file, or not a plain array.
    """
    try:
        with warnings.catch_warnings(action="error"):
            return np.array(np.lib.format.open_memmap(path, mode="r"))  # a size that the file has not is refused
    except FileNotFoundError as error:
        raise HonesError(f"no file {path}", do="run the stage that writes it first") from error
    except (ValueError, OSError, EOFError, TypeError, OverflowError, SyntaxError, TokenError, Warning) as error:
        raise HonesError(f"{path} is not a numpy array ({error})", do="run the stage that writes it again") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; its folder is made if need be.

    Raises:
        HonesError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise HonesError(f"cannot write {path} ({error.strerror})", do="free space or choose another --out") from error


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {k: _finite(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(v) for v in content]
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content


def place_from(folder: Path, path: Path) -> str:
    """A place as given; relative ones, and those inside the folder, relative to it, so that both can move together."""
    root, full = folder.resolve(), path.resolve()
    moves_along = not path.is_absolute() or full.is_relative_to(root)
    return os.path.relpath(full, root) if moves_along else str(path)


def digest(content: bytes) -> str:
    """16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def digest_of(file: Path) -> str:
    """The `digest` of a file."""
    return digest(file.read_bytes())


def sha256_of(file: Path) -> str:
    """The whole SHA-256 of a file of any size."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def short(value: Any) -> str:
    """A value of a JSON file in at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
