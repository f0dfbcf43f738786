"""What goes wrong outside: damaged files, a full disk, a kill in the middle of a write, two processes in one folder."""

import copy
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_results import make_comparison, make_explanation, make_heads, make_masking, make_steering
from test_cli import call

from hones import HonesError, RunFolder, read_config
from hones.files import read_json, read_npy, write_json, write_npy
from hones.method.analysis.explanation import Explanation
from hones.method.analysis.results import Analysis
from hones.method.masking import MaskingResult
from hones.method.steering.evaluate import SteeringResult
from hones.rivals.results import Comparison
from hones.runs.artifacts import read_heads, read_neurons, read_result, read_scales, write_result
from hones.runs.locks import alone
from hones.runs.results import read_results
from hones.runs.source import read_run as read_finished
from hones.runs.stale import stale
from hones.sweep.answers import Answered
from hones.sweep.journal import Journal, sweep_of
from hones.views.report.page import render_report
from hones.views.terminal import head_map, show

FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAN = {"pictures": 2, "row_bytes": 3}

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 10**20, "", "x\ny", "\x00", "..", [], {}, [[]], {"a": 1}, float("inf"), float("nan")]),
    st.text(max_size=5),
)


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """The content with one to three of its parts replaced, removed or added."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = content
        key: Any = None
        parent: Any = None
        while isinstance(holder, dict | list) and holder and (parent is None or draw(st.booleans())):
            parent = holder
            key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
            holder = holder[key]
        match parent, draw(st.sampled_from(("replace", "remove", "top"))):
            case (None, _) | (_, "top"):
                content = draw(JUNK) if draw(st.integers(0, 3)) == 0 else content
            case _, "remove":
                del parent[key]
            case _, _:
                parent[key] = draw(JUNK)
    return content


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """The bytes cut off, or with some replaced or put in."""
    content = bytearray(valid)
    at = draw(st.integers(0, len(content) - 1))
    match draw(st.sampled_from(("cut", "flip", "insert", "deep"))):
        case "cut":
            del content[at:]
        case "flip":
            content[at] ^= draw(st.integers(1, 255))
        case "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=6))
        case "deep":
            content[at:at] = b"[" * 100_000
    return bytes(content)


def either(valid: Any) -> st.SearchStrategy[bytes]:
    """A JSON file with another content, or damaged."""
    as_bytes = json.dumps(valid, indent=1).encode()
    return st.one_of(mutated(valid).map(lambda x: json.dumps(x).encode()), damaged(as_bytes))


def reads_or_says_why(read: Callable[[], object]) -> None:
    """No other error than a HonesError of one line."""
    try:
        read()
    except HonesError as error:
        assert "\n" not in str(error) and len(str(error)) < 5000


def heads_content() -> Any:
    row = {"layer": 0, "head": 1, "score": 0.5, "score_low": 0.1, "score_high": 0.9}
    row |= {"baseline": 0.75, "intervened": 0.25, "metric_name": "anls", "n": 4, "dropped": False}
    baseline = {"metric": 0.75, "metric_low": 0.5, "metric_high": 1.0, "metric_name": "anls", "n": 4}
    racing = {"confidence": 0.95, "margin": 0.01, "look": 16}
    other = {**row, "layer": 1, "score": 0.25}
    return {"baseline": baseline, "racing": racing, "all_heads": [row, other], "top_heads": [row]}


def written(result: Any, folder: Path) -> Any:
    write_result(folder / "valid.json", result)
    return json.loads((folder / "valid.json").read_text())


@FUZZ
@given(either(heads_content()))
def test_damaged_heads_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "heads.json").write_bytes(content)

    def read() -> None:
        result = read_heads(tmp_path / "heads.json")
        show(*result.tables())
        if max(h.layer + h.head for h in result.heads) < 1000:
            head_map(result)

    reads_or_says_why(read)


@FUZZ
@given(either([{"rank": 1, "layer": 0, "neuron": 3, "score": 0.5}, {"rank": 2, "layer": 1, "neuron": 0, "score": 0.1}]))
def test_damaged_neurons_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "neurons.json").write_bytes(content)
    reads_or_says_why(lambda: read_neurons(tmp_path / "neurons.json"))


@FUZZ
@given(either([{"layer": 0, "neuron": 3, "scale": 0.5}, {"layer": 1, "neuron": 0, "scale": -0.1}]))
def test_damaged_scales_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scales.json").write_bytes(content)
    reads_or_says_why(lambda: read_scales(tmp_path / "scales.json"))


@FUZZ
@given(st.data())
def test_damaged_results_are_one_line(tmp_path: Path, data: st.DataObject) -> None:
    heads = make_heads(random.Random(0))
    for kind, valid in (
        (MaskingResult, make_masking(heads.baseline, heads.baseline)),
        (Comparison, make_comparison("vqa")),
        (Analysis, Analysis("m", 2, 2, 3, (), (), (), (), (), (), ())),
        (SteeringResult, make_steering()),
        (Explanation, make_explanation()),
    ):
        (tmp_path / "x.json").write_bytes(data.draw(either(written(valid, tmp_path))))
        reads_or_says_why(lambda kind=kind: read_result(tmp_path / "x.json", kind))


@pytest.mark.parametrize(
    "name",
    [
        "vqa/masking.json",
        "vqa/comparison.json",
        "vqa/steering/hones/result.json",
        "vqa/steering/evidence.json",
        "analysis/analysis.json",
    ],
)
def test_a_damaged_file_of_a_report_is_named(tmp_path: Path, name: str) -> None:
    for content in (b"{", b"[]", b'{"metric_name": 3}'):
        write_heads_of(tmp_path / "vqa")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HonesError, match=re.escape(name)) as said:
            read_results(tmp_path)
        assert "\n" not in str(said.value)


def write_heads_of(task: Path) -> None:
    task.mkdir(parents=True, exist_ok=True)
    (task / "heads.json").write_text(json.dumps(heads_content()))


RECORD = {
    "stages": {
        f"vqa/{stage}": {
            "fingerprint": {"model": "m", "revision": "r", "dtype": "float32", "seed": 1, "data": "d", "asked": "a"}
            | {"max_new_tokens": 24, "method": "hones", "ratio": 0.1, "heads": "h"},
            "artifacts": {"vqa/heads.json": "0"},
            "seconds": 1.0,
            "discovery": {"items": ["1"], "left_out": [], "file": "x.json", "images": ".", "candidates": None},
        }
        for stage in ("heads", "neurons")
    }
}


@FUZZ
@given(either(RECORD))
def test_damaged_run_records_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vqa").mkdir(exist_ok=True)
    write_json(tmp_path / "vqa/heads.json", heads_content())
    (tmp_path / "run.json").write_bytes(content)
    reads_or_says_why(lambda: RunFolder(tmp_path).is_finished("vqa/heads", {"model": "m"}))
    reads_or_says_why(lambda: stale(read_results(tmp_path)))
    reads_or_says_why(lambda: read_finished(tmp_path))


@FUZZ
@given(st.data())
def test_damaged_arrays_are_one_line(tmp_path: Path, data: st.DataObject) -> None:
    write_npy(tmp_path / "x.npy", np.ones((2, 3), dtype=np.float32))
    (tmp_path / "x.npy").write_bytes(data.draw(damaged((tmp_path / "x.npy").read_bytes())))
    reads_or_says_why(lambda: read_npy(tmp_path / "x.npy"))


@pytest.mark.parametrize("shape", ["(10000000000000,)", "(-1,)", "(3,", "(1, 'a')", "x"])
def test_arrays_that_claim_what_they_have_not_are_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 24)
    with pytest.raises(HonesError, match="is not a numpy array"):
        read_npy(tmp_path / "x.npy")


@FUZZ
@given(st.data())
def test_damaged_journals_are_one_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    groups = [[Answered([f"said {g}"], np.full((2, 1), float(g), dtype=np.float32))] for g in range(2)]
    with Journal(path, {"a": 1}, PLAN) as journal:
        for number, group in enumerate(groups):
            journal.append(number, group)
    lines = path.read_bytes().splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(either(json.loads(lines[at]))).replace(b"\n", b" ") + b"\n"
    path.write_bytes(b"".join(lines))
    sweep_of(path)

    def read() -> None:
        with Journal(path, {"a": 1}, PLAN) as journal:
            assert set(journal.plan) == set(PLAN)
            for number, group in enumerate(groups):
                found = journal.read(number)
                assert found is None or at == number + 1 or np.array_equal(found[0].statistics, group[0].statistics)

    reads_or_says_why(read)


CONFIG = {
    "model": "m",
    "out": "run",
    "data": {"discovery": "a.json", "dev": "b.json", "test": "c.json"},
    "tasks": ["vqa", "mine.yaml"],
    "steering": {"epochs": 1},
    "compare": {"methods": ["dvp"]},
    "analyze": {"cards": 1},
}


@FUZZ
@given(st.one_of(mutated(CONFIG).map(lambda x: yaml.safe_dump(x).encode()), damaged(yaml.safe_dump(CONFIG).encode())))
def test_damaged_configurations_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    reads_or_says_why(lambda: read_config(tmp_path / "c.yaml"))


# --- a full disk, a kill -------------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullAfter:
    """A file that takes so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> "FullAfter":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        self.file.write(content[: self.room])
        self.file.flush()
        return full()


