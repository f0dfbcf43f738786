"""Files written whole or not at all (written beside, flushed, renamed), what identifies them (digests, versions), and
reading what users hand over: regular files only, whatever mark of its encoding a text begins with.
"""

import codecs
import hashlib
import io
import json
import os
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hones.errors import HonesError, cause, seam, shortened

_LIBRARIES = ("hones", "torch", "transformers", "tokenizers", "numpy", "pillow", "nltk", "sacrebleu", "rapidfuzz")

_LFS = b"version https://git-lfs.github.com/spec/"
_MOST_OF_A_POINTER = 1024  # bytes
_SHARED_SHOWN = 20  # characters before a difference
_MARKS = (  # UTF-32's little end begins as UTF-16's does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def cache_folder() -> Path:
    """Where what can be made again is kept: $HONES_CACHE, else hones/ in the user's cache folder."""
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HONES_CACHE") or of_user / "hones")


def versions() -> dict[str, str]:
    """The versions that a result may depend on."""
    return {name: version(name) for name in _LIBRARIES}


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode(errors="backslashreplace"))  # half a character as JSON writes it, \ud83d


def write_npy(path: Path, array: np.ndarray) -> None:
    """Write an array atomically, never pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_bytes(file: Path, do: str | None = None, *, what: str = "") -> bytes:
    """The bytes of a file that someone names.

    Args:
        what: stands before its name in a line, "the task ".

    Raises:
        HonesError: no such file, a folder, a device or a pipe (which may never end), not readable, a git-lfs pointer.
    """
    try:
        if file.exists() and not file.is_file():
            found = "a folder" if file.is_dir() else "a device, a pipe or a socket"
            raise HonesError(f"{what}{file} is {found}", expected="a file", do=do)
        content = file.read_bytes()
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or cause(error)
        raise HonesError(f"cannot read {what}{file} ({reason})", do=do) from error
    refuse_lfs_pointer(file, content)
    return content


def refuse_lfs_pointer(file: Path, content: bytes | None = None) -> None:
    """Raises HonesError for what git-lfs leaves in place of a file that was not fetched; content: where it was read."""
    if is_lfs_pointer(file, content):
        raise HonesError(
            f"{file} is a git-lfs pointer, not the file that it stands for", do="fetch the files: `git lfs pull`"
        )


def is_lfs_pointer(file: Path, content: bytes | None = None) -> bool:
    """Whether this is a git-lfs pointer: a few lines of text that name the real file's digest and size."""
    if content is None:
        try:
            if file.stat().st_size >= _MOST_OF_A_POINTER:
                return False
            with file.open("rb") as opened:
                content = opened.read(len(_LFS))
        except OSError:
            return False
    return content.startswith(_LFS)


def decoded(content: bytes) -> str:
    """The text of bytes: UTF-8, or what their byte order mark says; the mark is no part of it.

    Raises:
        ValueError: they are not that; says what to write.
    """
    mark, encoding = next((known for known in _MARKS if content.startswith(known[0])), (b"", "utf-8"))
    try:
        return content[len(mark) :].decode(encoding).lstrip("\ufeff")  # some programs write a second mark
    except UnicodeDecodeError as error:
        found = f"byte 0x{content[len(mark) + error.start]:02x} at {len(mark) + error.start:,} is not {encoding}"
        raise ValueError(f"{found}; write the text in UTF-8") from None  # its text would say the same again


def read_text(file: Path, do: str | None = None, *, what: str = "") -> str:
    """The text of a file that someone names, in UTF-8 or as its byte order mark says, which is no part of it.

    Args:
        what: as of `read_bytes`.

    Raises:
        HonesError: as `read_bytes`, or it is no such text.
    """
    content = read_bytes(file, do, what=what)
    try:
        return decoded(content)
    except ValueError as error:
        raise HonesError(f"cannot read {what}{file} ({error})", do=do) from error


class _EachKeyOnce(yaml.SafeLoader):
    """YAML takes the last of several equal keys; here that is an error, as the others would be passed over silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                found = f"{self.name}: the key {key.value} of line {seen[key.value]} stands again in line {line}"
                raise HonesError(found, expected="each key once")
            seen[key.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(file: Path, expected: str, do: str | None = None, *, what: str = "") -> dict[str, Any]:
    """The keys of a YAML file that someone names.

    Args:
        expected: what keys it has. what: as of `read_bytes`.

    Raises:
        HonesError: as `read_text`; it is no YAML, or holds no keys, or one of them twice.
    """
    text = read_text(file, do, what=what)
    tabs = any(line.lstrip(" ").startswith("\t") for line in text.splitlines())
    with seam(f"read {what}{file} as YAML", do="indent with spaces, not with tabs" if tabs else do):
        loader = _EachKeyOnce(text)
        loader.name = str(file)  # what its errors call it
        content = loader.get_single_data()
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise HonesError(f"{what}{file} {found}", expected=expected, do=do)
    return content


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        HonesError: no such file, or not JSON.
    """
    again = "run the stage that writes it again"
    if not path.exists():
        raise HonesError(f"no file {path}", do="run the stage that writes it first")
    content = read_bytes(path, again)
    try:
        return json.loads(decoded(content))
    except (ValueError, RecursionError) as error:  # also digits or brackets without end
        raise HonesError(f"{path} is not readable JSON ({cause(error)})", do=again) from error


def read_npy(path: Path) -> np.ndarray:
    """Read an array; pickled content is refused.

    Raises:
        HonesError: no such file, or not a plain array.
    """
    if not path.exists():
        raise HonesError(f"no file {path}", do="run the stage that writes it first")
    try:
        with seam(f"read {path}"), warnings.catch_warnings(action="error"):
            return np.array(np.lib.format.open_memmap(path, mode="r"))  # a size that the file has not is refused
    except HonesError as error:
        found = f"{path} is not a numpy array ({cause(error.__cause__ or error)})"
        raise HonesError(found, do="run the stage that writes it again") from error


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
    return shortened(json.dumps(value))


def short_of_two(one: Any, other: Any) -> tuple[str, str]:
    """Two values of JSON files in about 60 characters each, from shortly before the place where they differ."""
    texts = json.dumps(one), json.dumps(other)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    if shared <= _SHARED_SHOWN:
        return shortened(texts[0]), shortened(texts[1])
    start = shared - _SHARED_SHOWN
    return shortened(f"...{texts[0][start:]}"), shortened(f"...{texts[1][start:]}")
