"""The run folder: what is written, where, and atomically.

    RUN/run.json                           what ran: model, data, settings, versions, items left out, per finished stage
    RUN/T/heads.json, head_scores.npy      step 1
    RUN/T/neurons.json, neuron_importance.npy
    RUN/T/masking.json                     step 3
    RUN/T/steering/WAY/scales.json, result.json, seed-N/scales.json; RUN/T/steering/evidence.json
    RUN/analysis/analysis.json, pictures/  what the sets of the tasks share and do

A file appears whole or not at all (written beside, flushed, renamed). A stage is finished when run.json lists it,
which is written last; a rerun with the same fingerprint skips it, one with another fingerprint is refused with the
difference named.
"""

import hashlib
import io
import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from hones.errors import HonesError

_LIBRARIES = ("hones", "torch", "transformers", "tokenizers", "numpy", "pillow", "nltk", "sacrebleu", "rapidfuzz")


class RunFolder:
    """A run folder, created if need be.

    Raises:
        HonesError: it cannot be written, or its run.json is not one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise HonesError(
                f"cannot write to {path} ({why})", expected="a writable folder", do="choose another --out"
            ) from error

    def task(self, name: str) -> Path:
        """The folder of one task."""
        return self.path / name

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says; empty stages for a new run."""
        file = self.path / "run.json"
        if not file.exists():
            return {"stages": {}}
        record = read_json(file)
        if not isinstance(record, dict) or not isinstance(record.get("stages"), dict):
            raise HonesError(f"{file} is not a run record", expected="an object with 'stages'", do="use a new --out")
        stopped = record.get("stopped", {})
        if not (isinstance(stopped, dict) and all(isinstance(why, dict) for why in stopped.values())):
            raise HonesError(f"{file}: the record of stopped tasks is damaged", do="use a new --out")
        for stage, entry in record["stages"].items():
            parts = [entry.get(key, {}) for key in ("fingerprint", "artifacts")] if isinstance(entry, dict) else [None]
            if not all(isinstance(part, dict) for part in parts):
                raise HonesError(f"{file}: the record of {stage} is damaged", do="use a new --out")
        return record

    def is_finished(self, stage: str, fingerprint: Mapping[str, Any]) -> bool:
        """Whether `stage` ("vqa/heads") has finished with exactly these inputs and its artifacts are still whole.

        Raises:
            HonesError: it has finished with other inputs; the line names the first difference.
        """
        done = self.record["stages"].get(stage)
        if done is None:
            return False
        for name, digest in done.get("artifacts", {}).items():
            if not (self.path / name).is_file() or digest_of(self.path / name) != digest:
                return False
        old, new = done.get("fingerprint", {}), json.loads(json.dumps(fingerprint))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                where, was, now = _difference(key, old.get(key), new.get(key))
                raise HonesError(
                    f"{self.path} holds {stage} with {where} = {short(was)}, now {short(now)}",
                    expected="the same inputs to pick up from",
                    do="use a new --out, or --fresh to compute it again",
                )
        return True

    def forget(self, stage: str) -> None:
        """Drop a stage's record before it is computed again, so that a kill leaves no record of other artifacts."""
        with self._alone():
            record = self.record
            if record["stages"].pop(stage, None) is not None:
                write_json(self.path / "run.json", record)

    def finish(
        self, stage: str, fingerprint: Mapping[str, Any], details: Mapping[str, Any], artifacts: Sequence[Path] = ()
    ) -> None:
        """Record a finished stage with the digests of its artifacts, which must have been written before."""
        entry = {
            "fingerprint": dict(fingerprint),
            "artifacts": {str(file.relative_to(self.path)): digest_of(file) for file in artifacts},
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {**versions(), "python": platform.python_version(), "platform": platform.platform()},
            **details,
        }
        with self._alone():
            record = self.record
            record["stages"][stage] = entry
            write_json(self.path / "run.json", record)

    def stop(self, task: str, why: Mapping[str, Any] | None) -> None:
        """Record that a task has stopped, or with None that it goes on."""
        with self._alone():
            record = self.record
            stopped = {name: reason for name, reason in record.get("stopped", {}).items() if name != task}
            if why is not None:
                stopped[task] = dict(why)
            if stopped != record.get("stopped", {}):
                record["stopped"] = stopped
                write_json(self.path / "run.json", record)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two processes that finish stages of one run at the same time both leave their record."""
        try:
            with FileLock(self.path / ".run.lock", timeout=60):
                for part in self.path.glob(".run.json.*.part"):
                    part.unlink()
                yield
        except Timeout as error:
            raise HonesError(f"another process keeps {self.path / '.run.lock'}", do="wait for it to end") from error


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


def digest_of(file: Path) -> str:
    """16 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def sha256_of(file: Path) -> str:
    """The whole SHA-256 of a file of any size."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _difference(where: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The first place where two unequal values differ, dots between keys, and what they hold there."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
        return _difference(f"{where}.{key}", old.get(key), new.get(key))
    return where, old, new


def short(value: Any) -> str:
    """A value of a JSON file in at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
