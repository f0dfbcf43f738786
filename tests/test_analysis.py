"""Analysis: groups by brute force, masks against `evaluate_masking`, lens and cards by explicit runs, the command."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import with_column_factors, with_model
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from test_cli import call
from test_neurons import HEADS, examples_of
from test_stages import SHORT, FirstLetter

import hones.runs.analysis as stage
from hones import Analysis, HonesError, attribute_neurons, evaluate_masking, layer_matched_random, load_items, make_task
from hones.data.items import Items
from hones.method.analysis.ablation import measure_groups, most_changed, score_ablations
from hones.method.analysis.cards import contributions_of, drivers, head_shares
from hones.method.analysis.groups import exclusive_groups, overlaps, per_layer
from hones.method.analysis.lens import delta_lens, logit_lens
from hones.method.analysis.results import Ablation, ExclusiveGroup, Overlap, TaskSets
from hones.method.analysis.tokens import token_name, written_tokens
from hones.method.direction import target_directions
from hones.method.drops import Attribution, drops
from hones.method.neurons import guiding_heads, head_importance
from hones.models.loading import load_vlm
from hones.models.vlm import VLM
from hones.models.writing import contributions, readout_of
from hones.runs.artifacts import read_result
from hones.runs.record import RunFolder
from hones.runs.study import Study
from hones.stats import UNEDITED, Interval, Measurement
from hones.sweep.replay import Replay
from hones.sweep.run import SweepSettings
from hones.tasks.log_probability import LogProbability
from hones.views.terminal import heat_map, view

SITES = st.sets(st.tuples(st.integers(0, 2), st.integers(0, 5)))
SETS = {"vqa": [(0, 1), (1, 2), (2, 0)], "ocr": [(0, 1), (2, 5)], "caption": [(2, 0), (0, 1)]}


# --- groups ----------------------------------------------------------------------------------------------------------


@given(st.lists(SITES, min_size=1, max_size=4))
def test_groups_are_what_exactly_these_tasks_selected(chosen: list[set[tuple[int, int]]]) -> None:
    sets = {f"t{n}": sites for n, sites in enumerate(chosen)}
    groups = exclusive_groups(sets)
    assert len(groups) == 2 ** len(sets) - 1
    for tasks, members in groups.items():
        for site in ((layer, i) for layer in range(3) for i in range(6)):
            exactly = all((site in sites) == (name in tasks) for name, sites in sets.items())
            assert (site in members) == exactly
    assert sum(map(len, groups.values())) == len(set().union(*chosen)), "disjoint, and nothing is lost"
    for pair in overlaps(sets):
        a, b = sets[pair.first], sets[pair.second]
        assert (pair.shared, pair.union) == (sum(x in b for x in a), len(a | b))


def test_layers_are_counted_also_where_nothing_lies() -> None:
    assert per_layer([(0, 1), (2, 5), (2, 0)], 4) == (1, 0, 2, 0)
    assert per_layer([], 2) == (0, 0)


# --- cross-ablation --------------------------------------------------------------------------------------------------


def test_an_ablation_equals_evaluate_masking_of_the_group(vlm: VLM, discovery: Items) -> None:
    task = FirstLetter()
    examples, _ = task.examples(discovery)
    groups = {("a",): [(0, 1), (0, 4), (2, 3)], ("b",): [], ("a", "b"): [(1, 2), (2, 0)]}
    (measured,) = measure_groups(vlm, [(task, examples)], groups, draws=2, sweep=SHORT, seed=7)
    found = score_ablations(task, measured, groups)
    assert [a.group for a in found] == [("a",), ("a", "b")], "an empty group is not masked"
    for ablation in found:
        expected = evaluate_masking(vlm, task, examples, groups[ablation.group], draws=2, sweep=SHORT, seed=7)
        assert (ablation.baseline, ablation.masked) == (expected.baseline, expected.masked)
        assert (ablation.drop, ablation.relative_drop) == (expected.absolute_drop, expected.relative_drop)
    assert any(a.drop.value for a in found)


def test_the_control_of_an_only_group_is_that_of_evaluate_masking(vlm: VLM, discovery: Items) -> None:
    task = FirstLetter()
    examples, _ = task.examples(discovery)
    sites = [(0, 1), (0, 4), (1, 2), (2, 0)]
    (measured,) = measure_groups(vlm, [(task, examples)], {("a",): sites}, draws=3, sweep=SHORT, seed=7)
    (found,) = score_ablations(task, measured, {("a",): sites})
    expected = evaluate_masking(vlm, task, examples, sites, draws=3, sweep=SHORT, seed=7)
    assert found.random_drop.value == pytest.approx(expected.baseline.value - expected.control.value)
    assert found.advantage.value == pytest.approx(expected.advantage.value)
    assert (found.advantage.low, found.advantage.high) == pytest.approx(
        (expected.advantage.low, expected.advantage.high)
    )


def test_controls_lie_outside_all_sets_while_the_layer_has_others() -> None:
    group, others = [(0, 0), (0, 1), (1, 0)], {(0, 2), (0, 3), *((1, i) for i in range(6))}
    for seed in range(20):
        drawn = layer_matched_random(group, 6, seed, others)
        assert {site for site in drawn if site[0] == 0} == {(0, 4), (0, 5)}
        assert next(site for site in drawn if site[0] == 1) in {(1, i) for i in range(1, 6)}, "not itself"
    assert sorted(layer_matched_random([(0, 0), (0, 1)], 3, 0)) in (
        [(0, 0), (0, 2)],
        [(0, 1), (0, 2)],
        [(0, 0), (0, 1)],
    )


def test_the_items_that_lose_most_come_first() -> None:
    task, groups = make_task("vqa"), {("vqa",): [(0, 0)], ("ocr",): [(0, 1)], ("vqa", "ocr"): [(0, 2)], ("a",): []}
    lost = {
        UNEDITED: [0, 0, 0, 0],
        ("vqa",): [0, 0.5, 1, 0],
        ("ocr",): [1, 0, 0, 1],
        ("vqa", "ocr"): [0, 0.75, 0, 0],
    }
    arms = {arm: np.array([[[1 - drop, 1] for drop in drops]], dtype=np.float32) for arm, drops in lost.items()}
    measured = Measurement(arms, task.score, 0)
    assert most_changed(task, measured, groups, 3) == [1, 2, 0], "ocr masks a group without the task"


# --- lens ------------------------------------------------------------------------------------------------------------


def test_the_lens_is_norm_and_lm_head_on_every_residual(vlm: VLM, discovery: Items) -> None:
    example = examples_of(make_task("vqa"), discovery)[0]
    encoded = vlm.encode([example.open_picture()], example.prompts)
    found = logit_lens(vlm, encoded)
    torch.testing.assert_close(found[-1], vlm.logits(encoded, keep=1)[:, 0])
    with torch.no_grad():
        states = vlm.model(**encoded.inputs, output_hidden_states=True).hidden_states
        norm: Any = vlm.anatomy.decoder.norm
        for layer, state in enumerate(states[1:-1]):
            expected = vlm.anatomy.lm_head(norm(state[:, -1]))
            torch.testing.assert_close(found[layer], expected, atol=1e-5, rtol=1e-4)


def test_the_delta_is_that_of_two_explicit_runs(vlm: VLM, discovery: Items) -> None:
    task, groups = make_task("vqa"), {("vqa",): [(1, 2), (2, 0)], ("ocr",): [], ("vqa", "ocr"): [(0, 3)]}
    examples = examples_of(task, discovery)[:2]
    rows = delta_lens(vlm, task, examples, groups, ["a.jpg", "b.jpg"], 4)
    assert {row.group for row in rows} == {("vqa",), ("vqa", "ocr")}
    assert {row.layer for row in rows if row.group == ("vqa",)} == {1, 2}, "nothing changes below the first neuron"
    encoded = vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])
    for row in rows:
        masked = with_model(vlm, with_column_factors(vlm.model, dict.fromkeys(groups[row.group], 0.0)))
        n = [e.id for e in examples].index(row.item)
        delta = (logit_lens(vlm, encoded) - logit_lens(masked, encoded))[row.layer, n]
        values, ids = delta.topk(4)
        assert [t.text for t in row.falls] == [token_name(vlm.tokenizer, i) for i in ids.tolist()]
        np.testing.assert_allclose([t.weight for t in row.falls], values, atol=1e-5)
        assert (row.picture, row.target) == (["a.jpg", "b.jpg"][n], examples[n].target)


# --- cards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positive_part", ["mean", "item"])
def test_the_parts_of_the_heads_are_the_definition_and_sum_to_the_importance(
    vlm: VLM, discovery: Items, positive_part: Any
) -> None:
    task = make_task("vqa")
    examples, guides = examples_of(task, discovery), guiding_heads(HEADS)
    parts = head_importance(vlm, task, examples, HEADS, positive_part=positive_part)
    summed = drops(vlm, Attribution(task, examples, [(h.layer, h.head) for h in guides], positive_part))
    scores = [h.score.value for h in guides]
    assert len(parts) == len(guides) == 3
    for part, drop, score in zip(parts, summed, scores, strict=True):
        expected = score / sum(scores) * np.maximum(drop / len(examples), 0)
        np.testing.assert_allclose(part, expected, atol=2e-6)
    importance = attribute_neurons(vlm, task, examples, HEADS, positive_part=positive_part)
    np.testing.assert_allclose(parts.sum(0), importance, rtol=1e-6, atol=1e-9)
    for site in zip(*np.nonzero(importance > 1e-4), strict=True):
        shares = head_shares(HEADS, parts, (int(site[0]), int(site[1])))
        assert sum(s.value for s in shares) == pytest.approx(1)
        assert [s.value for s in shares] == sorted((s.value for s in shares), reverse=True)
        for share in shares:
            row = [(h.layer, h.head) for h in guides].index((share.layer, share.head))
            assert share.value * importance[site] == pytest.approx(parts[row][site], rel=1e-4)


def test_written_tokens_are_those_of_the_unembedded_column(vlm: VLM) -> None:
    sites = [(0, 3), (2, 19)]
    for (layer, i), (promotes, suppresses) in zip(sites, written_tokens(vlm, sites, 6), strict=True):
        written = (vlm.anatomy.lm_head.weight @ vlm.anatomy.layers[layer].down_proj.weight[:, i]).detach()
        for tokens, (values, ids) in ((promotes, written.topk(6)), (suppresses, written.topk(6, largest=False))):
            assert [t.text for t in tokens] == [token_name(vlm.tokenizer, x) for x in ids.tolist()]
            np.testing.assert_allclose([t.weight for t in tokens], values, atol=1e-6)


def test_contributions_of_neurons_and_what_drives_them(vlm: VLM, discovery: Items) -> None:
    task, sites = make_task("caption"), [(0, 3), (2, 19), (1, 0)]
    examples = examples_of(task, discovery)
    found = contributions_of(vlm, task, examples, sites, 4)
    encoded = vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])
    whole = contributions(vlm, encoded, readout_of(vlm, target_directions(vlm, task, examples)))
    expected = torch.stack([whole[:, layer, i] for layer, i in sites], 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert drivers(np.array([1.0, 3.0, -2.0, 3.0]), 4) == [1, 3, 0]


# --- the command -----------------------------------------------------------------------------------------------------

TASKS = (LogProbability(make_task("vqa")), make_task("retrieval", candidates=4))


@pytest.fixture(scope="module")
def finished(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks with its data inside; vqa's heads by log-probability, which a random model does not fail."""
    run = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(shapes["test"].parent, run / "data")
    discovery, test = (load_items(run / "data" / f"{split}.json") for split in ("discovery", "test"))
    study = Study(load_vlm(str(model_folders["llava"])), RunFolder(run), SweepSettings(max_new_tokens=4))
    study.heads([TASKS[0]], discovery, 4)
    study.heads([TASKS[1]], discovery, 6)
    for task in (make_task("vqa"), TASKS[1]):
        study.neurons(task, discovery, run / task.name / "heads.json", 0.15)
        study.mask(task, test, run / task.name / "neurons.json", 1)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "moved"))


