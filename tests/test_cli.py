"""The command line as a user meets it: every stage, picking up, and one line for every mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hones
from hones.cli import main

STAGES = ("heads", "neurons", "mask", "steer")


def call(*arguments: object) -> int:
    """Run the command line in this process; returns its exit code."""
    old, sys.argv = sys.argv, ["hones", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old


@pytest.fixture
def config(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path) -> Path:
    """A run of two tasks on a random model; retrieval has a metric that a random model does not fail."""
    content = {
        "model": str(model_folders["qwen"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "tasks": ["retrieval"],
        "candidates": 6,
        "ratio": 0.1,
        "draws": 2,
        "steering": {"learning_rate": 0.02, "epochs": 1},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def change(config: Path, **keys: object) -> Path:
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **keys}))
    return config


def test_help_is_grouped_and_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in (*STAGES, "demo", "run", "data", "Find", "Prove", "Steer"))


def test_help_and_bad_arguments_answer_without_loading_torch() -> None:
    """Torch and transformers take seconds: commands import them when they run."""
    code = "import sys, hones.cli.commands; print(sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_run_writes_every_artifact_and_picks_up(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", config) == 0
    first = capsys.readouterr().out
    assert "Masking the selected neurons" in first and "Steering the selected neurons" in first
    out = config.parent / "run"
    files = {str(f.relative_to(out)): f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    page = (out / "report.html").read_text()
    assert set(files) == {
        "run.json",
        "report.html",
        ".run.lock",
        ".locks/retrieval.lock",
        "hones.log",
        "retrieval/answers.jsonl",
        "retrieval/heads.json",
        "retrieval/head_scores.npy",
        "retrieval/neurons.json",
        "retrieval/neuron_importance.npy",
        "retrieval/masking.json",
        "retrieval/steering/hones/scales.json",
        "retrieval/steering/hones/result.json",
    }
    record = json.loads((out / "run.json").read_text())
    assert set(record["stages"]) == {f"retrieval/{stage}" for stage in STAGES}
    stage = record["stages"]["retrieval/heads"]
    assert stage["discovery"]["items"] == ["1", "2", "3", "4", "5", "6"] and stage["discovery"]["left_out"] == []
    assert stage["fingerprint"]["image_backend"] == "pil" and len(set(stage["fingerprint"]["yes_no_ids"])) == 2

    assert call("run", config) == 0
    again = {str(f.relative_to(out)): f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    rewritten = {"report.html": 0, "hones.log": 0, ".locks/retrieval.lock": 0}
    assert {**again, **rewritten} == {**files, **rewritten}
    assert (out / "report.html").read_text() == page
    tables = [re.sub(r"\d+ s|─", "", text) for text in (first, capsys.readouterr().out)]
    assert tables[0] == tables[1], "what was read back is shown as what was computed"

    (out / "retrieval/masking.json").unlink()
    assert call("run", config) == 0
    assert (out / "retrieval/masking.json").exists()
    assert (out / "retrieval/heads.json").stat().st_mtime_ns == files["retrieval/heads.json"]

    assert call("run", change(config, seed=1)) == 2
    assert "holds retrieval/heads with seed = 3407, now 1" in capsys.readouterr().err
    assert call("run", config, "--fresh") == 0


def test_run_compares_and_analyzes_where_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"methods": ["dvp", "random"], "draws": 1, "curves": False}
    assert call("run", change(config, compare=wanted, analyze={"cards": 1, "draws": 1, "limit": 2})) == 0
    out = config.parent / "run"
    comparison = json.loads((out / "retrieval/comparison.json").read_text())
    assert {m["method"] for m in comparison["methods"]} == {"hones", "dvp", "random"}
    analysis = json.loads((out / "analysis/analysis.json").read_text())
    assert [task["task"] for task in analysis["tasks"]] == ["retrieval"] and len(analysis["cards"]) == 1
    page = (out / "report.html").read_text()
    assert "hones compare" not in page and "hones analyze" not in page, "nothing is missing"
    assert "dvp" in capsys.readouterr().out
    assert call("run", change(config, compare={"methods": ["nonsense"]})) == 2
    assert "no method 'nonsense'" in capsys.readouterr().err


def test_the_stages_one_by_one_give_what_run_gives(config: Path, model_folders: dict[str, Path]) -> None:
    assert call("run", config) == 0
    content = yaml.safe_load(config.read_text())
    data, out = content["data"], config.parent / "single"
    common = ("--model", model_folders["qwen"], "--task", "retrieval", "--out", out, "--candidates", 6)
    folder = out / "retrieval"
    assert call("heads", *common, "--data", data["discovery"]) == 0
    found = ("--heads", folder / "heads.json", "--ratio", 0.1)
    assert call("neurons", *common, "--data", data["discovery"], *found) == 0
    chosen = ("--neurons", folder / "neurons.json")
    assert call("mask", *common, "--data", data["test"], *chosen, "--draws", 2) == 0
    files = ("--dev", data["dev"], "--test", data["test"])
    assert call("steer", *common, *files, *chosen, "--learning-rate", 0.02, "--epochs", 1) == 0
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        assert file.read_bytes() == (config.parent / "run/retrieval" / file.relative_to(folder)).read_bytes(), file


def test_python_in_ten_lines_is_what_the_command_does(model_folders: dict[str, Path], shapes: dict[str, Path]) -> None:
    vlm = hones.load_vlm(str(model_folders["llava"]))
    task = hones.make_task("retrieval", candidates=6)
    examples, _ = task.examples(hones.load_items(shapes["discovery"]))
    heads = hones.localize_heads(vlm, task, examples)
    importance = hones.attribute_neurons(vlm, task, examples, heads.critical)
    neurons = [(n.layer, n.neuron) for n in hones.select_neurons(importance, ratio=0.1)]
    result = hones.evaluate_masking(vlm, task, examples, neurons)
    assert result.neurons == len(neurons) > 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"colour": "red"}, "no key colour; expected some of model, out, data, tasks"),
        ({"ratio": 7}, "ratio: Input should be less than or equal to 1"),
        ({"steering": {"lr": 1}}, "no key steering.lr; expected some of beta, gamma, learning_rate"),
        ({"tasks": ["telepathy"]}, "no task 'telepathy'; expected one of vqa, ocr, caption, retrieval"),
        ({"model": "no/such/folder"}, "no folder no/such/folder"),
        ({"limit": {"test": 0}}, "limit.test: Input should be greater than or equal to 1"),
        ({"candidates": 400}, "lower --candidates or give more items"),
        ({"out": "/proc/hones"}, "cannot write to /proc/hones"),
    ],
)
def test_mistakes_in_a_configuration_are_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, object], message: str
) -> None:
    assert call("run", change(config, **keys)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.splitlines()[-1].startswith("hones: ") and "Traceback" not in error
    assert not (config.parent / "run/retrieval").exists(), "nothing half-written"


@pytest.mark.parametrize("text", ["", "- 1", "model: [", "model: x", "\x00"])
def test_files_that_are_no_configuration_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert call("run", path) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("hones: ") and "\n" not in error and "c.yaml" in error


def test_the_demo_runs_all_four_tasks(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a random model, so only the wiring is at stake: text tasks stop, as the model is never right."""
    monkeypatch.setattr("hones.runs.demo.SIZES", {"discovery": 4, "dev": 3, "test": 4})
    monkeypatch.setattr("hones.runs.demo.CANDIDATES", 4)
    before = {f.name: f.read_bytes() for f in model_folders["llava"].iterdir()}
    code, error = call("demo", "--model", model_folders["llava"], "--out", tmp_path / "d"), capsys.readouterr().err
    assert code == 0 or (code == 1 and "nothing can be lost" in error)
    assert (tmp_path / "d/llava/retrieval/heads.json").exists()
    assert {f.name: f.read_bytes() for f in model_folders["llava"].iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ratio", "nan"), "--ratio nan; expected a share of all neurons"),
        (("--ids", "binary.txt"), "cannot read binary.txt"),
        (("--ids", "none.txt"), "--ids none.txt names no item"),
        (("--heads", "absent.json"), "no file absent.json"),
        (("--heads", "other.json"), "other.json scores heads by anls; expected vqa_soft_accuracy"),
    ],
)
def test_mistakes_in_options_are_one_line(
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary.txt").write_bytes(b"\xff\x00")
    Path("none.txt").write_text("\n \n", encoding="utf-16")
    row = {"layer": 0, "head": 0, "score": 1.0, "baseline": 1.0, "intervened": 0.0}
    for name, metric in (("heads.json", "vqa_soft_accuracy"), ("other.json", "anls")):
        baseline = {"metric": 1.0, "metric_name": metric, "n": 1}
        Path(name).write_text(json.dumps({"baseline": baseline, "all_heads": [row], "top_heads": [row]}))
    common = ("--model", model_folders["llava"], "--task", "vqa", "--data", shapes["dev"], "--out", "o")
    heads = () if arguments[0] == "--heads" else ("--heads", "heads.json")
    assert call("neurons", *common, *heads, *arguments) == 2
    assert message in capsys.readouterr().err


def test_other_pictures_are_other_inputs(
    config: Path, shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from PIL import Image

    folder = tmp_path / "data"
    shutil.copytree(shapes["test"].parent, folder)
    assert call("run", change(config, data={name: str(folder / file.name) for name, file in shapes.items()})) == 0
    Image.new("RGB", (96, 96)).save(folder / "images/discovery_00003.png")
    assert call("run", config) == 2
    assert "holds retrieval/heads with asked = " in capsys.readouterr().err


def test_a_picture_that_the_processor_refuses_is_left_out(
    config: Path, shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from PIL import Image

    folder = tmp_path / "data"
    shutil.copytree(shapes["test"].parent, folder)
    Image.new("RGB", (900, 2)).save(folder / "images/dev_00001.png")
    data = {name: str(folder / file.name) for name, file in shapes.items()}
    assert call("run", change(config, data=data, max_left_out=0.3)) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "left out (retrieval, dev): item 8: cannot prepare the picture for the model (absolute aspect ratio" in said


def test_splits_that_share_pictures_are_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = yaml.safe_load(config.read_text())["data"]
    assert call("run", change(config, data={**data, "test": data["dev"]})) == 2
    assert "dev_00000.png is in both dev and test" in capsys.readouterr().err


def test_a_heads_file_of_another_model_is_refused(
    config: Path, model_folders: dict[str, Path], shapes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"layer": 31, "head": 3, "score": 1.0, "baseline": 1.0, "intervened": 0.0}
    heads = config.parent / "heads.json"
    baseline = {"metric": 1.0, "metric_name": "vqa", "n": 1}
    heads.write_text(json.dumps({"baseline": baseline, "all_heads": [row], "top_heads": [row]}))
    common = ("--model", model_folders["llava"], "--task", "vqa", "--out", config.parent / "o")
    assert call("neurons", *common, "--data", shapes["discovery"], "--heads", heads) == 2
    assert "no head (31, 3)" in capsys.readouterr().err


def test_data_check_counts_and_names(shapes: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "check", shapes["dev"], "--candidates", 20) == 0
    assert re.search(r"caption\s*│\s*5\s*│\s*0", capsys.readouterr().out)


def test_data_shapes_writes_disjoint_splits(tmp_path: Path) -> None:
    assert call("data", "shapes", "--to", tmp_path / "s", "--discovery", 2, "--dev", 1, "--test", 3) == 0
    sizes = {name: len(hones.load_items(tmp_path / "s" / f"{name}.json")) for name in ("discovery", "dev", "test")}
    assert sizes == {"discovery": 2, "dev": 1, "test": 3}
    assert len(list((tmp_path / "s/images").iterdir())) == 6


def test_data_words_writes_items_of_text(tmp_path: Path) -> None:
    assert call("data", "words", "--to", tmp_path, "--discovery", 2, "--dev", 1, "--test", 3) == 0
    sizes = {name: len(hones.load_items(tmp_path / f"{name}.json")) for name in ("discovery", "dev", "test")}
    assert sizes == {"discovery": 2, "dev": 1, "test": 3}
    assert all(item.file_name is None for item in hones.load_items(tmp_path / "test.json"))


def test_a_budget_out_of_range_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    for ratio in ("0", "nan", "1.5"):
        options = ("--model", "absent", "--data", "absent.json", "--test", "absent.json", "--out", "absent")
        assert call("compare", *options, "--ratio", ratio) == 2
        assert "--ratio" in capsys.readouterr().err
    assert not Path("absent").exists()
