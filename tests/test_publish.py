"""What a run found as one file: whole, valid by the schema that is shipped, without paths, and usable as it is."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_runs import OLD_RUN
from jsonschema import Draft202012Validator
from run_results import make_heads
from test_cli import call

from hones import HonesError, RunFolder, Study, load_items, make_task, publish, read_published
from hones.files import digest_of, write_json
from hones.method.found import HeadResult, HeadScore, RankedNeuron
from hones.models.place import BUILT_IN_FOLDER
from hones.models.vlm import VLM
from hones.runs.artifacts import read_heads, read_neurons, read_result, read_scales, write_heads, write_neurons
from hones.runs.found_on import found_on
from hones.runs.published import SCHEMA_FILE, Published
from hones.sharing.mib import mib_graph
from hones.sharing.publish import public_name
from hones.stats import Interval
from hones.sweep.run import SweepSettings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of all stages, as an earlier version left it."""
    return Path(shutil.copytree(OLD_RUN, tmp_path / "somewhere/run"))


def schema() -> dict[str, Any]:
    return json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))


def test_the_shipped_schema_is_that_of_the_reader() -> None:
    """After a change that is meant: write_json(SCHEMA_FILE, Published.model_json_schema())."""
    Draft202012Validator.check_schema(schema())
    assert schema() == json.loads(json.dumps(Published.model_json_schema()))


def test_a_run_is_published_whole(run: Path) -> None:
    file = publish(run)
    assert file == run / "found.json"
    content = json.loads(file.read_text())
    assert [*Draft202012Validator(schema()).iter_errors(content)] == []
    found = read_published(file)
    assert found.model_dump(mode="json") == content
    record = json.loads((run / "run.json").read_text())["stages"]
    assert (found.model, found.revision) == ("tiny-llava", record["vqa/heads"]["fingerprint"]["revision"])
    assert (found.layers, found.heads_per_layer) == np.load(run / "vqa/head_scores.npy").shape
    assert (found.layers, found.neurons_per_layer) == np.load(run / "vqa/neuron_importance.npy").shape
    # heads and neurons are those of the run, by every method
    heads, neurons = read_heads(run / "vqa/heads.json"), read_neurons(run / "vqa/neurons.json")
    assert found.heads() == heads and found.heads().critical == heads.critical
    critical = [(h.layer, h.head) for h in found.tasks["vqa"].heads.scored if h.critical]  # pyright: ignore[reportOptionalMemberAccess]
    assert critical == [(h.layer, h.head) for h in heads.critical]
    assert found.neurons("vqa") == neurons and found.neurons(method="hones") == neurons
    for method in ("dvp", "random"):
        assert found.neurons("vqa", method) == read_neurons(run / f"vqa/methods/{method}/neurons.json")
    task = found.tasks["vqa"]
    assert task.neurons is not None and (task.neurons.method, task.neurons.ratio) == ("hones", 0.005)
    scales = {(x.layer, x.neuron): x.scale for x in task.scales["hones"]}
    assert scales == read_scales(run / "vqa/steering/hones/scales.json").values
    # where it is from
    used = {split: (items.items, items.file, items.data, items.asked) for split, items in task.data.items()}
    assert used == {
        "discovery": (6, "discovery.json", *(record["vqa/heads"]["fingerprint"][x] for x in ("data", "asked"))),
        "test": (5, "test.json", *(record["vqa/mask"]["fingerprint"][x] for x in ("data", "asked"))),
        "dev": (5, "dev.json", *(record["vqa/steer"]["fingerprint"]["dev"][x] for x in ("data", "asked"))),
    }
    assert task.seed == 3407 and found.versions["torch"] and found.settings["max_new_tokens"] == 24
    assert task.masking is not None and task.masking.random.value == pytest.approx(
        read_result(run / "vqa/masking.json", dict[str, Any])["control"]["value"]
    )


def test_no_place_of_a_machine_is_in_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "run.json"
    moved = str(run.parent / "models/mine")
    stages = json.loads(file.read_text().replace('"tiny-llava"', json.dumps(moved)))
    for entry in stages["stages"].values():
        for split in ("discovery", "dev", "test"):
            if split in entry:
                entry[split]["file"] = f"{run.parent}/data/{split}.csv?question=text"
                entry[split]["images"] = str(run.parent)
    write_json(file, stages)
    assert call("publish", run, "--to", run / "a.json") == 0
    assert "a.json" in capsys.readouterr().out
    text = (run / "a.json").read_text()
    assert "somewhere" not in text and str(Path.home()) not in text and "../" not in text and "platform" not in text
    assert '"model": "mine"' in text and '"file": "dev.csv"' in text
    names = {"org/model": "org/model", "/a/b/model": "model", "./model": "model", "C:\\my\\model": "model"}
    assert {name: public_name(name, "abc") for name in names} == names
    assert public_name("runs/model", "sha256:1") == "model", "a digest is of local files"


