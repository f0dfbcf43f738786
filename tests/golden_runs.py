"""Golden runs: what every command leaves for a few pictures on both built-in models, frozen in tests/golden.

    python tests/golden_runs.py            write all fixtures again (`make golden`)
    python tests/golden_runs.py help       only those named: help, tiny-llava, tiny-qwen2.5-vl, old_run

A fixture holds the content of every JSON file and array of the run folder, and each stage's entry of run.json, without
what differs from one run to the next on the same machine:

    run.json          `finished`, `seconds` and `versions` of a stage; the digest of files that hold seconds
    comparison.json   `seconds` of each method

Paths stay: the commands run in the folder of the run and are given relative paths. Only names that stay are imported:
the console entry `hones.cli:main`.

Two strengths of comparison. By default, on any CPU: the same files, keys, texts and whole numbers; floats within
TOLERANCE; digests of the run's own files by the file that they stand for. Rows that are ranked by a float may change
places where their floats differ by less than the tolerance, and the last of a list that is cut off may be another row
of the same value. With HONES_GOLDEN=exact, on the machine that wrote the fixtures: every byte, seconds apart.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from commands_shown import commands_shown

from hones.cli import main

GOLDEN = Path(__file__).parent / "golden"
OLD_RUN = GOLDEN / "old_run"
MODELS = ("tiny-llava", "tiny-qwen2.5-vl")
EXACT = os.environ.get("HONES_GOLDEN") == "exact"
TOLERANCE = 1e-5  # absolute, and relative to the larger of two floats
LEARNED = 1e-2  # of learned scales and their losses: Adam divides a gradient by its own size, noise included
OF_TEXT = 100 * TOLERANCE  # of the share of a log loss that a mask costs, in %: a difference of nearly equal sums
LEARNED_THERE = re.compile(r"/scales\.json/|/evidence\.json/scales/|/(losses|epochs)/|/learned/median$")
OF_TEXT_THERE = re.compile(r"/plain_text/share_lost/")
SAMPLED = 101  # every so many values of a large array

Command = tuple[object, ...]


def call(*arguments: object) -> int:
    """Run the command line in this process, its output dropped; returns its exit code."""
    old, sys.argv = sys.argv, ["hones", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old


def must(*arguments: object) -> None:
    """Run a command that has to succeed."""
    if (code := call(*arguments)) != 0:
        raise RuntimeError(f"hones {' '.join(map(str, arguments))}: exit code {code}")


# Which runs

DATA: tuple[Command, ...] = (
    ("data", "shapes", "--to", "data", "--discovery", 8, "--dev", 5, "--test", 5, "--seed", 1),
    ("data", "shapes", "--to", "signs", "--discovery", 1, "--dev", 1, "--test", 4, "--seed", 1, "--source", "signs"),
)


def stages(model: str, out: str = "run", tasks: Sequence[str] = ("vqa", "ocr")) -> list[Command]:
    """The commands of a golden run; the first task is steered and compared."""
    common = ("--model", model, "--out", out, "--device", "cpu")
    discovery, test = ("--data", "data/discovery.json", "--limit", 6), ("--data", "data/test.json", "--limit", 5)
    commands: list[Command] = [("heads", *common, "--task", ",".join(tasks), *discovery)]
    for task in tasks:
        found = ("--heads", f"{out}/{task}/heads.json", "--ratio", 0.02)
        commands.append(("neurons", *common, "--task", task, *discovery, *found))
        commands.append(
            ("mask", *common, "--task", task, *test, "--neurons", f"{out}/{task}/neurons.json", "--draws", 2)
        )
    first, *others = tasks
    files = ("--neurons", f"{out}/{first}/neurons.json", "--dev", "data/dev.json", "--test", "data/test.json")
    steer = ("steer", *common, "--task", first, *files, "--learning-rate", 0.6, "--epochs", 1, "--step-size", 1)
    steer += ("--anyway",)  # a model that is right on all of these few items still learns
    also = ("--also", ",".join([*others, "caption"]), "--ood", "signs/test.json")
    commands.append(steer)
    commands.append((*steer, "--methods", "hones,rand-neuron,grid-search", "--seeds", "3407,3408", *also))
    methods = ("--methods", "dvp,atp,wanda,random", "--seeds", 2, "--ratio", 0.02)
    splits = ("--data", "data/discovery.json", "--test", "data/test.json")
    commands.append(("compare", *common, "--tasks", first, *splits, "--limit", 6, *methods))
    sizes = ("--lens-items", 1, "--cards", 2, "--draws", 1, "--limit", 4)
    commands.append(("analyze", out, "--device", "cpu", *sizes))
    return commands


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Relative paths are from here, and data is drawn there."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        for command in DATA:
            must(*command)
        yield


def golden_run(model: str, folder: Path) -> dict[str, Any]:
    """Run every stage in a folder; returns what is frozen of it."""
    with standing_in(folder):
        for command in stages(model):
            must(*command)
    return frozen(folder / "run")


# What is frozen


def frozen(run: Path) -> dict[str, Any]:
    """The content and the digest of every file of results, and the stages' entries of run.json."""
    names = sorted(str(f.relative_to(run)) for f in run.rglob("*") if f.suffix in (".json", ".npy", ".jpg"))
    files = {name: _file(run / name) for name in names if name != "run.json"}
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    timed = {name for name, file in files.items() if file["timed"]}
    return {
        "files": {name: {k: v for k, v in file.items() if k != "timed"} for name, file in files.items()},
        "stages": {name: _stage(entry, timed) for name, entry in record.pop("stages").items()},
        "record": record,
    }


