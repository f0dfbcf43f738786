"""The paper's configurations, what they cost where nothing is there, and the same small; `make hub`'s commands."""

import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cli import call
from typer._click.exceptions import UsageError

from hones import HonesError, read_config, write_shapes
from hones.runs.paper import PAPER, paper_config
from hones.runs.plan import absent, shapes
from hones.runs.plan.forecast import plan
from hones.runs.plan.request import make_request

ROOT = Path(__file__).parents[1]
# what method.md's tables say: critical heads, of so many; neurons at 1 %
SIZES = {"llava-1.5-7b": (30, 32 * 32, 352_256, 3_523), "qwen2.5-vl-7b": (25, 28 * 28, 530_432, 5_304)}


@pytest.mark.parametrize("name", PAPER)
def test_a_configuration_of_the_paper_is_the_papers(name: str, tmp_path: Path) -> None:
    file = tmp_path / "paper.yaml"
    assert call("init", "--paper", name, file) == 0
    config = read_config(file)
    assert (config.model, config.top_k, config.ratio) == (PAPER[name].model, SIZES[name][0], 0.01)
    assert config.tasks == ("vqa", "ocr", "caption", "retrieval") and config.candidates == 50
    assert (config.limit.discovery, config.limit.dev, config.limit.test) == (5000, 2000, 3000)
    assert config.data.discovery == tmp_path / "coco/discovery.json", "as `hones data coco` writes it"
    assert config.compare is not None and set(config.compare.methods) == {"ap", "ma", "ape"}
    training = config.training.model_dump()
    released = {"beta": 0.05, "gamma": 1e-5, "learning_rate": 5e-4, "final_learning_rate": 0.1, "epochs": 2}
    released |= {"batch_size": 4, "clip": 1.0, "max_scale": 1.5, "seed": 3407, "early_stopping": None}
    assert training == released
    assert config.steering.methods == ("hones", "no-kl", "rand-neuron", "fixed-amp", "grid-search")
    assert f"{SIZES[name][3]:,} of {SIZES[name][2]:,}" in file.read_text()


