"""Heads and neurons say whose they are, and another model refuses them."""

import json
import shutil
from pathlib import Path

import pytest
from test_cli import call

from hones import HonesError, load_vlm, make_task
from hones.data.items import Items
from hones.method.steering.settings import Scales
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.runs.artifacts import write_scales
from hones.runs.comparing import ComparisonRequest, compare
from hones.runs.record import RunFolder
from hones.runs.study import Study
from hones.sweep.run import SweepSettings
from hones.tasks.log_probability import LogProbability

TASK = LogProbability(make_task("vqa"))


def study_of(vlm: VLM, folder: Path) -> Study:
    return Study(vlm, RunFolder(folder), SweepSettings(max_new_tokens=3), max_left_out=1.0)


@pytest.fixture(scope="module")
def found(vlms: dict[str, VLM], discovery: Items, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """heads.json and neurons.json of the random LLaVA."""
    folder = tmp_path_factory.mktemp("found")
    study = study_of(vlms["llava"], folder)
    study.heads([TASK], discovery[:2])
    study.neurons(TASK, discovery[:2], folder / "vqa" / "heads.json", 0.2)
    return folder / "vqa"


def test_both_files_name_the_model_and_its_revision(found: Path, vlms: dict[str, VLM]) -> None:
    heads, neurons = (json.loads((found / name).read_text()) for name in ("heads.json", "neurons.json"))
    revision = vlms["llava"].revision
    assert revision.startswith("sha256:") and (heads["model"], heads["revision"]) == ("llava", revision)
    assert isinstance(neurons, list) and len(neurons) > 1
    assert {(row["model"], row["revision"]) for row in neurons} == {("llava", revision)}
    assert [*neurons[0]][:4] == ["rank", "layer", "neuron", "score"]


def test_another_model_refuses_them_by_name(
    found: Path, vlms: dict[str, VLM], discovery: Items, tmp_path: Path
) -> None:
    other = study_of(vlms["qwen"], tmp_path / "run")
    for name in ("heads.json", "neurons.json"):
        shutil.copy(found / name, tmp_path)  # alone, without its run
    heads, neurons = tmp_path / "heads.json", tmp_path / "neurons.json"
    says = r"{} names llava at revision sha256:\w+, this is .*qwen at sha256:\w+; expected the model that the heads"
    refused = {
        "neurons": lambda: other.neurons(TASK, discovery, heads),
        "compare": lambda: compare(other, TASK, discovery, discovery, heads, ComparisonRequest([METHODS["hones"]])),
        "mask": lambda: other.mask(TASK, discovery, neurons),
        "steer": lambda: other.steer(TASK, discovery, discovery, neurons),
    }
    for command, run in refused.items():
        file = heads if command in ("neurons", "compare") else neurons
        with pytest.raises(HonesError, match=says.format(file)):
            run()


def test_eval_refuses_them_too(
    found: Path,
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scales = tmp_path / "vqa" / "steering" / "hones" / "scales.json"
    write_scales(scales, Scales({(0, 0): 0.5}))
    RunFolder(tmp_path).finish("vqa/steer", {"model": "llava", "revision": "sha256:1"}, {}, [scales])
    asked = ("eval", "--model", model_folders["qwen"], "--task", "vqa", "--data", shapes["dev"], "--limit", 1)
    for option, file in (("--heads", found / "heads.json"), ("--neurons", found / "neurons.json")):
        assert call(*asked, option, file) == 2
        assert f"hones: {file} names llava at revision" in capsys.readouterr().err
    assert call(*asked, "--scales", scales) == 2
    assert f"hones: {tmp_path / 'run.json'} names llava at revision sha256:1" in capsys.readouterr().err


def test_the_revision_decides_and_not_the_place(
    found: Path, model_folders: dict[str, Path], discovery: Items, tmp_path: Path
) -> None:
    shutil.copytree(model_folders["llava"], tmp_path / "elsewhere")
    moved = load_vlm(str(tmp_path / "elsewhere"))
    study = study_of(moved, tmp_path / "run")
    assert study.sites(found / "neurons.json")
    (tmp_path / "elsewhere" / "README.md").write_text("no part of the model")
    assert load_vlm(moved.name).revision == moved.revision
    config = tmp_path / "elsewhere" / "config.json"
    config.write_text(config.read_text() + " ")
    changed = study_of(load_vlm(moved.name), tmp_path / "other")
    with pytest.raises(HonesError, match=r"this is .*elsewhere at sha256:"):
        changed.sites(found / "neurons.json")


def test_files_that_say_nothing_are_accepted_as_before(found: Path, vlms: dict[str, VLM], tmp_path: Path) -> None:
    rows = json.loads((found / "neurons.json").read_text())
    plain = [{key: row[key] for key in ("rank", "layer", "neuron", "score")} for row in rows]
    study = study_of(vlms["qwen"], tmp_path / "run")
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    assert study.sites(tmp_path / "plain.json")
    (tmp_path / "mixed.json").write_text(json.dumps([plain[0], rows[1]]))
    with pytest.raises(HonesError, match="names llava"):
        study.sites(tmp_path / "mixed.json")
    (tmp_path / "odd.json").write_text(json.dumps([{**plain[0], "revision": 3}]))
    with pytest.raises(HonesError, match=r"odd\.json names no model and revision"):
        study.sites(tmp_path / "odd.json")
