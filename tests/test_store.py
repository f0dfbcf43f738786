"""The run folder: whole files or none, finished stages recognised, other inputs refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hones import HonesError, RunFolder
from hones.files import read_json, read_npy, write_json, write_npy
from hones.method.found import HeadResult, HeadScore
from hones.method.masking import MaskingResult
from hones.method.neurons import select_neurons
from hones.method.steering.settings import Scales
from hones.runs.artifacts import (
    read_heads,
    read_neurons,
    read_result,
    read_scales,
    write_heads,
    write_neurons,
    write_result,
    write_scales,
)
from hones.stats import Interval

HEADS = HeadResult(
    "anls",
    Interval(0.5, 0.4, 0.6),
    8,
    (HeadScore(1, 0, Interval(0.3, 0.1, 0.5), 0.5, 0.2), HeadScore(0, 1, Interval(0.0, 0.0, 0.0), 0.5, 0.5)),
    1,
)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"x": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_json(tmp_path / "a.json", {"x": 2})
    assert read_json(tmp_path / "a.json") == {"x": 1}


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [float("nan"), 1.5], "y": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, 1.5], "y": None}


def test_a_finished_stage_is_recognised_and_other_inputs_are_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    inputs = {"model": "m", "seed": 1, "ids": (1, 2)}
    assert not run.is_finished("vqa/heads", inputs)
    run.finish("vqa/heads", inputs, {"seconds": 1.0})
    again = RunFolder(tmp_path / "run")
    assert again.is_finished("vqa/heads", inputs)
    assert not again.is_finished("vqa/mask", inputs)
    with pytest.raises(HonesError, match=r"holds vqa/heads with seed = 1, now 2.*--fresh"):
        again.is_finished("vqa/heads", {**inputs, "seed": 2})
    assert again.record.stages["vqa/heads"].versions["hones"]


def test_a_difference_inside_an_input_is_named_where_it_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.finish("vqa/compare", {"methods": {"atp": "a" * 60, "dvp": "c", "wanda": "d"}, "draws": 5}, {})
    with pytest.raises(HonesError, match=r'with methods\.wanda = "d", now null'):
        run.is_finished("vqa/compare", {"methods": {"atp": "a" * 60, "dvp": "c"}, "draws": 5})


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HonesError, match="cannot write to"):
        RunFolder(tmp_path / "file")
    with pytest.raises(HonesError, match="cannot write to"):
        RunFolder(Path("/proc/hones"))


def test_a_broken_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(HonesError, match="is not a run record"):
        RunFolder(tmp_path).is_finished("x", {})


def test_heads_round_trip_in_the_published_form(tmp_path: Path) -> None:
    write_heads(tmp_path, HEADS, 2, 2)
    assert read_heads(tmp_path / "heads.json") == HEADS
    content = json.loads((tmp_path / "heads.json").read_text())
    assert {"metric", "metric_name", "n"} <= content["baseline"].keys()
    assert {"layer", "head", "score", "baseline", "intervened", "metric_name"} <= content["all_heads"][0].keys()
    assert [row["layer"] for row in content["top_heads"]] == [1]
    scores = np.load(tmp_path / "head_scores.npy", allow_pickle=False)
    expected = [[np.nan, 0.0], [0.3, np.nan]]  # a head without a score is none with a score of 0
    np.testing.assert_allclose(scores, np.array(expected, dtype=np.float32), equal_nan=True)
    assert scores.dtype == np.float32


def test_heads_of_the_public_release_are_read(tmp_path: Path) -> None:
    row = {"layer": 0, "head": 1, "score": 0.25, "baseline": 0.5, "intervened": 0.25, "metric_name": "vqa"}
    baseline = {"metric": 0.5, "metric_name": "vqa", "n": 3}
    write_json(tmp_path / "h.json", {"baseline": baseline, "all_heads": [row], "top_heads": [row]})
    assert read_heads(tmp_path / "h.json").critical[0].score.value == 0.25


def test_neurons_scales_and_results_round_trip(tmp_path: Path) -> None:
    importance = np.array([[0.0, 2.0], [1.0, 0.0]], dtype=np.float32)
    selected = select_neurons(importance, 1.0)
    write_neurons(tmp_path, importance, selected)
    assert read_neurons(tmp_path / "neurons.json") == selected
    assert json.loads((tmp_path / "neurons.json").read_text())[0] == {"rank": 1, "layer": 0, "neuron": 1, "score": 2.0}
    assert np.array_equal(read_npy(tmp_path / "neuron_importance.npy"), importance)
    write_scales(tmp_path / "scales.json", Scales({(1, 0): 0.5, (0, 1): -0.25}))
    assert json.loads((tmp_path / "scales.json").read_text())[0] == {"layer": 0, "neuron": 1, "scale": -0.25}
    assert read_scales(tmp_path / "scales.json").values == {(0, 1): -0.25, (1, 0): 0.5}
    interval = Interval(0.1, 0.0, 0.2)
    result = MaskingResult("anls", 3, 2, interval, interval, interval, None, interval, interval, (0.5, 0.25))
    write_result(tmp_path / "masking.json", result)
    assert read_result(tmp_path / "masking.json", MaskingResult) == result


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"baseline": 3}', '[{"layer": "x"}]', "[1]", "\x00", '"text"'])
def test_hostile_artifacts_are_one_clear_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    for read in (read_heads, read_neurons, read_scales, lambda p: read_result(p, MaskingResult)):
        with pytest.raises(HonesError) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(HonesError, match="is not a numpy array"):
        read_npy(tmp_path / "x.npy")
    write_npy(tmp_path / "y.npy", np.ones(3))
    assert read_npy(tmp_path / "y.npy").tolist() == [1, 1, 1]