def fill_disk(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Every write, fsync or rename fails from now on."""
    if step == "write":
        real = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *a, **k: FullAfter(real(path, *a, **k), 7))
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, {"open": "open", "rename": "replace"}[step], full)


@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename"])
def test_a_full_disk_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with monkeypatch.context() as patch:
        fill_disk(patch, step)
        with pytest.raises(HonesError, match=r"cannot write .*a\.json \(No space left on device\); free space"):
            write_json(tmp_path / "a.json", {"x": 2})
    assert read_json(tmp_path / "a.json") == {"x": 1} and [f.name for f in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("step", ["open", "write", "fsync"])
def test_a_full_disk_keeps_finished_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path, group = tmp_path / "x.jsonl", [Answered(["said"], np.ones((2, 1), dtype=np.float32))]
    with Journal(path, {"a": 1}, PLAN) as journal:
        journal.append(0, group)
        with monkeypatch.context() as patch:
            fill_disk(patch, step)
            with pytest.raises(HonesError, match=r"cannot write .*free space, then run again"):
                journal.append(1, group)
    with Journal(path, {"a": 1}, PLAN) as journal:
        found = journal.read(0)
        assert found is not None and np.array_equal(found[0].statistics, group[0].statistics)
        assert found[0].answers == ["said"]
        if step != "fsync":
            assert journal.read(1) is None
        journal.append(2, group)
    with Journal(path, {"a": 1}, PLAN) as journal:
        assert journal.read(0) is not None and journal.read(2) is not None


WRITER = """
import sys
from pathlib import Path
import numpy as np
from hones.runs.locks import alone
from hones.files import write_json
from hones.sweep.answers import Answered
from hones.sweep.journal import Journal
run = Path(sys.argv[1])
with alone(run, ["vqa"]):
    with Journal(run / "journal/x.jsonl", {"a": 1}, {"pictures": 2, "row_bytes": 3}) as journal:
        start = max(journal.groups, default=-1) + 1
        for number in range(start, 10**6):
            write_json(run / "vqa/heads.json", {"number": number, "filling": [0.5] * 2000})
            journal.append(number, [Answered([], np.full((200, 1), number, dtype=np.float32))])
            print(number, flush=True)
"""


def writer(run: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(run)], stdout=subprocess.PIPE, text=True)


def test_a_kill_in_the_middle_of_writes_loses_nothing_finished(tmp_path: Path) -> None:
    rng, said = random.Random(0), -1
    (tmp_path / "vqa").mkdir()
    for _ in range(2):
        (tmp_path / "vqa/.heads.json.1.part").write_text("left by a killed process")
        process = writer(tmp_path)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert int(line) > said, "what was said to be written is gone on from"
        assert not (tmp_path / "vqa/.heads.json.1.part").exists()
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        said = int([line, *rest][-1])
        assert read_json(tmp_path / "vqa/heads.json")["number"] >= said
        with Journal(tmp_path / "journal/x.jsonl", {"a": 1}, PLAN) as journal:
            assert {*range(said + 1)} <= journal.groups.keys()
            assert all((journal.groups[n][0].statistics == n).all() for n in range(said + 1))
    with alone(tmp_path, ["vqa"]):
        assert not [*tmp_path.rglob("*.part")]


# --- two processes -------------------------------------------------------------------------------------------------


def test_the_second_process_in_a_folder_is_refused_by_name_until_the_first_is_gone(tmp_path: Path) -> None:
    process = writer(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        refused = pytest.raises(HonesError, match=rf"process {process.pid} on .* is working on vqa in .*wait for it")
        with refused, alone(tmp_path, ["ocr", "vqa"]):
            pass
        with alone(tmp_path, ["ocr"]):
            pass
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with alone(tmp_path, ["vqa"]), alone(tmp_path, ["vqa"]):
        assert json.loads((tmp_path / ".locks/vqa.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".locks/vqa.json").exists()


def test_a_stage_in_a_folder_that_is_being_written_is_one_line(
    tmp_path: Path, model_folders: dict[str, Path], shapes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    process = writer(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        data = ("--data", shapes["dev"], "--out", tmp_path)
        assert call("heads", "--model", model_folders["llava"], "--task", "vqa", *data) == 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert f"process {process.pid} on " in capsys.readouterr().err


# --- the log -------------------------------------------------------------------------------------------------------


def test_the_log_has_a_line_for_everything_and_the_traceback_of_what_stopped(
    tmp_path: Path,
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    common = ("--model", model_folders["llava"], "--task", "retrieval", "--candidates", 3, "--out", tmp_path)
    data = ("--data", shapes["dev"])
    assert call("heads", *common, *data) == 0 and call("heads", *common, *data) == 0
    lines = (tmp_path / "hones.log").read_text().splitlines()
    said = ["hones heads --model ", "retrieval/heads starts", "retrieval/heads has finished in"]
    said += ["hones heads --model ", "retrieval/heads is finished already"]
    assert [" INFO " + text in line for text, line in zip(said, lines, strict=True)] == [True] * 5

    assert call("heads", *common, *data, "--seed", 1) == 2
    text = (tmp_path / "hones.log").read_text()
    assert "ERROR" in text and "Traceback" in text and "holds retrieval/heads with seed" in text
    assert "Traceback" not in capsys.readouterr().err

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("hones.runs.study.Study.heads", broken)
    assert call("heads", *common, *data) == 1
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1] == f"hones: unexpected ZeroDivisionError: a bug; details in {tmp_path / 'hones.log'}"
    assert "Traceback" not in error and "of two lines" in (tmp_path / "hones.log").read_text()


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, model_folders: dict[str, Path], shapes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hones.log").mkdir()
    common = ("--model", model_folders["llava"], "--task", "retrieval", "--candidates", 3, "--out", tmp_path)
    assert call("heads", *common, "--data", shapes["dev"], "--limit", 2) == 0
    assert capsys.readouterr().err.count("cannot write") == 1


# --- equal seeds ---------------------------------------------------------------------------------------------------


@pytest.fixture
def config(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(model_folders["llava"]),
        "data": {name: str(file) for name, file in shapes.items()},
        "limit": {"dev": 3, "test": 5},
        "tasks": ["retrieval"],
        "candidates": 3,
        "ratio": 0.1,
        "draws": 1,
        "steering": {"learning_rate": 0.02, "epochs": 1, "methods": ["fixed-amp"]},
        "compare": {"methods": ["dvp", "random"], "curves": False, "draws": 1},
        "analyze": {"cards": 1, "draws": 1, "lens_items": 1, "limit": 3},
    }


def run(tmp_path: Path, config: dict[str, Any], out: str) -> Path:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**config, "out": out}))
    assert call("run", tmp_path / "c.yaml") == 0
    return tmp_path / out


def test_equal_seeds_give_equal_bytes(tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All but how long it took: a comparison says so of each method."""
    for module in ("hones.runs.study", "hones.runs.stage", "hones.rivals.ranked"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: 0.0))
    first, second = (run(tmp_path, config, out) for out in ("a/run", "b/run"))
    files, others = (
        {f.relative_to(folder) for part in ("retrieval", "analysis") for f in (folder / part).rglob("*") if f.is_file()}
        for folder in (first, second)
    )
    assert {file.name for file in files} >= {"comparison.json", "evidence.json", "analysis.json", "result.json"}
    assert files == others
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    records = [read_json(folder / "run.json")["stages"] for folder in (first, second)]
    for stage in (entry for record in records for entry in record.values()):
        assert stage.pop("finished") and isinstance(stage.pop("seconds"), float)
    assert records[0] == records[1]
    results = [read_results(folder) for folder in (first, second)]
    for found in results:
        untimed = {"finished": "", "seconds": None}
        found.record.stages.update({n: stage.model_copy(update=untimed) for n, stage in found.record.stages.items()})
    assert render_report(results[0]) == render_report(results[1])


