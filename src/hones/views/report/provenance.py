"""What ran: the model, the data, the items used and left out, versions and times, as run.json says."""

from dataclasses import dataclass
from typing import Any

from hones.runs.results import RunResults
from hones.views.table import Table

_MODEL = {
    "model": "model",
    "revision": "revision",
    "dtype": "dtype",
    "image_backend": "image backend",
    "yes_no_ids": "Yes and No ids",
    "seed": "seed",
}
_SPLITS = ("discovery", "dev", "test", "ood")


@dataclass(frozen=True)
class Provenance:
    """facts: name and value. used: where, and the ids of the items. stages, left_out: tables."""

    facts: list[tuple[str, str]]
    used: list[tuple[str, int, str]]
    stages: Table
    left_out: Table


def provenance(results: RunResults) -> Provenance:
    """Everything run.json records, for reading."""
    stages = results.stages
    facts = {name: _values(stages, "fingerprint", key) for key, name in _MODEL.items()}
    facts["device"] = _unique(s.get("device") for s in stages.values())
    facts["finished"] = max((str(s["finished"]) for s in stages.values() if "finished" in s), default="")
    names = sorted({name for s in stages.values() for name in s.get("versions", {})})
    facts["versions"] = ", ".join(f"{name} {_values(stages, 'versions', name)}" for name in names)
    rows = tuple(_stage_row(name, stage) for name, stage in stages.items())
    splits = [
        (f"{name}, {split}", stage[split]) for name, stage in stages.items() for split in _SPLITS if split in stage
    ]
    left_out = tuple(
        (where, str(item["id"]), str(item["reason"])) for where, split in splits for item in split["left_out"]
    )
    return Provenance(
        [(name, value) for name, value in facts.items() if value],
        _used(splits),
        Table(
            "stages", "Finished stages", ("stage", "items", "left out", "seconds", "device", "data", "settings"), rows
        ),
        Table("left-out", "Items left out, and why", ("stage", "item", "reason"), left_out),
    )


def _stage_row(name: str, stage: dict[str, Any]) -> tuple[str | int | float | None, ...]:
    splits = [stage[split] for split in _SPLITS if split in stage]
    inputs = {k: v for k, v in stage.get("fingerprint", {}).items() if k not in (*_MODEL, "data", "asked")}
    return (
        name,
        sum(len(split["items"]) for split in splits),
        sum(len(split["left_out"]) for split in splits),
        stage.get("seconds"),
        stage.get("device"),
        str(stage.get("fingerprint", {}).get("data", ""))[:16],
        ", ".join(f"{k} {_short(v)}" for k, v in inputs.items()),
    )


def _used(splits: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, int, str]]:
    """The ids of every set of items, each set once with all the stages that used it."""
    stages_of: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for where, split in splits:
        ids = ", ".join(map(str, split["items"]))
        stages_of.setdefault(ids, []).append(where)
        sizes[ids] = len(split["items"])
    return [("; ".join(where), sizes[ids], ids) for ids, where in stages_of.items()]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + "}"
    return value[:16] if isinstance(value, str) and len(value) == 64 else str(value)


def _values(stages: dict[str, dict[str, Any]], part: str, name: str) -> str:
    return _unique(s.get(part, {}).get(name) for s in stages.values())


def _unique(values: Any) -> str:
    return ", ".join({str(value): None for value in values if value is not None})
