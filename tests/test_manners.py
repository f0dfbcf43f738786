"""What the command line says before, after and in place of a stage."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cli import call

import hones
from hones.cli.find import Heads, Neurons
from hones.cli.following import say_next
from hones.errors import HonesError
from hones.models.loading import load_vlm
from hones.models.processors import loading
from hones.runs.commented import commented_config
from hones.runs.config import RunConfig, read_config

HEADS = {
    "baseline": {"metric": 1.0, "metric_name": "retrieval_accuracy", "n": 1},
    "all_heads": [{"layer": 0, "head": 0, "score": 1.0, "baseline": 1.0, "intervened": 0.0}],
    "top_heads": [{"layer": 0, "head": 0}],
}
WITHOUT_TORCH = """
import shlex, sys
from hones.cli import main
for line in sys.stdin:
    sys.argv = ["hones", *shlex.split(line)]
    try:
        main()
    except SystemExit as stop:
        print(line.strip(), "->", stop.code, "with torch" if "torch" in sys.modules else "without")
"""


def test_cheap_checks_and_the_methods_need_no_torch(shapes: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text(json.dumps(HEADS))
    (tmp_path / "bad.yaml").write_text("model: x\nratioo: 3")
    (tmp_path / "bad.json").write_text("[1]")
    content: dict[str, Any] = {
        "model": "tiny-llava",
        "out": "r",
        "data": {name: str(file) for name, file in shapes.items()},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**content, "tasks": ["telepathy"]}))
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**content, "data": {**content["data"], "dev": "absent.json"}}))
    data = shapes["discovery"]
    model = f"--model tiny-llava --out {tmp_path}/run"
    stage = f"{model} --task vqa --data {data}"
    lines = [
        f"neurons {stage} --heads {tmp_path}/heads.json --ratio 2",
        f"heads {stage} --top-k 0",
        f"heads {stage} --top-k 100000",
        f"heads {stage} --engine warp",
        f"heads {stage} --utility much",
        f"heads {model} --task telepathy --data {data}",
        f"heads --model ./nonexist --out {tmp_path}/run --task vqa --data {data}",
        f"heads {model} --task vqa --data {tmp_path}/absent.json",
        f"neurons {stage} --method telepathy",
        f"neurons {stage}",
        f"neurons {stage} --heads {tmp_path}/bad.json",
        f"mask {stage}",
        f"mask {stage} --neurons {tmp_path}/absent.json",
        f"steer {model} --task vqa --dev {data} --test {data} --learning-rate 0",
        f"compare {model} --data {data} --test {data} --top-k 100000",
        "explain --model tiny-llava --top-k 100000 why",
        f"compare {model} --data {data} --test {data} --methods dvp,telepathy",
        f"eval --model tiny-llava --task vqa --data {data} --scales {tmp_path}/absent.json",
        f"ask --model tiny-llava --scales {tmp_path}/absent.json why",
        f"run {tmp_path}/absent.yaml",
        f"run {tmp_path}/bad.yaml",
        f"run {tmp_path}/task.yaml",
        f"run {tmp_path}/data.yaml",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input="\n".join([*lines, "methods"]), capture_output=True, text=True
    )
    said = [line for line in done.stdout.splitlines() if "->" in line and ("torch" in line or "without" in line)]
    assert said == [*(f"{line} -> 2 without" for line in lines), "methods -> 0 without"], done.stderr
    assert "--ratio 2.0; expected a share" in done.stderr and "--top-k 100000; expected 1 to" in done.stderr
    assert "no folder ./nonexist" in done.stderr and f"no file {tmp_path}/run/vqa/heads.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == f"hones {hones.__version__}"


def test_each_stage_names_the_next_and_takes_what_the_run_holds(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is next is typed: the printed line, with files in place of its placeholders."""
    out = tmp_path / "a run"

    def follow(line: str, beginning: str) -> list[str]:
        words = shlex.split(line)
        files = {"TEST.json": shapes["test"], "DEV.json": shapes["dev"]}
        capsys.readouterr()
        assert call(*(files.get(word, word) for word in words[1:])) == 0
        shown = capsys.readouterr()
        assert beginning in shown.err
        return [x.removeprefix("next: ") for x in shown.out.splitlines() if x.startswith("next: ")]

    model = shlex.quote(str(model_folders["qwen"]))
    common = f"--model {model} --task retrieval --out {shlex.quote(str(out))} --limit 5 --candidates 6"
    (neurons,) = follow(f"hones heads {common} --data {shapes['discovery']}", "")
    assert f"--data {shapes['discovery']}" in neurons and "--limit 5" in neurons and "--fresh" not in neurons
    mask, steer = follow(f"{neurons} --ratio 0.1", f"--heads {out}/retrieval/heads.json, as this run has it")
    assert "--data TEST.json" in mask and "--dev DEV.json --test TEST.json" in steer and "--ratio" not in mask
    steer, answers, report = follow(mask, f"--neurons {out}/retrieval/neurons.json, as this run has it")
    assert f"--test {shapes['test']}" in steer
    assert (shlex.split(answers), shlex.split(report)) == (
        ["hones", "answers", str(out), "--changed"],
        ["hones", "report", str(out)],
    )
    steered, *_ = follow(f"{steer} --epochs 1", "")
    assert f"--scales '{out}/retrieval/steering/hones/scales.json'" in steered
    assert call(*shlex.split(steered)[1:]) == 0

    capsys.readouterr()
    assert call(*shlex.split(f"heads {common} --data {shapes['discovery']} --limit 3")) == 2
    error = capsys.readouterr().err
    assert "holds retrieval/heads computed on 5 items, now with --limit 3 (3 items); " in error and "--fresh" in error