def test_a_model_that_the_paper_has_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "--paper", "llava-13b", tmp_path / "a.yaml") == 2
    assert (
        "--paper llava-13b; expected one of the paper's models: llava-1.5-7b, qwen2.5-vl-7b" in capsys.readouterr().err
    )
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations of the hub cannot be read; few items are measured."""
    read = shapes.AutoConfig.from_pretrained

    def unreachable(source: str, **options: Any) -> Any:
        if not Path(source).is_dir():
            raise OSError("no network")
        return read(source, **options)

    monkeypatch.setattr(shapes.AutoConfig, "from_pretrained", unreachable)
    monkeypatch.setattr(absent, "SAMPLE", 4)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_run_is_planned_without_weights_hub_or_pictures(name: str, tmp_path: Path, no_hub: None) -> None:
    (tmp_path / "paper.yaml").write_text(paper_config(name))
    config = read_config(tmp_path / "paper.yaml", ["tasks=[vqa, retrieval]"]).model_dump(exclude_unset=True)
    found = plan(make_request(**config, stand_in=True, memory=80.0, tflops=300.0))
    top_k, heads, neurons, _ = SIZES[name]
    assert found.shapes.layers * found.shapes.heads == heads and found.shapes.layers * found.shapes.neurons == neurons
    # one cell per head, item and candidate, and the unedited model's
    assert found.stages[0].cells == (heads + 1) * 5000 * 2
    assert next(stage for stage in found.stages if stage.name == "neurons").cells == (top_k + 1) * 5000
    notes = " ".join(found.notes)
    assert f"the configuration of {config['model']} could not be read; its shapes are those published" in notes
    assert "discovery.json is not there; questions and captions are as long as those of the built-in" in notes
    assert "planned for 5,000 items" in notes


def test_what_is_not_known_does_not_stand_in(tmp_path: Path, no_hub: None) -> None:
    """Neither another model, nor the items of a file whose number is open, nor those of options."""
    (tmp_path / "paper.yaml").write_text(paper_config("llava-1.5-7b"))

    def planned(*changes: str, stand_in: bool = True) -> None:
        config = read_config(tmp_path / "paper.yaml", changes).model_dump(exclude_unset=True)
        plan(make_request(**config, stand_in=stand_in, memory=80.0, tflops=300.0))

    with pytest.raises(HonesError, match=r"cannot read the configuration of 'llava-hf/llava-1.5-13b-hf'"):
        planned("model=llava-hf/llava-1.5-13b-hf")
    with pytest.raises(HonesError, match=r"no file .*discovery.json"):
        planned("limit.discovery=null")
    with pytest.raises(HonesError, match=r"no file .*discovery.json"):
        planned(stand_in=False)
    with pytest.raises(HonesError, match=r"no file .*discovery.json"):
        planned(f"tasks=[{ROOT / 'docs/examples/pope.yaml'}]")


def test_annotations_are_planned_without_their_pictures(tmp_path: Path, no_hub: None) -> None:
    file = write_shapes(tmp_path, {"discovery": 3})["discovery"]
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "paper.yaml").write_text(paper_config("llava-1.5-7b"))
    changes = [f"data.discovery={file}", "data.images=nowhere", "tasks=[vqa]", "limit.dev=2", "compare=null"]
    config = read_config(tmp_path / "paper.yaml", changes).model_dump(exclude_unset=True)
    found = plan(make_request(**config, stand_in=True, memory=80.0, tflops=300.0))
    assert "discovery: 3 of 3 measured pictures are not there; their annotated sizes were taken" in found.notes


def test_set_takes_the_place_of_what_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        yaml.safe_dump({"model": "a", "out": "b", "data": dict.fromkeys(("discovery", "dev", "test"), "x")})
    )
    changes = ["model=tiny-llava", "data.dev=y.json", "limit.test=7", "compare={methods: [dvp, atp]}", "tasks=[vqa]"]
    config = read_config(file, [*changes, "compare.draws=2", "steering.epochs=3", "top_k="])
    assert config.model == "tiny-llava" and config.limit.test == 7 and config.limit.dev is None
    assert (config.data.dev, config.data.test) == (tmp_path / "y.json", tmp_path / "x"), "from the file's folder"
    assert config.compare is not None and (config.compare.methods, config.compare.draws) == (("dvp", "atp"), 2)
    assert config.top_k is None and config.steering.epochs == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model", "--set model; expected KEY=VALUE or SECTION.KEY=VALUE"),
        ("limit..test=1", "--set limit..test=1; expected KEY=VALUE"),
        ("limit={test: 1", "cannot read the value of --set limit={test: 1 as YAML"),
        ("model.name=a", "--set model.name=a: model is 'a'; expected a section with keys"),
        ("limits.test=1", "no key limits, perhaps limit; expected some of model, out"),
        ("limit.tests=1", "no key limit.tests, perhaps test; expected some of discovery"),
        ("limit.test=none", "limit.test: "),
    ],
)
def test_a_change_that_is_none_is_named(change: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        yaml.safe_dump({"model": "a", "out": "b", "data": dict.fromkeys(("discovery", "dev", "test"), "x")})
    )
    with pytest.raises(HonesError) as found:
        read_config(file, [change])
    assert message in str(found.value)


def test_set_belongs_to_a_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", "--model", "tiny-llava", "--data", "x.json", "--set", "top_k=5") == 2
    assert "--set without a configuration; expected the option itself" in capsys.readouterr().err


HUB = ROOT / "bench/hub.py"


def hub(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(HUB), *map(str, options)])
    runpy.run_path(str(HUB), run_name="__main__")


def test_the_commands_of_make_hub_are_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hub(monkeypatch, "--dry-run", "--out", tmp_path / "hub")
    *commands, last = capsys.readouterr().out.splitlines()
    assert last == "19 commands, each as the command line takes it; none was run" and len(commands) == 19
    for model in ("HuggingFaceTB/SmolVLM-256M-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "llava-hf/llava-1.5-7b-hf"):
        own = [line for line in commands if f"--model {model} " in line]
        assert [line.split()[1] for line in own] == ["verify", *["eval"] * 4, "heads"]
        assert "--limit 32" in own[-1] and "--racing 0.95" in own[-1]
    assert not [*tmp_path.iterdir()]


def test_a_command_that_is_none_ends_the_dry_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check = runpy.run_path(str(HUB))["check"]
    for words in (["head"], ["heads", "--model", "tiny-llava"], ["verify", "--model", "tiny-llava", "--lim", "1"]):
        with pytest.raises((KeyError, UsageError)):
            check(words)
    with pytest.raises(HonesError, match="no folder"):
        hub(monkeypatch, "--dry-run", "--models", tmp_path / "none")


@pytest.mark.slow
def test_the_commands_of_make_hub_run_on_a_built_in_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    with pytest.raises(SystemExit) as ended:
        hub(monkeypatch, "--models", "tiny-llava", "--items", 6, "--out", tmp_path)
    assert ended.value.code == 0
    assert (tmp_path / "summary.md").read_text().count("| 0 |") == 7
    assert (tmp_path / "tiny-llava/run/ocr/heads.json").is_file()


@pytest.mark.slow
def test_the_papers_run_ends_on_other_pictures_and_a_small_model(tmp_path: Path) -> None:
    """The file of `hones init --paper`, with model and data swapped as it says itself."""
    write_shapes(tmp_path / "shapes", {"discovery": 16, "dev": 16, "test": 16}, source="signs")
    file = tmp_path / "paper.yaml"
    assert call("init", "--paper", "llava-1.5-7b", file) == 0
    text = file.read_text().replace("\\\n#", "")
    command = next(line for line in text.splitlines() if "hones run THIS.yaml" in line).partition(
        "hones run THIS.yaml"
    )[2]
    assert call("run", file, *shlex.split(command), "--set", "limit.test=16", "--set", "anyway=true") in (0, 1)
    run = tmp_path / "small"
    for task in ("ocr", "caption", "retrieval"):
        for part in ("heads.json", "masking.json", "comparison.json", "steering/evidence.json"):
            assert (run / task / part).is_file(), f"{task}/{part}"
    assert (run / "report.html").is_file() and (run / "analysis/analysis.json").is_file()
