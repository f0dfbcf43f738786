"""What ran: the model, the data, the items used and left out, versions and times, as run.json says."""

from dataclasses import dataclass
from typing import Any

from hones.runs.record import StageRecord, UsedItems
from hones.runs.results import RunResults
from hones.views.sheet import Sheet

_MODEL = {
    "model": "model",
    "revision": "revision",
    "dtype": "dtype",
    "image_backend": "image backend",
    "yes_no_ids": "Yes and No ids",
    "seed": "seed",
}


@dataclass(frozen=True)
class Provenance:
    """facts: name and value. used: where, and the ids of the items. stages, left_out: tables."""

    facts: list[tuple[str, str]]
    used: list[tuple[str, int, str]]
    stages: Sheet
    left_out: Sheet


def provenance(results: RunResults) -> Provenance:
    """Everything run.json records, for reading."""
    stages = results.record.stages
    facts = {name: _unique(s.fingerprint.get(key) for s in stages.values()) for key, name in _MODEL.items()}
    facts["device"] = _unique(s.device for s in stages.values())
    facts["finished"] = max((s.finished for s in stages.values()), default="")
    names = sorted({name for s in stages.values() for name in s.versions})
    facts["versions"] = ", ".join(f"{name} {_unique(s.versions.get(name) for s in stages.values())}" for name in names)
    rows = tuple(_stage_row(name, stage) for name, stage in stages.items())
    splits = [(f"{name}, {split}", used) for name, stage in stages.items() for split, used in stage.splits.items()]
    left_out = tuple((where, item.id, item.reason) for where, used in splits for item in used.left_out)
    return Provenance(
        [(name, value) for name, value in facts.items() if value],
        _used(splits),
        Sheet(
            "stages", "Finished stages", ("stage", "items", "left out", "seconds", "device", "data", "settings"), rows
        ),
        Sheet("left-out", "Items left out, and why", ("stage", "item", "reason"), left_out),
    )


def _stage_row(name: str, stage: StageRecord) -> tuple[str | int | float | None, ...]:
    splits = stage.splits.values()
    inputs = {k: v for k, v in stage.fingerprint.items() if k not in (*_MODEL, "data", "asked")}
    return (
        name,
        sum(len(used.items) for used in splits),
        sum(len(used.left_out) for used in splits),
        stage.seconds,
        stage.device,
        str(stage.fingerprint.get("data", ""))[:16],
        ", ".join(f"{k} {_short(v)}" for k, v in inputs.items()),
    )


def _used(splits: list[tuple[str, UsedItems]]) -> list[tuple[str, int, str]]:
    """The ids of every set of items, each set once with all the stages that used it."""
    stages_of: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for where, used in splits:
        ids = ", ".join(used.items)
        stages_of.setdefault(ids, []).append(where)
        sizes[ids] = len(used.items)
    return [("; ".join(where), sizes[ids], ids) for ids, where in stages_of.items()]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + "}"
    return value[:16] if isinstance(value, str) and len(value) == 64 else str(value)


def _unique(values: Any) -> str:
    return ", ".join({str(value): None for value in values if value is not None})
