"""run.json: what ran in a run folder, and the folder itself.

    RUN/run.json                           what ran: model, data, settings, versions, items left out, per finished stage
    RUN/T/heads.json, head_scores.npy      step 1
    RUN/T/neurons.json, neuron_importance.npy
    RUN/T/masking.json, keep.json          step 3, and the other way round
    RUN/T/steering/WAY/scales.json, result.json, seed-N/scales.json; RUN/T/steering/evidence.json
    RUN/T/comparison.json, both.json       methods: masked, and kept alone
    RUN/analysis/analysis.json, pictures/  what the sets of the tasks share and do

A stage is finished when run.json lists it, which is written last; a rerun with the same fingerprint skips it, one with
another fingerprint is refused with the difference named.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError

from hones.errors import HonesError, first_invalid
from hones.files import digest_of, read_json, short_of_two, versions, write_json
from hones.method.budget import AUTO
from hones.tasks.base import Definition

# pydantic refuses strings with lone surrogates, which a name taken from a file system may hold
Text = InstanceOf[str]


class UnusedItem(BaseModel):
    """An item that was left out, and why; kind: the reason without what is particular to this item."""

    id: Text
    reason: Text
    kind: Text = ""


class UsedItems(BaseModel):
    """The items of one split that a stage used. file, images: where they are, seen from the run folder.

    candidates: of retrieval. task: of a custom task.
    """

    items: list[Text] = []
    left_out: list[UnusedItem] = []
    file: Text | None = None
    images: Text = "."
    candidates: int | None = None
    task: Definition | None = None


class StageRecord(BaseModel):
    """A finished stage. fingerprint: all that its result depends on. artifacts: digests of the files that it wrote.

    epoch: of early stopping, whose scales were kept.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    fingerprint: dict[Text, Any] = {}
    artifacts: dict[Text, Text] = {}
    finished: Text = ""
    versions: dict[Text, Text] = {}
    seconds: float | None = None
    device: Text | None = None
    discovery: UsedItems | None = None
    dev: UsedItems | None = None
    test: UsedItems | None = None
    ood: UsedItems | None = None
    epoch: int | None = None

    @property
    def more(self) -> dict[str, Any]:
        """What else the stage has recorded, such as workers, losses, budget."""
        return self.model_extra or {}

    @property
    def splits(self) -> dict[str, UsedItems]:
        """The items that it used, by split."""
        of_split = {"discovery": self.discovery, "dev": self.dev, "test": self.test, "ood": self.ood}
        return {name: used for name, used in of_split.items() if used is not None}


class RunRecord(BaseModel):
    """run.json: the finished stages in the order in which they finished, and the tasks that could not go on."""

    stages: dict[Text, StageRecord]
    stopped: dict[Text, dict[Text, Any]] = {}

    def ratio_of(self, task: str) -> float | None:
        """The share of all neurons that `hones neurons` selected for a task; None where that has not finished."""
        stage = self.stages.get(f"{task}/neurons")
        ratio = None if stage is None else stage.fingerprint.get("ratio")
        if stage is not None and ratio == AUTO:
            ratio = stage.more.get(AUTO, {}).get("ratio")
        return float(ratio) if isinstance(ratio, int | float) else None


def read_record(file: Path) -> RunRecord:
    """What a run.json says.

    Raises:
        HonesError: no such file, or not of that form.
    """
    return _validated(file, read_json(file))


def _validated(file: Path, content: Any) -> RunRecord:
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        part, *inside = first_invalid(error).where or ("",)
    if part == "stopped":
        raise HonesError(f"{file}: the record of stopped tasks is damaged", do="use a new --out")
    if part == "stages" and inside:
        raise HonesError(f"{file}: the record of {inside[0]} is damaged", do="use a new --out")
    raise HonesError(f"{file} is not a run record", expected="an object with 'stages'", do="use a new --out")


class RunFolder:
    """A run folder, created if need be.

    Raises:
        HonesError: it cannot be written, or its run.json is not one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.file = path / "run.json"
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

    @property
    def record(self) -> RunRecord:
        """What run.json says; no stages for a new run."""
        return read_record(self.file) if self.file.exists() else RunRecord(stages={})

    def is_finished(
        self, stage: str, fingerprint: Mapping[str, Any], asked: Mapping[str, Sequence[str]] | None = None
    ) -> bool:
        """Whether `stage` ("vqa/heads") has finished with exactly these inputs and its artifacts are still whole.

        Args:
            asked: the items behind each digest of the fingerprint, by which other items are said in words.

        Raises:
            HonesError: it has finished with other inputs; the line names the first difference.
        """
        done = self.record.stages.get(stage)
        if done is None:
            return False
        for name, digest in done.artifacts.items():
            if not (self.path / name).is_file() or digest_of(self.path / name) != digest:
                return False
        old = done.fingerprint
        new = json.loads(json.dumps(fingerprint))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                where, was, now = _difference(key, old.get(key), new.get(key))
                before, after = _items_of(done, where), (asked or {}).get(str(now), [])
                differs = "with {} = {}, now {}".format(where, *short_of_two(was, now))
                if before and after and before != after:
                    differs = f"computed {_counted(before, after)}, now {_counted(after, before)}"
                raise HonesError(
                    f"{self.path} holds {stage} {differs}",
                    expected="the same inputs to pick up from",
                    do="use a new --out, or --fresh to compute it again",
                )
        return True

    def forget(self, stage: str) -> None:
        """Drop a stage's record before it is computed again, so that a kill leaves no record of other artifacts."""
        with self._changing() as content:
            content["stages"].pop(stage, None)

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
        with self._changing() as content:
            content["stages"][stage] = entry

    def stop(self, task: str, why: Mapping[str, Any] | None) -> None:
        """Record that a task has stopped, or with None that it goes on."""
        with self._changing() as content:
            stopped = {name: reason for name, reason in content.get("stopped", {}).items() if name != task}
            if why is not None:
                stopped[task] = dict(why)
            if stopped or "stopped" in content:
                content["stopped"] = stopped

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """run.json to be changed, with what other versions have put there; written if it was.

        Two processes that finish stages of one run at the same time both leave their record.
        """
        try:
            with FileLock(self.path / ".run.lock", timeout=60):
                for part in self.path.glob(".run.json.*.part"):
                    part.unlink()
                content = read_json(self.file) if self.file.exists() else {"stages": {}}
                _validated(self.file, content)
                before = deepcopy(content)
                yield content
                if content != before:
                    write_json(self.file, content)
        except Timeout as error:
            raise HonesError(f"another process keeps {self.path / '.run.lock'}", do="wait for it to end") from error


def _items_of(done: StageRecord, where: str) -> Sequence[str]:
    """The items that a stage has asked about, where its fingerprint has their digest; else none.

    A split of a name of its own (dev.asked) is that one, `asked` that which the stage was tested on, or worked on.
    """
    split, _, key = where.rpartition(".")
    own = next((done.splits[name] for name in ("test", "discovery", "dev") if name in done.splits), None)
    used = done.splits.get(split) if split else own
    return [] if key != "asked" or used is None else used.items


def _counted(items: Sequence[str], others: Sequence[str]) -> str:
    """How many items; those with which the others begin are what a --limit leaves."""
    limited = len(items) < len(others) and [*others[: len(items)]] == [*items]
    return f"with --limit {len(items)} ({len(items)} items)" if limited else f"on {len(items)} items"


def _difference(where: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The first place where two unequal values differ, dots between keys, and what they hold there."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
        return _difference(f"{where}.{key}", old.get(key), new.get(key))
    return where, old, new