def test_only_what_differs_is_carried(capsys: pytest.CaptureFixture[str], shapes: dict[str, Path]) -> None:
    done = Heads(model="tiny-llava", task="all", data=Path("a b.json"), out=Path("r"), fresh=True, images=Path("x"))
    say_next(done, Neurons, task="vqa")
    line = capsys.readouterr().out.strip()
    assert line == "next: hones neurons --model tiny-llava --out r --task vqa --data 'a b.json' --images x"


def test_init_writes_a_configuration_that_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    assert call("init", file) == 0
    text = file.read_text()
    assert RunConfig.model_validate(yaml.safe_load(text)).model == "MODEL", "as it is"
    assert all(f"{name}:" in text for name in RunConfig.model_fields)
    whole = re.sub(r"^# (?=.*:)(?!A conf|Keys)", "", text, flags=re.M)
    content = yaml.safe_load(whole.replace("#   images", "  images"))
    assert set(content) == set(RunConfig.model_fields)
    assert set(content["compare"]) == {"methods", "rounds", "width", "draws", "curves", "keep", "rest", "budgets"}
    assert RunConfig.model_validate(content).steering.epochs == 2, "with every key in place"
    assert call("init", file) == 2
    assert "is there already" in capsys.readouterr().err
    assert file.read_text() == text == commented_config(RunConfig)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_init_left_to_be_filled_in_is_named_by_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    file = tmp_path / "run.yaml"
    assert call("init", file) == 0
    monkeypatch.setattr("socket.socket", None)  # no hub is asked
    capsys.readouterr()
    assert call(command, file) == 2
    (said,) = capsys.readouterr().err.replace("\n", " ").split("hones: ")[1:]
    lines = file.read_text().splitlines()
    for key, value in {"model": "MODEL", "dev": "DEV.json", "test": "TEST.json", "discovery": "DISCOVERY.json"}.items():
        (number,) = [i for i, line in enumerate(lines, 1) if line.strip().startswith(f"{key}: {value}")]
        where = key if key == "model" else f"data.{key}"
        assert f"line {number}, {where}: {value} (expected " in said
    assert "(expected hub id, local folder, or built in: tiny-llava, tiny-qwen2.5-vl, tiny-text); line" in said
    assert "data.dev: DEV.json (expected an annotation file, what scales are learned on)" in said


