"""The comparison on random models: against the masking stage, its statistics, its run folder and its command line."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from test_cli import call

from hones import evaluate_masking, load_items, make_task, select_neurons
from hones.method.budget import BUDGETS
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.rivals.compare import Ranking, compare_methods, ranks, spearman
from hones.stats import Interval, two_sided_p
from hones.tasks.base import Example
from hones.views.terminal import view

TASK = make_task("retrieval", candidates=6)


@pytest.fixture(scope="module")
def rankings(vlms: dict[str, VLM]) -> list[Ranking]:
    rng = np.random.default_rng(3)
    shape = (3, vlms["qwen"].anatomy.neurons)
    arrays = [rng.random(shape, dtype=np.float32) for _ in range(5)]
    few = np.where(arrays[1] > 0.97, arrays[1], 0).astype(np.float32)
    methods = {"hones": (arrays[0],), "ape": (few,), "random": tuple(arrays[2:4]), "oracle": (arrays[4],)}
    return [Ranking(name, importances, 1.5) for name, importances in methods.items()]


@pytest.fixture(scope="module")
def test_examples(shapes: dict[str, Path]) -> list[Example]:
    return TASK.examples(load_items(shapes["test"], limit=4))[0]


def test_every_arm_equals_the_masking_stage(vlms: dict[str, VLM], test_examples, rankings: list[Ranking]) -> None:
    vlm = vlms["qwen"]
    found = compare_methods(vlm, TASK, test_examples, rankings, ratio=0.1, budgets=(0.05, 0.1), seed=2)
    assert (found.task, found.metric_name, found.items, found.ratio) == ("retrieval", "ndcg@5", 4, 0.1)
    masked = {}
    for ranking in rankings:
        for draw, importance in enumerate(ranking.importances):
            chosen = [(n.layer, n.neuron) for n in select_neurons(importance, 0.1)]
            masked[ranking.method, draw] = evaluate_masking(vlm, TASK, test_examples, chosen, draws=1, seed=2)
    hones = masked["hones", 0]
    hones_set = {(n.layer, n.neuron) for n in select_neurons(rankings[0].importances[0], 0.1)}
    for result, ranking, curve in zip(found.methods, rankings, found.curves, strict=True):
        assert result.method == ranking.method == curve.method and result.seconds == 1.5
        alone = masked[ranking.method, 0]
        assert found.baseline.as_dict() == pytest.approx(alone.baseline.as_dict())
        assert result.neurons == alone.neurons == sum(result.per_layer)
        values = [masked[ranking.method, draw].masked.value for draw in range(len(ranking.importances))]
        assert result.masked.value == pytest.approx(np.mean(values))
        assert result.absolute_drop.value == pytest.approx(found.baseline.value - np.mean(values))
        if ranking.method == "random":
            assert result.draws == pytest.approx(values)
        else:
            assert result.draws == ()
            assert result.absolute_drop.as_dict() == pytest.approx(alone.absolute_drop.as_dict())
            assert result.relative_drop is not None and alone.relative_drop is not None
            assert result.relative_drop.as_dict() == pytest.approx(alone.relative_drop.as_dict())
        if ranking.method == "hones":
            assert result.hones_advantage is None and result.p_value is None and result.overlap == 1
        else:
            assert result.hones_advantage is not None and result.p_value is not None
            assert result.hones_advantage.value == pytest.approx(np.mean(values) - hones.masked.value)
            assert result.hones_advantage.low <= result.hones_advantage.value <= result.hones_advantage.high
        sets = [{(n.layer, n.neuron) for n in select_neurons(i, 0.1)} for i in ranking.importances]
        assert result.overlap == pytest.approx(np.mean([len(s & hones_set) for s in sets]) / len(hones_set))
        assert curve.ratios == (0.05, 0.1) and curve.masked[1] == result.masked and curve.neurons[1] == result.neurons
    assert found.methods[1].neurons < found.methods[0].neurons
    assert (found.methods[3].rank_correlation, found.methods[3].recall) == (pytest.approx(1), 1)
    assert found.methods[0].rank_correlation == pytest.approx(
        spearman(rankings[0].importances[0], rankings[3].importances[0])
    )


def test_one_sweep_runs_every_distinct_mask_once(
    vlms: dict[str, VLM], test_examples, rankings: list[Ranking], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hones.sweep.measure as module

    calls = []
    run = module.sweep_tasks
    monkeypatch.setattr(module, "sweep_tasks", lambda *args, **kept: calls.append(len(args[2])) or run(*args, **kept))
    twin = Ranking("dvp", rankings[0].importances, 0.0)
    compare_methods(vlms["qwen"], TASK, test_examples[:2], [*rankings, twin], ratio=0.1, budgets=(0.1,))
    # the model itself, hones and its twin, ape, two draws, oracle; plain text under one of the draws
    assert calls == [6, 5]


def test_p_values_are_two_sided_and_count_ties_on_both_sides() -> None:
    assert two_sided_p(np.ones(1999)) == pytest.approx(2 / 2000)
    assert two_sided_p(-np.ones(1999)) == pytest.approx(2 / 2000)
    assert two_sided_p(np.zeros(1999)) == 1
    assert two_sided_p(np.r_[-np.ones(99), np.ones(1900)]) == pytest.approx(0.1)


def test_ranks_and_correlation_equal_a_loop() -> None:
    a = np.array([3.0, 1.0, 3.0, 0.0, 3.0])
    assert ranks(a).tolist() == [4, 2, 4, 1, 4]
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (4, 9)).astype(float), rng.random((4, 9))

    def slow(values: np.ndarray) -> list[float]:
        flat = values.ravel().tolist()
        return [float(np.mean([r for r, other in enumerate(sorted(flat), 1) if other == v])) for v in flat]

    p, q = np.array(slow(x)), np.array(slow(y))
    expected = np.mean((p - p.mean()) * (q - q.mean())) / (p.std() * q.std())
    assert spearman(x, y) == pytest.approx(expected)
    assert spearman(y, np.exp(5 * y)) == pytest.approx(1) and spearman(y, -y) == pytest.approx(-1)
    assert spearman(y, np.zeros((4, 9))) == 0


def test_tables_fit_eighty_columns(vlms: dict[str, VLM], test_examples, rankings: list[Ranking]) -> None:
    from rich.console import Console

    named = [replace(r, method="knowledge-neurons") if r.method == "ape" else r for r in rankings]
    found = compare_methods(vlms["qwen"], TASK, test_examples, named, ratio=0.1)
    widest = Interval(-0.123, -0.123, -0.123)
    methods = tuple(replace(m, absolute_drop=widest, seconds=1234.0, relative_drop=widest) for m in found.methods)
    found = replace(found, methods=methods)
    console = Console(width=80, record=True)
    console.print(view(found))
    text = console.export_text()
    assert all(name in text for name in ("hones", "2 draws", "p=", "recall", "masked, %", "0.05")) and "…" not in text
    assert [curve.ratios for curve in found.curves] == [BUDGETS] * 4
    for curve in found.curves:
        assert all(a <= b for a, b in pairwise(curve.neurons))


def test_methods_lists_every_method_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("methods") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in METHODS) and "2312.12141" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def arguments_of(model: Path, shapes: dict[str, Path], out: Path, *more: object) -> tuple[object, ...]:
    files = ("--data", shapes["discovery"], "--test", shapes["test"])
    common = ("--model", model, "--task", "retrieval", "--candidates", 6, "--ratio", 0.1, "--limit", 3)
    return ("compare", *common, *files, "--out", out, *more)


def test_compare_writes_each_method_and_picks_up(
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = ("--methods", "dvp,random,layer-random,cna", "--draws", 2, "--no-curves")
    arguments = arguments_of(model_folders["qwen"], shapes, tmp_path / "run", *chosen)
    assert call(*arguments) == 0
    first = capsys.readouterr().out
    folder = tmp_path / "run/retrieval"
    assert {f.name for f in (folder / "methods").iterdir()} == {"hones", "dvp", "random", "layer-random", "cna"}
    files = {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}
    content = json.loads((folder / "comparison.json").read_text())
    assert [m["method"] for m in content["methods"]] == ["hones", "dvp", "random", "layer-random", "cna"]
    assert [len(m["draws"]) for m in content["methods"]] == [0, 0, 2, 2, 0] and content["curves"] == []
    hones, shuffled = content["methods"][0], content["methods"][3]
    assert hones["per_layer"] == shuffled["per_layer"]

    monkeypatch.setattr(type(METHODS["dvp"]), "importance", None)
    monkeypatch.setattr("hones.runs.comparing.compare_methods", None)
    assert call(*arguments) == 0
    assert capsys.readouterr().out == first
    assert {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()} == files
    monkeypatch.undo()

    for file in (folder / "comparison.json", folder / "methods/cna/neurons.json"):
        file.unlink()
    monkeypatch.setattr(type(METHODS["dvp"]), "importance", None)
    assert call(*arguments) == 0, "only what is missing is computed"
    assert json.loads((folder / "comparison.json").read_text())["methods"][1] == content["methods"][1]
    monkeypatch.undo()

    assert call(*arguments, "--seed", 5) == 2
    assert "holds retrieval/heads with seed = 3407, now 5" in capsys.readouterr().err


def test_what_compare_masks_is_what_neurons_selects(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert call(*arguments_of(model_folders["llava"], shapes, out, "--methods", "wanda", "--no-curves")) == 0
    common = ("--model", model_folders["llava"], "--task", "retrieval", "--candidates", 6, "--ratio", 0.1)
    common = (*common, "--data", shapes["discovery"], "--limit", 3)
    assert call("neurons", *common, "--out", tmp_path / "one", "--method", "wanda") == 0
    heads = ("--heads", out / "retrieval/heads.json")
    assert call("neurons", *common, "--out", tmp_path / "two", *heads) == 0
    for name, folder in (("wanda", "one"), ("hones", "two")):
        for file in ("neurons.json", "neuron_importance.npy"):
            made = (tmp_path / folder / "retrieval" / file).read_bytes()
            assert made == (out / "retrieval/methods" / name / file).read_bytes()
    record = json.loads((tmp_path / "one/run.json").read_text())
    assert record["stages"]["retrieval/neurons"]["fingerprint"]["method"] == "wanda"
    assert call("neurons", *common, "--out", tmp_path / "one", "--method", "ma") == 2
    assert 'holds retrieval/neurons with method = "wanda", now "ma"' in capsys.readouterr().err


def test_compare_masks_as_many_as_the_run_selected_unless_told_otherwise(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--model", model_folders["llava"], "--candidates", 6, "--limit", 2, "--out", tmp_path)
    common = (*common, "--data", shapes["discovery"], "--anyway")
    assert call("neurons", *common, "--task", "retrieval", "--method", "ma", "--ratio", 0.2) == 0
    compare = ("compare", *common, "--tasks", "retrieval", "--test", shapes["test"], "--methods", "ma", "--no-curves")
    assert call(*compare) == 0
    found = json.loads((tmp_path / "retrieval/comparison.json").read_text())
    neurons = json.loads((tmp_path / "retrieval/neurons.json").read_text())
    assert found["ratio"] == 0.2 and found["methods"][1]["neurons"] == len(neurons)
    assert "compared at" not in capsys.readouterr().err
    assert call(*compare, "--ratio", 0.1, "--fresh") == 0
    assert json.loads((tmp_path / "retrieval/comparison.json").read_text())["ratio"] == 0.1
    assert "retrieval: compared at 10 % of all neurons, its selection is 20 %" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--methods", "dvp,telepathy"), "no method 'telepathy'; expected one of hones, "),
        (("--methods", "dvp,dvp"), "--methods dvp,dvp; expected each method once"),
        (("--task", "vqa,vqa"), "two tasks are named vqa; expected each task once"),
        (("--heads-from", "nowhere"), "no file nowhere/retrieval/heads.json; run `hones heads` there first"),
        (("--ratio", 0), "--ratio 0.0; expected a share of all neurons above 0"),
    ],
)
def test_mistakes_are_one_line(
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[object, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(*arguments_of(model_folders["llava"], shapes, tmp_path / "o", *more)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.splitlines()[-1].startswith("hones: ") and "Traceback" not in error


def test_shared_pictures_and_missing_heads_are_one_line(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {**shapes, "test": shapes["discovery"]}
    assert call(*arguments_of(model_folders["llava"], shared, tmp_path / "o")) == 2
    assert "discovery_00000.png is in both discovery and test" in capsys.readouterr().err
    common = (
        "--model",
        model_folders["llava"],
        "--task",
        "vqa",
        "--data",
        shapes["discovery"],
        "--out",
        tmp_path / "o",
    )
    assert call("neurons", *common) == 2
    assert "--heads is not given, and there is no file" in capsys.readouterr().err
    assert call("neurons", *common, "--method", "dvp", "--per-item") == 2
    assert "--per-item with --method dvp" in capsys.readouterr().err


def test_the_oracle_is_refused_on_a_large_model(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(type(METHODS["oracle"]), "most_cells", 100)
    assert call(*arguments_of(model_folders["llava"], shapes, tmp_path / "o", "--methods", "oracle")) == 2
    assert "the method oracle on 3 items takes 180 answers; expected at most 100" in capsys.readouterr().err
    assert not (tmp_path / "o/retrieval/methods").exists()
