"""run.json: what ran in a run folder, and the folder itself.

    RUN/run.json                           what ran: model, data, settings, versions, items left out, per finished stage
    RUN/T/heads.json, head_scores.npy      step 1
    RUN/T/neurons.json, neuron_importance.npy
    RUN/T/masking.json                     step 3
    RUN/T/steering/WAY/scales.json, result.json, seed-N/scales.json; RUN/T/steering/evidence.json
    RUN/analysis/analysis.json, pictures/  what the sets of the tasks share and do

A stage is finished when run.json lists it, which is written last; a rerun with the same fingerprint skips it, one with
another fingerprint is refused with the difference named.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hones.errors import HonesError
from hones.files import digest_of, read_json, short, versions, write_json


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


def _difference(where: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The first place where two unequal values differ, dots between keys, and what they hold there."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
        return _difference(f"{where}.{key}", old.get(key), new.get(key))
    return where, old, new