def test_what_is_filled_in_is_no_placeholder(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    assert call("init", file) == 0
    data = "data={discovery: a.json, dev: b.json, test: c.json}"
    assert read_config(file, ["model=tiny-llava", data]).model == "tiny-llava"
    with pytest.raises(HonesError, match=r"not filled in: line 3, model: MODEL \([^;]*\); `hones data"):
        read_config(file, [data])
    with pytest.raises(HonesError, match=r"not filled in: line 8, data\.dev: DEV\.json \([^;]*\); `hones data"):
        read_config(file, ["model=tiny-llava", "data.discovery=a.json", "data.test=c.json"])
    (tmp_path / "MODEL").mkdir()
    (tmp_path / "DEV.json").touch()
    assert read_config(file, ["data.discovery=a.json", "data.test=c.json"]).model == "MODEL", "a folder that is there"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"limit": 8}, "limit is 8; expected keys under it: discovery, dev, test"),
        ({"ratios": 1}, "no key ratios, perhaps ratio; expected some of model, out, data, tasks"),
        ({"steering": {"epoch": 1}}, "no key steering.epoch, perhaps epochs; expected some of beta, gamma"),
        ({"steering": {"early_stopping": {"patient": 1}}}, "perhaps patience; expected some of share, patience"),
        ({"compare": {"methods": ["dvp"], "budgets": [2]}}, "compare.budgets.0"),
        (
            {"compare": {"methods": ["dvp"], "zzz": 1}},
            "no key compare.zzz; expected some of methods, rounds, width, draws, curves, keep, rest, budgets",
        ),
    ],
)
def test_an_unknown_key_lists_the_known_and_the_nearest(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    file = tmp_path / "c.yaml"
    data = {"discovery": "a", "dev": "b", "test": "c"}
    file.write_text(yaml.safe_dump({"model": "m", "out": "o", "data": data, **keys}))
    with pytest.raises(HonesError, match=re.escape(message)):
        read_config(file)


def test_a_forgotten_picture_folder_is_said_before_a_model_is_loaded(
    shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "test.json"
    alone.write_bytes(shapes["test"].read_bytes())
    assert call("heads", "--model", "tiny-llava", "--task", "vqa", "--data", alone, "--out", tmp_path / "r") == 2
    error = capsys.readouterr().err
    assert f"of {alone} is in {tmp_path}" in error and "name it with --images" in error


def test_a_model_with_code_of_its_own_names_the_option(model_folders: dict[str, Path], tmp_path: Path) -> None:
    said = "The repository x contains custom code. Please pass the argument `trust_remote_code=True`"
    with pytest.raises(HonesError, match=r"needs code of its own.*--trust-remote-code"), loading("it", expected="a"):
        raise ValueError(said)
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise AssertionError('this must not run')")
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(model_folders["llava"] / name, tmp_path)
    with pytest.raises(HonesError, match=r"needs code of its own.*--trust-remote-code"):
        load_vlm(str(tmp_path))


def test_small_weights_on_this_machine_load_without_a_bar(
    model_folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    load_vlm(str(model_folders["llava"]))
    assert "Loading weights" not in capfd.readouterr().err and logging.is_progress_bar_enabled()


def test_old_spellings_still_work_and_are_not_shown(
    model_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (("compare",), ("plan",), ("benchmark", "planted")):
        assert call(*command, "--help") == 0
        shown = capsys.readouterr().out
        assert "--task " in shown and "--tasks" not in shown and "--seeds" not in shown
    old = ("--tasks", "vqa,vqa", "--seeds=2", "--data", "a", "--test", "b", "--out", tmp_path / "run")
    assert call("compare", "--model", model_folders["llava"], *old) == 2
    assert "two tasks are named vqa" in capsys.readouterr().err


def test_ctrl_c_says_what_is_kept(shapes: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["heads", "--model", "tiny-llava", "--task", "retrieval", "--data", str(shapes["discovery"])]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom hones.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--out", str(out), "--candidates", "4"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "hones.log").exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error.strip().splitlines()[-1] == (
        f"hones: interrupted: {out} keeps what has been computed; the same command goes on from there"
    )
    assert "Traceback" not in error


def test_options_stand_in_panels(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("steer", "--help") == 0
    shown = capsys.readouterr().out
    panels = re.findall(r"╭─ (\w+) ─", shown)
    assert panels == ["Options", "Data", "Model", "Speed", "Cluster", "Run", "Training", "Evidence"]