def test_what_does_not_belong_together_is_not_published(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = [vars(n) | {"score": 1.0} for n in read_neurons(run / "vqa/neurons.json")]
    write_json(run / "vqa/neurons.json", other)
    assert call("publish", run) == 2
    assert "results that do not belong together: vqa/neurons.json: changed since" in capsys.readouterr().err
    stages = json.loads((run / "run.json").read_text())
    stages["stages"]["vqa/neurons"]["artifacts"]["vqa/neurons.json"] = digest_of(run / "vqa/neurons.json")
    for stage in ("mask", "steer", "evidence"):
        stages["stages"][f"vqa/{stage}"]["fingerprint"]["neurons"] = digest_of(run / "vqa/neurons.json")
    del stages["stages"]["analysis"]
    shutil.rmtree(run / "analysis")
    stages["stages"]["vqa/mask"]["fingerprint"]["revision"] = "sha256:other"
    write_json(run / "run.json", stages)
    with pytest.raises(HonesError, match=r"stages of several: revision is sha256:.* and sha256:other"):
        publish(run)
    (run / "run.json").unlink()
    with pytest.raises(HonesError, match=r"has no run\.json"):
        publish(run)
    for wrong in (("--format", "yaml"), ("--task", "vqa")):
        assert call("publish", run, *wrong) == 2
        assert "; expected" in capsys.readouterr().err


def of_neurons(*selected: dict[str, int]) -> dict[str, Any]:
    """A change of a published file: other neurons."""
    return {"tasks": {"vqa": {"neurons": {"method": "a", "selected": [*selected]}}}}


SITE = {"layer": 1, "neuron": 0, "score": 1}
BAD = {
    "version": ({"hones_found": 2}, "hones_found: Input should be 1"),
    "empty": ({"tasks": {}}, "tasks: Dictionary should have at least 1 item"),
    "key": ({"extra": 1}, "extra: Extra inputs are not permitted"),
    "layer": (of_neurons(SITE | {"layer": -1}), "layer"),
    "twice": (of_neurons(SITE, SITE), "twice"),
}


@pytest.mark.parametrize(("change", "line"), BAD.values(), ids=BAD)
def test_bad_files_are_one_line(run: Path, change: dict[str, Any], line: str) -> None:
    file = publish(run)
    write_json(file, json.loads(file.read_text()) | change)
    assert [*Draft202012Validator(schema()).iter_errors(json.loads(file.read_text()))] or line == "twice"
    for read in (read_published, read_neurons, read_heads):
        with pytest.raises(HonesError, match=line) as caught:
            read(file)
        assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_what_is_not_in_it_is_said(run: Path) -> None:
    found = read_published(publish(run))
    for ask, line in (
        (lambda: found.neurons("ocr"), "no task 'ocr' was published; expected one of vqa"),
        (lambda: found.neurons(method="atp"), "no neurons of atp were published; expected one of dvp, hones, random"),
        (lambda: read_published(run / "vqa/heads.json"), "is no published run"),
    ):
        with pytest.raises(HonesError, match=line):
            ask()
    two = found.model_copy(update={"tasks": {"vqa": found.tasks["vqa"], "ocr": found.tasks["vqa"].model_copy()}})
    with pytest.raises(HonesError, match="no task is named; expected one of vqa, ocr"):
        two.heads()
    bare = found.tasks["vqa"].model_copy(update={"heads": None, "neurons": None, "methods": {}})
    with pytest.raises(HonesError, match="no heads were published"):
        found.model_copy(update={"tasks": {"vqa": bare}}).heads()
    with pytest.raises(HonesError, match="no neurons of the run were published; expected one of none"):
        found.model_copy(update={"tasks": {"vqa": bare}}).neurons()


def test_heads_without_intervals_have_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    unknown = Interval(0.5, float("nan"), float("nan"))
    result = HeadResult(
        "m", unknown, 4, (HeadScore(0, 1, unknown, 0.5, 0.0, 4), HeadScore(0, 0, unknown, 0.5, 0.0, 4)), 1
    )
    write_heads(run.path / "vqa", result, 1, 2)
    run.finish("vqa/heads", {"model": "m", "revision": "r"}, {}, [run.path / "vqa/heads.json"])
    content = json.loads(publish(run.path).read_text())
    assert content["tasks"]["vqa"]["heads"]["scored"][0]["score"] == {"value": 0.5, "low": None, "high": None}
    assert np.isnan(read_published(run.path / "found.json").heads().heads[0].score.low)


def test_published_neurons_are_masked_as_those_of_the_run(
    vlms: dict[str, VLM],
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vlm, task = vlms["llava"], make_task("retrieval", candidates=4)
    run = RunFolder(tmp_path / "run")
    shape = (len(vlm.anatomy.layers), vlm.anatomy.neurons)
    for name, sites in (("retrieval", [(0, 3), (2, 5)]), ("vqa", [(1, 1)])):
        neurons = [RankedNeuron(rank, *site, 1.0) for rank, site in enumerate(sites, 1)]
        write_neurons(run.path / name, np.zeros(shape, dtype=np.float32), neurons, found_on(vlm))
        about = {"model": str(model_folders["llava"]), "revision": vlm.revision, "dtype": "float32", "ratio": 0.1}
        run.finish(f"{name}/neurons", about, {}, [run.path / name / "neurons.json"])
    file = publish(run.path, tmp_path / "found.json")
    assert str(tmp_path) not in file.read_text()
    study = Study(vlm, RunFolder(tmp_path / "again"), SweepSettings(max_new_tokens=2))
    test = load_items(shapes["test"])
    assert study.sites(file, "retrieval") == [(0, 3), (2, 5)] and study.sites(file, "vqa") == [(1, 1)]
    masked = study.mask(task, test, file, 1)
    direct = Study(vlm, RunFolder(tmp_path / "direct"), SweepSettings(max_new_tokens=2))
    assert masked == direct.mask(task, test, run.path / "retrieval/neurons.json", 1) and masked.neurons == 2
    other = json.loads(file.read_text()) | {"revision": "sha256:of another"}
    write_json(tmp_path / "other.json", other)
    command = ("mask", "--model", model_folders["llava"], "--data", shapes["test"], "--out", tmp_path / "cli")
    command += ("--candidates", 4, "--draws", 1, "--anyway")
    assert call(*command, "--task", "retrieval", "--neurons", tmp_path / "other.json") == 2
    assert "at revision sha256:of another" in capsys.readouterr().err
    assert call(*command, "--task", "ocr", "--neurons", file) == 2
    assert "no task 'ocr' was published" in capsys.readouterr().err


# Node scores as MIB's circuits have them


def test_head_scores_are_nodes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("publish", run, "--format", "mib") == 0
    graph = json.loads((run / "vqa/heads.mib.json").read_text())
    heads = read_heads(run / "vqa/heads.json")
    matrix = np.load(run / "vqa/head_scores.npy")
    layers, per_layer = matrix.shape
    width = json.loads((BUILT_IN_FOLDER / "tiny-llava/config.json").read_text())["text_config"]["hidden_size"]
    assert graph["cfg"] == {"n_layers": layers, "n_heads": per_layer, "parallel_attn_mlp": False, "d_model": width}
    assert set(graph) == {"cfg", "nodes", "edges"} and graph["edges"] == {}
    # in the order in which a graph of that library has its nodes
    names = ["input"]
    for layer in range(layers):
        names += [*(f"a{layer}.h{head}" for head in range(per_layer)), f"m{layer}"]
    assert [*graph["nodes"]] == [*names, "logits"]
    critical = {f"a{h.layer}.h{h.head}" for h in heads.critical}
    for name, node in graph["nodes"].items():
        if not name.startswith("a"):
            assert node == {"in_graph": True}, "unscored nodes stay"
            continue
        layer, head = map(int, name[1:].split(".h"))
        assert node == {"in_graph": name in critical, "score": pytest.approx(matrix[layer, head], abs=1e-7)}
    assert call("publish", run, "--format", "mib", "--model", "./no-model") == 2
    assert "cannot read the configuration of ./no-model" in capsys.readouterr().err
    with pytest.raises(HonesError, match="24 scored heads; expected all 6 x 5"):
        mib_graph(make_heads(random.Random(0)), 6, 5, 8, False)