def analyze(run: Path, *more: object) -> int:
    return call("analyze", run, "--draws", 2, "--cards", 3, "--lens-items", 1, *more)


def test_analyze_needs_nothing_but_the_run_even_when_it_has_moved(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert analyze(run) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("written", "next")))
    assert all(word in out for word in ("Neurons per layer", "vqa+ret", "Drop of every task", "heads -> neuron"))
    found = read_result(run / "analysis" / "analysis.json", Analysis)
    neurons = {name: json.loads((run / name / "neurons.json").read_text()) for name in ("vqa", "retrieval")}
    assert [t.task for t in found.tasks] == ["vqa", "retrieval"] and (found.layers, found.heads, found.neurons) == (
        3,
        4,
        20,
    )
    assert [sum(t.per_layer) for t in found.tasks] == [len(neurons[t.task]) for t in found.tasks]
    assert [g.tasks for g in found.groups] == [("vqa",), ("retrieval",), ("vqa", "retrieval")]
    masked = {g.tasks for g in found.groups if g.neurons}
    assert {(a.group, a.task) for a in found.ablations} == {(g, t) for g in masked for t in neurons}
    masking = json.loads((run / "retrieval/masking.json").read_text())
    assert all(a.baseline.value == pytest.approx(masking["baseline"]["value"]) for a in found.ablations[len(masked) :])
    assert {r.task for r in found.lens} == set(neurons) and len({r.item for r in found.lens if r.task == "vqa"}) == 1
    assert [(c.task, c.rank) for c in found.cards] == [(t, r) for t in ("vqa", "retrieval") for r in (1, 2, 3)]
    for card in found.cards:
        row = neurons[card.task][card.rank - 1]
        assert (card.layer, card.neuron, card.importance) == (row["layer"], row["neuron"], row["score"])
        assert sum(h.value for h in card.heads) == pytest.approx(1)
    shown = {d.picture for c in found.cards for d in c.drivers} | {r.picture for r in found.lens}
    assert {f"pictures/{f.name}" for f in (run / "analysis/pictures").iterdir()} == shown


