"""What ran: the model, the data, the items used and left out, versions and times, as run.json says."""

from collections.abc import Iterable
from typing import Any

from hones.runs.results import RunResults
from hones.views.sheet import Cell, Sheet

_MODEL = {
    "model": "model",
    "revision": "revision",
    "dtype": "dtype",
    "image_backend": "image backend",
    "yes_no_ids": "Yes and No ids",
    "seed": "seed",
}
_COLUMNS = ("stage", "items", "left out", "seconds", "device", "data", "settings")


def provenance(results: RunResults) -> dict[str, Any]:
    """Everything run.json records, for the page.

    Returns:
        facts: name and value; used: every set of items once, as all the stages that used it, its size, and its ids;
        stages, left_out: tables.
    """
    stages = results.record.stages
    facts = {name: _unique(s.fingerprint.get(key) for s in stages.values()) for key, name in _MODEL.items()}
    facts["device"] = _unique(s.device for s in stages.values())
    facts["finished"] = max((s.finished for s in stages.values()), default="")
    names = sorted({name for s in stages.values() for name in s.versions})
    facts["versions"] = ", ".join(f"{name} {_unique(s.versions.get(name) for s in stages.values())}" for name in names)
    rows: list[tuple[Cell, ...]] = []
    left_out: list[tuple[Cell, ...]] = []
    users: dict[tuple[str, ...], list[str]] = {}
    for name, stage in stages.items():
        for split, used in stage.splits.items():
            users.setdefault(tuple(used.items), []).append(f"{name}, {split}")
            left_out += [(f"{name}, {split}", item.id, item.reason) for item in used.left_out]
        items = sum(len(used.items) for used in stage.splits.values())
        without = sum(len(used.left_out) for used in stage.splits.values())
        data = str(stage.fingerprint.get("data", ""))[:16]
        settings = (f"{k} {_short(v)}" for k, v in stage.fingerprint.items() if k not in (*_MODEL, "data", "asked"))
        rows.append((name, items, without, stage.seconds, stage.device, data, ", ".join(settings)))
    return {
        "facts": [(name, value) for name, value in facts.items() if value],
        "used": [("; ".join(where), len(items), ", ".join(items)) for items, where in users.items()],
        "stages": Sheet("stages", "Finished stages", _COLUMNS, tuple(rows)),
        "left_out": Sheet("left-out", "Items left out, and why", ("stage", "item", "reason"), tuple(left_out)),
    }


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {_short(v)}" for k, v in value.items()) + "}"
    return value[:16] if isinstance(value, str) and len(value) == 64 else str(value)


def _unique(values: Iterable[Any]) -> str:
    return ", ".join({str(value): None for value in values if value is not None})