def _file(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    untimed = re.sub(rb'"seconds": [0-9.]+', b'"seconds": 0', content) if file.suffix == ".json" else content
    found: dict[str, Any] = {"sha256": hashlib.sha256(untimed).hexdigest(), "timed": untimed != content}
    if file.suffix == ".json":
        found["content"] = json.loads(untimed)
    elif file.suffix == ".npy":
        found["content"] = _array(np.load(file))
    return found


def _array(array: np.ndarray) -> dict[str, Any]:
    """All values of a small array; of a large one its sums by layer and a sample."""
    described: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    values = array.astype(np.float64)
    if array.size <= 64:
        return {**described, "values": values.tolist()}
    sample = values.ravel()[::SAMPLED]
    return {**described, "sums": values.sum(-1).tolist(), "sample": sample.tolist()}


def _stage(entry: Mapping[str, Any], timed: Iterable[str]) -> dict[str, Any]:
    kept = {key: value for key, value in entry.items() if key not in ("finished", "seconds", "versions")}
    unknown = {name: "timed" if name in timed else digest for name, digest in kept["artifacts"].items()}
    return {**kept, "artifacts": unknown}


# Compared


def differences(golden: Any, found: Any, exact: bool = EXACT) -> list[str]:
    """What is not as it was, a line each; both as `frozen` gives them."""
    if exact:
        return list(_exact_differences(golden, found))
    return list(_differences("", named(golden), named(found), TOLERANCE))


def _exact_differences(golden: Any, found: Any) -> Iterator[str]:
    for part in ("files", "stages", "record"):
        old, new = golden[part], found[part]
        for name in sorted({*old, *new}):
            if name not in old or name not in new:
                yield f"{part}/{name}: {'new' if name in new else 'missing'}"
            elif part == "files" and old[name]["sha256"] == new[name]["sha256"]:
                continue
            elif json.dumps(old[name]) != json.dumps(new[name]):
                inner = list(_differences(f"{part}/{name}", old[name], new[name], 0.0))
                yield from inner or [f"{part}/{name}: the same values, other bytes or another order"]


def named(run: Any) -> Any:
    """A frozen run without bytes: digests of its own files become the files' names, wherever stages have them."""
    names: dict[str, str] = {}
    for name in sorted(run["files"], reverse=True):
        names[run["files"][name]["sha256"][:16]] = f"digest of {name}"

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rename(x) for key, x in value.items()}
        if isinstance(value, list):
            return [rename(x) for x in value]
        return names.get(value, value) if isinstance(value, str) else value

    files = {name: file.get("content") for name, file in run["files"].items() if not name.endswith(".jpg")}
    return {"files": files, "stages": rename(run["stages"]), "record": run["record"]}


RANKED_BY = ("score", "value", "weight", "contribution")
IDENTITY = (("layer", "neuron"), ("layer", "head"), ("token",), ("text",), ("item",))


def _differences(where: str, old: Any, new: Any, tolerance: float) -> Iterator[str]:
    if tolerance and LEARNED_THERE.search(where):
        tolerance = LEARNED
    elif tolerance and OF_TEXT_THERE.search(where):
        tolerance = OF_TEXT
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                yield f"{where}/{key}: {'new' if key in new else 'missing'}"
            else:
                yield from _differences(f"{where}/{key}", old[key], new[key], tolerance)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{where}: {len(old)} entries, now {len(new)}"
            return
        new = _reordered(old, new, tolerance)
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{where}/{i}", a, b, tolerance)
    elif isinstance(old, float) and isinstance(new, float):
        if not _close(old, new, tolerance):
            yield f"{where}: {old!r}, now {new!r}"
    elif type(old) is not type(new) or old != new:
        yield f"{where}: {old!r}, now {new!r}"


