"""Only a set of neurons kept: the edit by hand, the fast engine against the definition, shares with their intervals."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import encoded_probe, gate_and_z, with_column_factors, with_model
from test_cli import call
from test_stages import NEURONS, FirstLetter
from test_sweep import NAIVE, OTHERS, REPLAY, assert_equal_cells, ending_early, jobs_of

from hones import HonesError, RunFolder, Study, keep_neurons, load_items, make_task
from hones.data.items import Items
from hones.errors import TaskStops
from hones.files import write_json
from hones.method.found import RankedNeuron
from hones.method.keeping import KeepingResult, evaluate_keeping, mean_activations
from hones.method.masking import layer_matched_random
from hones.models.capture import Z, collect
from hones.models.finding import find_anatomy
from hones.models.interventions import BASELINE, Constants, Intervention, Kept
from hones.models.vlm import VLM
from hones.runs.artifacts import read_result, write_result
from hones.stats import UNEDITED, Interval, Measurement
from hones.sweep.run import SweepSettings, sweep, sweep_tasks
from hones.tasks.base import mean_over_items
from hones.views.report.page import write_report

SHORT = SweepSettings(max_new_tokens=3)


def some_constants(vlm: VLM) -> np.ndarray:
    layers, _, width = vlm.anatomy.shape
    return np.random.default_rng(0).normal(0, 0.3, (layers, width)).astype(np.float32)


def folded(vlm: VLM, replaced: list[tuple[int, int]], values: np.ndarray | None = None) -> VLM:
    """A copy whose down_proj does not read some neurons; what they would write as constants is its bias."""
    copied = with_column_factors(vlm.model, dict.fromkeys(replaced, 0.0))
    if values is not None:
        for number, (layer, of) in enumerate(
            zip(find_anatomy(copied).layers, find_anatomy(vlm.model).layers, strict=True)
        ):
            written = torch.zeros(vlm.anatomy.width)
            for neuron in [i for at, i in replaced if at == number]:
                written += float(values[number, neuron]) * of.down_proj.weight.data[:, neuron]
            layer.down_proj.bias = torch.nn.Parameter(written)
    return with_model(vlm, copied)


def all_but(vlm: VLM, kept: list[tuple[int, int]]) -> list[tuple[int, int]]:
    layers, _, width = vlm.anatomy.shape
    return [(layer, i) for layer in range(layers) for i in range(width) if (layer, i) not in kept]


@pytest.mark.parametrize("constant", [False, True], ids=["zero", "constants"])
def test_keeping_equals_the_other_columns_folded_away(vlm: VLM, constant: bool) -> None:
    encoded = encoded_probe(vlm)
    values = some_constants(vlm) if constant else None
    real = encoded.inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = folded(vlm, all_but(vlm, NEURONS), values).model(**encoded.inputs).logits[real]
        with keep_neurons(vlm.model, NEURONS, values), collect(vlm.anatomy, Z) as seen:
            found = vlm.model(**encoded.inputs).logits[real]
        after = vlm.model(**encoded.inputs).logits[real]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, after, atol=1e-2), "the edit is gone, and it was one"
    for layer, neuron in all_but(vlm, NEURONS)[::7]:
        wanted = 0.0 if values is None else values[layer, neuron]
        assert bool((seen[layer][..., neuron] == wanted).all())
    assert bool((seen[NEURONS[0][0]][..., NEURONS[0][1]] != 0).any())


def test_keeping_all_is_the_model_and_other_shapes_are_refused(vlms: dict[str, VLM]) -> None:
    vlm = vlms["llava"]
    layers, _, width = vlm.anatomy.shape
    everything = Intervention(kept=Kept.of(all_but(vlm, []), vlm.anatomy))
    assert everything.layers == [] and everything.replaced() == {}
    assert Intervention(kept=Kept(frozenset(), layers, width)).layers == [*range(layers)]
    with pytest.raises(HonesError, match=f"an edit of 2 layers of {width} neurons"):
        Intervention(kept=Kept(frozenset(), 2, width)).check(vlm.anatomy)
    with pytest.raises(HonesError, match=r"no neuron \(0, 999\)"), keep_neurons(vlm.model, [(0, 999)]):
        pass


def test_replay_keeps_what_the_definition_keeps_in_every_cell(vlm: VLM, discovery: Items) -> None:
    """Zero and constants; sets of one layer, of several, none and all; beside heads, masks and scales."""
    vlm = ending_early(with_model(vlm, copy.deepcopy(vlm.model)))
    constants = Constants(some_constants(vlm))
    sets = [NEURONS, [(2, i) for i in range(12)], all_but(vlm, [(1, 3)]), [], all_but(vlm, [])]
    kept = [Kept.of(chosen, vlm.anatomy) for chosen in sets]
    edits = [BASELINE, *OTHERS]
    edits += [Intervention(kept=x, constants=given) for x in kept for given in (None, constants)]
    edits.append(Intervention(masked=frozenset({(1, 3), (2, 0)}), constants=constants))
    edits.append(Intervention(heads=frozenset({(1, 0)}), scales={(0, 3): 0.5, (2, 1): 1.0}, kept=kept[0]))
    jobs = jobs_of(replace(discovery, items=discovery.items[:3]))
    expected = [sweep(vlm, task, examples, edits, NAIVE) for task, examples in jobs]
    found = sweep_tasks(vlm, jobs, edits, REPLAY)
    assert_equal_cells(found, expected)
    for statistics in expected[3:]:
        assert (statistics[5] != statistics[6]).any(), "0 and constants are not the same"
        np.testing.assert_allclose(statistics[13], statistics[0], atol=5e-5)  # all kept


def test_keeping_measures_what_folded_models_score(vlm: VLM, discovery: Items) -> None:
    task = FirstLetter()
    examples, _ = task.examples(discovery)
    means = mean_activations(vlm, examples)
    found = evaluate_keeping(vlm, task, examples, NEURONS, means=means, draws=2, sweep=SHORT, seed=5)

    def metric(replaced: list[tuple[int, int]]) -> float:
        return float(task.score(sweep(folded(vlm, replaced, means), task, examples, [BASELINE], SHORT)[0].sum(0)))

    drawn = [layer_matched_random(NEURONS, vlm.anatomy.neurons, 5 + draw) for draw in range(2)]
    whole, kept, empty, removed = metric([]), metric(all_but(vlm, NEURONS)), metric(all_but(vlm, [])), metric(NEURONS)
    assert found.whole.value == pytest.approx(whole, abs=1e-6)
    assert found.kept.value == pytest.approx(kept, abs=1e-6)
    assert found.empty.value == pytest.approx(empty, abs=1e-6)
    assert found.removed.value == pytest.approx(removed, abs=1e-6)
    assert found.random_draws == pytest.approx([metric(all_but(vlm, sites)) for sites in drawn], abs=1e-6)
    assert (found.rest, found.neurons, found.of) == ("mean", 5, vlm.anatomy.total_neurons)
    with pytest.raises(TaskStops, match="0 neurons to keep"):
        evaluate_keeping(vlm, task, examples, [])


def test_means_are_over_positions_then_items(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm, task = vlms["qwen"], make_task("caption")
    examples = task.examples(discovery)[0][:3]
    of_items = []
    for example in examples:
        z = gate_and_z(vlm, vlm.encode([example.open_picture()], example.prompts[:1]))
        of_items.append([of_layer[0].mean(0).numpy() for _, of_layer in z])
    np.testing.assert_allclose(mean_activations(vlm, examples), np.mean(of_items, 0), atol=1e-5)


# Shares


def measured(**right: np.ndarray) -> Measurement:
    """Items right or wrong under every arm."""
    statistics = {arm: np.stack([x, np.ones_like(x)], -1)[None].astype(float) for arm, x in right.items()}
    return Measurement(statistics, mean_over_items, 0)


def test_a_share_of_the_scale_is_resampled_as_a_whole() -> None:
    rng = np.random.default_rng(3)
    whole = (rng.random(80) < 0.9).astype(float)
    empty = whole * (rng.random(80) < 0.3)
    kept = np.maximum(empty, whole * (rng.random(80) < 0.5))
    of = measured(**{UNEDITED: whole, "empty": empty, "kept": kept})
    share = of.recovered("kept", "empty")
    assert share is not None
    assert share.value == pytest.approx((kept.sum() - empty.sum()) / (whole.sum() - empty.sum()))
    by_hand = [(of.resampled("kept") - x) / (of.resampled(UNEDITED) - x) for x in [of.resampled("empty")]]
    low, high = np.quantile(by_hand, [0.025, 0.975])
    assert (share.interval.low, share.interval.high) == pytest.approx((low, high))
    ends = [of.recovered(arm, "empty") for arm in ("empty", UNEDITED)]
    assert [x.interval for x in ends if x is not None] == [Interval(0, 0, 0), Interval(1, 1, 1)]


def test_no_share_is_given_where_there_is_no_scale() -> None:
    whole = (np.arange(60) < 30).astype(float)
    nearly = (np.arange(60) < 29).astype(float)
    of = measured(**{UNEDITED: whole, "empty": nearly, "kept": whole})
    assert of.difference(UNEDITED, "empty").low == 0 and of.recovered("kept", "empty") is None
    level = Interval(0.5, 0.4, 0.6)
    span = of.difference(UNEDITED, "empty")
    result = KeepingResult("m", 60, 5, 60, "zero", level, level, level, level, level, span, span, None, None, None, ())
    assert "not surely ahead of one with nothing kept (+0.017 [" in result.sentence()
    assert result.sentence() in result.tables()[0].caption


# As a stage


def test_keeping_is_a_stage(vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path) -> None:
    neurons = tmp_path / "neurons.json"
    write_json(neurons, [vars(RankedNeuron(rank, *site, 1.0)) for rank, site in enumerate(NEURONS, 1)])
    test, discovery, task = load_items(shapes["test"]), load_items(shapes["discovery"]), make_task("vqa")
    run = RunFolder(tmp_path / "run")
    study = Study(vlms["llava"], run, SHORT)
    found = study.keep(task, test, neurons, 1, discovery)
    file = run.path / "vqa/keep.json"
    assert read_result(file, KeepingResult) == found and found.rest == "mean"
    written = file.stat().st_mtime_ns
    assert study.keep(task, test, neurons, 1, discovery) == found and file.stat().st_mtime_ns == written
    record = run.record.stages["vqa/keep"]
    assert record.discovery is not None and record.test is not None and record.fingerprint["rest"] == "mean"
    with pytest.raises(HonesError, match=r"holds vqa/keep with means"):
        study.keep(task, test, neurons, 1)
    said = [json.loads(line)["answers"] for line in (run.path / "vqa/answers.jsonl").read_text().splitlines()]
    assert len(said) == found.items and all({"unedited", "kept"} <= {*answers} for answers in said)
    sure = replace(
        found, faithfulness=Interval(0.5, 0.4, 0.6), completeness=Interval(0, 0, 0), advantage=Interval(0.2, 0.1, 0.3)
    )
    stale = "changed since vqa/keep wrote it"
    page = write_report(run.path).read_text()
    assert "no share is given" in page and "only the selected kept" in page and stale not in page
    write_result(file, sure)
    page = write_report(run.path).read_text()
    assert "a faithfulness of 0.50 [0.40, 0.60]" in page and stale in page


def test_the_command_keeps(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    neurons = tmp_path / "neurons.json"
    write_json(neurons, [vars(RankedNeuron(rank, *site, 1.0)) for rank, site in enumerate(NEURONS, 1)])
    mask = ("mask", "--model", model_folders["llava"], "--task", "retrieval", "--candidates", 4, "--neurons", neurons)
    mask += ("--data", shapes["test"], "--out", tmp_path / "run", "--draws", 1, "--anyway")
    assert call(*mask, "--keep") == 0
    shown = capsys.readouterr().out
    assert "Only the selected neurons kept, zero for the rest" in shown and "hones steer" in shown
    assert (tmp_path / "run/retrieval/keep.json").is_file() and not (tmp_path / "run/retrieval/masking.json").exists()
    for wrong, line in (
        (("--keep", "--also", "vqa"), "--keep with --also"),
        (("--rest", "mean"), "--rest and --discovery; expected with --keep"),
        (("--keep", "--rest", "mean"), "--rest mean without --discovery"),
        (("--keep", "--rest", "median"), "--rest median; expected zero or mean"),
        (("--keep", "--rest", "mean", "--discovery", shapes["test"]), "is in both"),
    ):
        assert call(*mask, *wrong) == 2
        assert line in capsys.readouterr().err
