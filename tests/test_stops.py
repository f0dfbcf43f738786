"""A task that cannot go on is named and recorded; the other tasks of the run go on, and a later run picks it up."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from hones import HonesError
from hones.runs.config import read_config
from hones.runs.pipeline import run_config
from hones.runs.stops import Stopped

NEVER = {"name": "never", "prompt": "Say it.", "target": "no.such", "metric": "exact_match"}
ASKED = {"name": "asked", "prompt": "{vqa.question}", "target": "vqa.answer", "metric": "exact_match"}


@pytest.fixture
def config(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path) -> Path:
    """One task without items, one of a random model that is never right, and retrieval, which goes on."""
    for task in (NEVER, ASKED):
        (tmp_path / f"{task['name']}.yaml").write_text(yaml.safe_dump(task))
    content = {
        "model": str(model_folders["llava"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "limit": {"dev": 2, "test": 2},
        "tasks": ["never.yaml", "asked.yaml", "retrieval"],
        "candidates": 3,
        "top_k": 12,
        "ratio": 0.1,
        "draws": 1,
        "max_new_tokens": 2,
        "steering": {"epochs": 1},
        "anyway": True,
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_other_tasks_go_on_and_the_command_ends_with_1(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hones.cli import main

    monkeypatch.setattr(sys, "argv", ["hones", "run", str(config)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1, said
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {task: why["stage"] for task, why in record["stopped"].items()} == {"never": "heads", "asked": "neurons"}
    assert "retrieval/steer" in record["stages"] and "asked/heads" in record["stages"]
    assert (
        "hones: never stopped at heads" in said
        and "hones: asked stopped at neurons: asked has no critical heads" in said
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Tasks that could not go on" in page and "asked stopped at neurons" in page
    heard: list[Stopped] = []
    outcomes = run_config(read_config(config), on_stopped=heard.append)
    assert [o.task for o in outcomes] == ["retrieval"] and [s.task for s in heard] == ["never", "asked"]
    with pytest.raises(HonesError, match=r"never stopped at heads: .*; asked stopped at neurons: "):
        run_config(read_config(config))


def test_a_run_whose_only_task_stops_says_why(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hones.cli import main

    monkeypatch.setattr(sys, "argv", ["hones", "run", str(config), "--set", "tasks=[never.yaml]"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1, said
    assert "hones: never stopped at heads: never, discovery items: none of 6 items can be used: " in said
    assert "a limit counts the items of every task" in said and "holds no results" not in said


def test_what_concerns_the_whole_run_stops_it(config: Path, shapes: dict[str, Path]) -> None:
    shapes_gone = yaml.safe_load(config.read_text())
    shapes_gone["model"] = "no/such/folder"
    config.write_text(yaml.safe_dump(shapes_gone))
    with pytest.raises(HonesError, match="no folder no/such/folder"):
        run_config(read_config(config), on_stopped=lambda _: None)