def test_broken_pictures_are_named_and_both_arms_have_the_same_items(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from hones import write_shapes

    files = write_shapes(tmp_path / "data", {"discovery": 4, "dev": 4, "test": 7}, seed=2)
    images = tmp_path / "data/images"
    (images / "discovery_00003.png").write_bytes(b"")
    (images / "dev_00002.png").write_bytes((images / "dev_00002.png").read_bytes()[:200])
    (images / "test_00001.png").unlink()
    (images / "test_00005.png").write_bytes(b"not a picture")
    config = {key: value for key, value in config.items() if key not in ("limit", "compare", "analyze")}
    config |= {"data": {name: str(file) for name, file in files.items()}, "out": "refused"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    assert call("run", tmp_path / "c.yaml") == 2
    assert "retrieval, discovery items: 1 of 4 items cannot be used: 4 (cannot read" in capsys.readouterr().err
    out = run(tmp_path, config | {"max_left_out": 0.3}, "out")
    error = " ".join(capsys.readouterr().err.split())
    left = {"discovery": ["4"], "dev": ["7"], "test": ["10", "14"]}
    for split, ids in left.items():
        assert all(f"left out (retrieval, {split}): item {i}: " in error for i in ids)
    stages = read_json(out / "run.json")["stages"]
    tests = [stages[f"retrieval/{stage}"]["test"] for stage in ("mask", "steer")]
    assert tests[0] == tests[1] and [x["id"] for x in tests[0]["left_out"]] == left["test"]
    assert all(x["kind"] for x in tests[0]["left_out"])
    assert len(tests[0]["items"]) == 5 and not {*left["test"]} & {*tests[0]["items"]}
    masking, steering = (read_json(out / "retrieval" / f) for f in ("masking.json", "steering/hones/result.json"))
    assert masking["items"] == steering["items"] == 5
    assert masking["baseline"] == steering["base"], "both arms over the same items"
    assert [line.count("WARNING") for line in (out / "hones.log").read_text().splitlines()].count(1) >= 4
