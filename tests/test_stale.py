"""A report names results that no longer belong together."""

import random
from pathlib import Path

import numpy as np
import pytest
from run_results import LAYERS, around, make_analysis, make_heads, make_masking, make_neurons, write_analysis
from test_cli import call

from hones.files import digest_of
from hones.runs.artifacts import write_heads, write_neurons, write_result
from hones.runs.record import RunFolder
from hones.runs.results import read_results
from hones.runs.stale import stale


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run of one task: heads, neurons, mask, analysis, each recorded with what it was found from."""
    rng, folder, run = random.Random(0), tmp_path / "run" / "vqa", RunFolder(tmp_path / "run")
    heads, neurons, masking = (folder / f"{name}.json" for name in ("heads", "neurons", "masking"))
    write_heads(folder, make_heads(rng), LAYERS, 4)
    run.finish("vqa/heads", {}, {}, [heads])
    write_neurons(folder, np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(rng))
    run.finish("vqa/neurons", {"heads": digest_of(heads)}, {}, [neurons])
    write_result(masking, make_masking(around(0.2), around(0.2)))
    run.finish("vqa/mask", {"neurons": digest_of(neurons)}, {}, [masking])
    write_analysis(run.path, make_analysis(("vqa",)))
    used = {"vqa": {"heads": digest_of(heads), "neurons": digest_of(neurons)}}
    run.finish("analysis", {"tasks": used}, {}, [run.path / "analysis/analysis.json"])
    return run.path


def test_a_whole_run_has_none(run: Path) -> None:
    assert stale(read_results(run)) == []
    (run / "run.json").unlink()
    assert stale(read_results(run)) == []


def test_other_neurons_make_masking_and_analysis_stale(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "vqa/neurons.json"
    write_neurons(run / "vqa", np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(random.Random(7)))
    found = stale(read_results(run))
    assert found == [
        "vqa/neurons.json: changed since vqa/neurons wrote it",
        "vqa/mask: not found from the present vqa/neurons.json",
        "analysis: not found from the present vqa/neurons.json",
    ]
    RunFolder(run).finish("vqa/neurons", {"heads": digest_of(run / "vqa/heads.json")}, {}, [file])
    assert stale(read_results(run)) == found[1:]
    assert call("report", run) == 0
    assert all(line in capsys.readouterr().err for line in found[1:2])
    assert found[2] in (run / "report.html").read_text(encoding="utf-8")


def test_other_heads_and_unfinished_stages_are_named(run: Path) -> None:
    write_heads(run / "vqa", make_heads(random.Random(9)), LAYERS, 4)
    RunFolder(run).forget("vqa/mask")
    write_neurons(run / "vqa", np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(random.Random(7)))
    lines = "\n".join(stale(read_results(run)))
    assert "vqa/masking.json: run.json has no finished vqa/mask" in lines
    assert "vqa/neurons: not found from the present vqa/heads.json" in lines
    assert "analysis: not found from the present vqa/heads.json and vqa/neurons.json" in lines


def test_compared_methods_must_be_those_in_the_folder(run: Path) -> None:
    file = run / "vqa/methods/dvp/neuron_importance.npy"
    write_neurons(file.parent, np.zeros((LAYERS, 100), dtype=np.float32), make_neurons(random.Random(1)))
    RunFolder(run).finish("vqa/compare", {"methods": {"dvp": digest_of(file)}}, {})
    assert stale(read_results(run)) == []
    file.write_bytes(b"other")
    assert stale(read_results(run)) == ["vqa/compare: not found from the present vqa/methods/dvp/neuron_importance.npy"]