def test_a_second_analysis_computes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert analyze(run) == 0
    times = {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file() and f.name != "hones.log"}
    for name in ("measure_groups", "head_importance", "logit_lens", "contributions_of"):
        monkeypatch.setattr(stage, name, None, raising=False)
    assert analyze(run) == 0
    assert {f: f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file() and f.name != "hones.log"} == times
    assert "analysis is finished already" in (run / "hones.log").read_text()


def test_a_killed_analysis_goes_on_from_its_journal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """Where a real run would be killed."""

    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(stage, "delta_lens", killed)
        analyze(run)
    assert (run / "journal/analysis.jsonl").exists() and not (run / "analysis/analysis.json").exists()
    monkeypatch.setattr(Replay, "answer", killed)
    assert analyze(run) == 0, "every group of pictures is in the journal"
    assert not (run / "journal/analysis.jsonl").exists()


def test_a_task_without_test_items_takes_them_from_an_option(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((run / "run.json").read_text())
    for stage_name in ("vqa/mask", "retrieval/mask", "retrieval/neurons"):
        del record["stages"][stage_name]
    (run / "run.json").write_text(json.dumps(record))
    assert analyze(run) == 2
    assert "no test items of vqa; run `hones mask` first, or pass --data" in capsys.readouterr().err
    assert analyze(run, "--data", run / "data/dev.json", "--limit", 2) == 0
    assert "retrieval has no neurons yet and is left out" in capsys.readouterr().err.replace("\n", " ")
    found = read_result(run / "analysis" / "analysis.json", Analysis)
    assert [t.task for t in found.tasks] == ["vqa"] and not found.heads_overlap


def spoil_test_file(run: Path) -> None:
    file = run / "data/test.json"
    file.write_text(file.read_text() + " ")


def spoil_picture(run: Path) -> None:
    (run / "data/images/test_00003.png").write_bytes(b"no picture")


def other_picture(run: Path) -> None:
    Image.new("RGB", (96, 96)).save(run / "data/images/discovery_00002.png")


def spoil_heads(run: Path) -> None:
    file = run / "vqa/heads.json"
    file.write_text(file.read_text() + " ")


def spoil_model(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    for name in ("vqa", "retrieval"):
        record["stages"][f"{name}/neurons"]["fingerprint"]["revision"] = "sha256:0000"
    (run / "run.json").write_text(json.dumps(record))


def other_method(run: Path) -> None:
    change_neurons(run, method="dvp")


def other_ratio(run: Path) -> None:
    change_neurons(run, ratio=0.5)


def change_neurons(run: Path, **values: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    record["stages"]["retrieval/neurons"]["fingerprint"] |= values
    (run / "run.json").write_text(json.dumps(record))


def forget_neurons(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["stages"] = {k: v for k, v in record["stages"].items() if "heads" in k}
    (run / "run.json").write_text(json.dumps(record))


def forget_places(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    for key in ("file", "images", "candidates"):
        del record["stages"]["vqa/neurons"]["discovery"][key]
    (run / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_test_file, "test.json has changed: sha256"),
        (spoil_picture, "1 of 7 items cannot be used: 15 (cannot read picture"),
        (other_picture, "the discovery items of vqa are not those of the run (asked = "),
        (spoil_heads, "what vqa/heads left is missing or has changed; run the stage again"),
        (spoil_model, "used sha256:0000"),
        (other_method, "method is hones for vqa and dvp for retrieval; expected one for all"),
        (other_ratio, "for vqa and 0.5 for retrieval; expected one for all"),
        (forget_neurons, "has no task with heads.json and neurons.json; run `hones neurons` first"),
        (forget_places, "run.json: vqa: neurons.discovery.file: Field required; run the stage again"),
        (lambda run: (run / "run.json").unlink(), "is not a run folder; expected a folder with run.json"),
        (lambda run: (run / "retrieval/neurons.json").unlink(), "what retrieval/neurons left is missing"),
        (lambda run: (run / "data/test.json").unlink(), "test.json; expected an annotation file"),
    ],
)
def test_what_has_changed_is_named_in_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], spoil: Any, message: str
) -> None:
    spoil(run)
    assert analyze(run) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.splitlines()[-1].startswith("hones: ") and "Traceback" not in error
    assert not (run / "analysis/analysis.json").exists()


@pytest.mark.parametrize(("score", "legend"), [(0.0, "no head moves ndcg"), (0.25, "ndcg drops by 0.250")])
def test_the_map_of_heads_says_what_its_darkest_cell_is(score: float, legend: str) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(heat_map(np.array([[score, 0.0]]), {(0, 1)}, "ndcg"))
    assert legend in console.export_text()


def test_tables_of_a_large_model_fit_eighty_columns() -> None:
    tasks, x = ("vqa", "ocr", "caption", "retrieval"), Interval(-0.123, -0.2, 0.1)
    counts = tuple(range(0, 320, 10))
    analysis = Analysis(
        "model",
        32,
        32,
        11008,
        tuple(TaskSets(task, "metric", (), counts) for task in tasks),
        (Overlap("caption", "retrieval", 30, 30),),
        (Overlap("caption", "retrieval", 3523, 3523),),
        (ExclusiveGroup(tasks, 3523, counts),),
        tuple(Ablation(tasks, task, x, x, x, x, x, x) for task in tasks),
        (),
        (),
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(view(analysis))
    text = console.export_text()
    assert "…" not in text and "layer 31: 310" in text and "3523 of 3523 (100%)" in text


def test_sweeping_nothing_is_an_error(vlm: VLM) -> None:
    with pytest.raises(HonesError, match="without test items"):
        measure_groups(vlm, [(make_task("vqa"), [])], {("vqa",): [(0, 0)]})