def _close(old: float, new: float, tolerance: float) -> bool:
    return old == new or abs(old - new) <= tolerance * max(1.0, abs(old), abs(new))


def _reordered(old: list[Any], new: list[Any], tolerance: float) -> list[Any]:
    """Ranked rows in the order of the old ones, where those that changed places are tied in both.

    Whatever else differs stays and is found.
    """
    key = next((k for k in RANKED_BY if _has(old, k, float) and _has(new, k, float)), None)
    identity = next((i for i in IDENTITY if all(_has(old, k) and _has(new, k) for k in i)), None)
    if not tolerance or key is None or identity is None:
        return new
    if not all(_close(a[key], b[key], tolerance) for a, b in zip(old, new, strict=True)):
        return new
    at = {tuple(row[k] for k in identity): row for row in new}
    rows, last = [], old[-1][key]
    for a, b in zip(old, new, strict=True):
        same = at.get(tuple(a[k] for k in identity))
        if same is not None and _close(same[key], a[key], tolerance):
            rows.append({**same, "rank": a["rank"]} if "rank" in a else same)
        elif same is None and _close(a[key], last, tolerance):  # another row of the value at which the list ends
            rows.append({**a, key: b[key]})
        else:
            return new
    return rows


def _has(rows: list[Any], key: str, kind: type = object) -> bool:
    return bool(rows) and all(isinstance(row, dict) and key in row and isinstance(row[key], kind) for row in rows)


# Fixtures


def packed(content: Any) -> Any:
    """Lists of alike objects as columns and rows; `unpacked` is its inverse."""
    if isinstance(content, dict):
        return {key: packed(value) for key, value in content.items()}
    if not isinstance(content, list):
        return content
    if len(content) > 2 and all(isinstance(row, dict) and list(row) == list(content[0]) for row in content):
        return {"#columns": list(content[0]), "#rows": [[packed(x) for x in row.values()] for row in content]}
    return [packed(value) for value in content]


def unpacked(content: Any) -> Any:
    """What `packed` was given."""
    if isinstance(content, list):
        return [unpacked(value) for value in content]
    if not isinstance(content, dict):
        return content
    if list(content) == ["#columns", "#rows"]:
        columns = content["#columns"]
        return [dict(zip(columns, map(unpacked, row), strict=True)) for row in content["#rows"]]
    return {key: unpacked(value) for key, value in content.items()}


def read_golden(name: str) -> Any:
    """A fixture."""
    return unpacked(json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8")))


def write_golden(name: str, content: Any) -> None:
    """A fixture: a line for each file and stage of a run."""
    short = {"ensure_ascii": False, "separators": (",", ":")}
    lines = []
    for key, value in packed(content).items():
        inner = [f"  {json.dumps(k)}: {json.dumps(v, **short)}" for k, v in value.items()]
        lines.append(f" {json.dumps(key)}: {{\n" + ",\n".join(inner) + "\n }" if inner else f" {json.dumps(key)}: {{}}")
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


# A run folder of an earlier version

OLD_MODEL = "tiny-llava"


def old_stages() -> list[Command]:
    """The commands that left tests/golden/old_run: those of a golden run on one task, fewer neurons and methods."""
    smaller = {"0.02": "0.005", "dvp,atp,wanda,random": "dvp,random", "hones,rand-neuron,grid-search": "hones,no-kl"}
    return [tuple(smaller.get(str(word), word) for word in command) for command in stages(OLD_MODEL, tasks=["vqa"])]


def write_old_run(folder: Path) -> None:
    """Run the commands and keep run.json and the files that it lists; the platform is not named."""
    with standing_in(folder):
        for command in old_stages():
            must(*command)
    record = json.loads((folder / "run/run.json").read_text(encoding="utf-8"))
    for entry in record["stages"].values():
        entry["versions"]["platform"] = "Linux"
    shutil.rmtree(OLD_RUN, ignore_errors=True)
    for name in sorted({name for entry in record["stages"].values() for name in entry["artifacts"]}):
        (OLD_RUN / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "run" / name, OLD_RUN / name)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    (OLD_RUN / "run.json").write_text(text + "\n", encoding="utf-8")


def regenerate(names: Sequence[str]) -> None:
    """Write fixtures."""
    for name in names or ("help", *MODELS, "old_run"):
        with tempfile.TemporaryDirectory() as folder:
            if name == "help":
                write_golden("help", commands_shown())
            elif name == "old_run":
                write_old_run(Path(folder))
            else:
                write_golden(name, golden_run(name, Path(folder)))
        print(f"written: {name}", file=sys.stderr)


if __name__ == "__main__":
    regenerate(sys.argv[1:])
