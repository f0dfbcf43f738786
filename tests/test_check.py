"""`hones data check`: what each task can use, every problem by kind."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import call

from hones import load_items, make_task
from hones.errors import NOT_ANNOTATED
from hones.tasks.check import Usable, check_items


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one problem of each kind among good items."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for name in ("good", "truncated", "boxes"):
        Image.fromarray(np.roll(noise, len(name), 0)).save(images / f"{name}.jpg")
    raw = (images / "truncated.jpg").read_bytes()
    (images / "truncated.jpg").write_bytes(raw[: len(raw) // 2])
    (images / "corrupt.jpg").write_bytes(b"no picture")
    (images / "empty.jpg").touch()
    Image.new("1", (120, 120)).save(images / "huge.png")
    shutil.copy(images / "good.jpg", images / "copy.jpg")
    (tmp_path / "secret.jpg").touch()
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    size = {"width": 64, "height": 64}

    def row(name: str, **fields: Any) -> dict[str, Any]:
        return {"image_id": name, "image_info": {"file_name": f"{name}.jpg"}, **fields}

    vqa = {"question": "What?", "answer": "cat"}
    rows = [row(name, vqa=vqa) for name in ("good", "truncated", "corrupt", "empty", "copy", "absent", "link")]
    rows += [
        {**row("huge", vqa=vqa), "image_info": {"file_name": "huge.png"}},
        row("good", vqa=vqa),
        {**row("no answer", vqa={"question": "What?", "answer": " "}), "image_info": {"file_name": "good.jpg"}},
        {**row("no caption", captions=[{"caption": " "}]), "image_info": {"file_name": "boxes.jpg"}},
        {"image_id": "up", "image_info": {"file_name": "../secret.jpg"}},
        {"image_id": "half"},
    ]
    boxes = {"inside": [1, 1, 5, 5], "flat": [1, 1, 0, 5], "outside": [90, 1, 5, 5], "partly": [60, 1, 9, 9]}
    for name, box in boxes.items():
        info = {"file_name": "boxes.jpg", **({} if name == "outside" else size)}
        rows.append({"image_id": name, "image_info": info, "ocr": {"text": "STOP", "bbox": box}})
    file = tmp_path / "broken.json"
    file.write_text(json.dumps({"data": rows}))
    return file


def test_every_problem_is_named_and_counted(broken: Path) -> None:
    report = check_items(load_items(broken))
    problems = {(one.where, one.kind): (one.count, one.first) for one in report.problems}
    assert problems == {
        ("file", "picture outside the folder"): (2, ("link", "up")),
        ("file", "duplicate id"): (1, ("good",)),
        ("file", "row that cannot be read"): (1, ("half",)),
        ("picture", "truncated picture"): (1, ("truncated",)),
        ("picture", "corrupt picture"): (2, ("corrupt", "empty")),
        ("picture", "missing picture"): (1, ("absent",)),
        ("picture", "huge picture"): (1, ("huge",)),
        ("vqa", "empty answer"): (1, ("no answer",)),
        ("caption", "all captions are empty"): (1, ("no caption",)),
        ("retrieval", "all captions are empty"): (1, ("no caption",)),
        ("ocr", "box without area"): (1, ("flat",)),
        ("ocr", "box outside the picture"): (1, ("outside",)),
    }
    assert {row.task: (row.usable, row.refused, row.not_annotated) for row in report.tasks} == {
        "vqa": (2, 6, 5),
        "ocr": (2, 2, 9),
        "caption": (0, 1, 12),
        "retrieval": (0, 1, 12),
    }
    remarks = {one.kind: one.first for one in report.remarks}
    assert (
        remarks["duplicate picture"] == ("copy",)
        and remarks["box partly outside the picture"] == ("outside", "partly")[1:]
    )
    assert remarks["empty caption"] == ("no caption",)


def test_strict_accepts_a_file_without_problems(shapes: dict[str, Path]) -> None:
    assert call("data", "check", shapes["dev"], "--candidates", 20, "--strict") == 0


def test_exit_codes_and_the_report(broken: Path, tmp_path: Path) -> None:
    assert call("data", "check", broken, "--json", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["format"] == "unified" and report["items"] == 13 and len(report["problems"]) == 12
    assert call("data", "check", broken, "--strict") == 2


def test_too_few_captions_are_a_problem_of_retrieval_alone(shapes: dict[str, Path]) -> None:
    report = check_items(load_items(shapes["dev"]), candidates=400)
    usable = {row.task: row.usable for row in report.tasks}
    assert usable == {"vqa": 5, "ocr": 5, "caption": 5, "retrieval": 0}
    assert [(one.where, one.kind, one.count) for one in report.problems] == [
        ("retrieval", "too few captions for 400 candidates", 5)
    ]


def checked(file: Path, task: str) -> tuple[Usable, dict[tuple[str, str], str], dict[tuple[str, str], int]]:
    """One task's counts, its problems with their example, its remarks with their count."""
    report = check_items(load_items(file), tasks=[make_task(task)])
    (row,) = report.tasks
    problems = {(one.where, one.kind): one.example for one in report.problems}
    return row, problems, {(one.where, one.kind): one.count for one in report.remarks}


def yaml_task(folder: Path, **changes: Any) -> str:
    content = {"name": "mine", "prompt": "{vqa.question}", "target": "vqa.answer", "metric": "exact_match"} | changes
    (folder / "mine.yaml").write_text(json.dumps(content))
    return str(folder / "mine.yaml")


def test_a_task_of_ones_own_is_counted_with_reasons(broken: Path, tmp_path: Path) -> None:
    row, problems, remarks = checked(broken, yaml_task(tmp_path))
    own, of_vqa, _ = checked(broken, "vqa")
    assert row == Usable("mine", own.usable, own.refused, own.not_annotated) == Usable("mine", 2, 6, 5)
    assert problems["mine", "its field vqa.answer is empty"] and of_vqa["vqa", "empty answer"]
    assert ("picture", "missing picture") in problems and remarks["mine", NOT_ANNOTATED] == 5

    row, problems, _ = checked(broken, yaml_task(tmp_path, picture="none"))
    assert row == Usable("mine", 7, 1, 5) and not [where for where, _ in problems if where == "picture"]

    row, problems, remarks = checked(broken, yaml_task(tmp_path, prompt="{vqa.quest}"))
    assert row.refused == 8 and problems["mine", "it has no field vqa.quest"]

    row, _, remarks = checked(broken, yaml_task(tmp_path, max_items=1))
    assert row == Usable("mine", 1, 6, 5) and remarks["mine", "usable, beyond max_items"] == 1


def test_boxes_of_a_task_of_ones_own_are_drawn(broken: Path, tmp_path: Path) -> None:
    task = yaml_task(tmp_path, prompt="Read.", target="ocr.text", box="ocr.bbox")
    row, problems, _ = checked(broken, task)
    own, *_ = checked(broken, "ocr")
    assert (row.usable, row.refused) == (own.usable, own.refused)
    assert {("mine", "box without area"), ("mine", "box outside the picture")} <= problems.keys()


def test_the_command_checks_the_named_task(
    shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert call("data", "check", shapes["dev"], "--task", f"{yaml_task(tmp_path)},ocr", "--json", report) == 0
    said = json.loads(report.read_text())
    assert [(row["task"], row["usable"]) for row in said["tasks"]] == [("mine", 5), ("ocr", 5)]
    assert "mine" in capsys.readouterr().out
    assert call("data", "check", shapes["dev"], "--task", tmp_path / "none.yaml") == 2
    assert "cannot read the task" in capsys.readouterr().err
