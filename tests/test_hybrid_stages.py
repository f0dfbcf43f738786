"""Models some of whose layers have no heads, or fewer: every way to score heads, maps, files, forecast and commands."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from census_models import build, build_text
from test_cli import call
from test_plan import counted
from test_text_models import capitals, own_answers

from hones import (
    HonesError,
    load_items,
    load_vlm,
    localize_heads,
    localize_heads_by_subsets,
    localize_heads_conditionally,
)
from hones.app.shown import head_buttons
from hones.data.items import Items
from hones.method.found import HeadResult, HeadScore
from hones.method.head_ways import Conditional, Subsets
from hones.method.heads import default_top_k, head_sites, race_heads
from hones.models.place import heads_by_config
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.rivals.base import Context
from hones.runs.artifacts import read_heads, write_heads
from hones.runs.plan.head_sweeps import step_edits, subset_edits
from hones.runs.plan.lengths import measure
from hones.runs.plan.shapes import shapes_of, weightless
from hones.runs.plan.sweeping import Edits, Sweep, only_gold, sweep_plan
from hones.stats import Interval
from hones.sweep.racing import RaceRules
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task
from hones.tasks.log_probability import LogProbability
from hones.views import terminal
from hones.views.charts import head_map

pytestmark = pytest.mark.filterwarnings("ignore:.*goes on from a state, not from keys and values:UserWarning")
SITES = [(1, head) for head in range(4)]
"""The heads of the small LFM2: one layer of three has attention, the others are short convolutions."""


@pytest.fixture(scope="module")
def lfm2(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load_vlm(str(build_text("lfm2", tmp_path_factory.mktemp("lfm2") / "model")))


@pytest.fixture(scope="module")
def items(lfm2: VLM, tmp_path_factory: pytest.TempPathFactory) -> Items:
    """Questions that the model answers as it does unedited."""
    return load_items(own_answers(lfm2, tmp_path_factory.mktemp("asked"), "discovery"))


@pytest.fixture(scope="module")
def asked(items: Items) -> tuple[Task, list[Example]]:
    task = capitals()
    return task, [*task.examples(items)[0][:3]]


@pytest.fixture(scope="module")
def found(lfm2: VLM, asked: tuple[Task, list[Example]]) -> HeadResult:
    return localize_heads(lfm2, *asked, sweep=SweepSettings(max_new_tokens=3))


WAYS: dict[str, Callable[..., HeadResult]] = {
    "single": localize_heads,
    "racing": partial(race_heads, rules=RaceRules()),
    "subsets": partial(localize_heads_by_subsets, subsets=Subsets(share=0.3, count=9)),
    "conditional": partial(localize_heads_conditionally, conditional=Conditional(2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_scores_the_heads_that_there_are(way: str, lfm2: VLM, asked: tuple[Task, list[Example]]) -> None:
    assert head_sites(lfm2) == SITES
    result = WAYS[way](lfm2, *asked, sweep=SweepSettings(max_new_tokens=3))
    assert sorted((h.layer, h.head) for h in result.heads) == SITES
    assert result.top_k == 4 == default_top_k(len(SITES)) and result.headless == (0, 2)
    with pytest.raises(HonesError, match=r"5.*expected 1 to 4, the number of heads"):
        WAYS[way](lfm2, *asked, top_k=5)


def test_maps_tables_and_files_have_no_head_that_is_not_there(found: HeadResult, tmp_path: Path) -> None:
    table = found.table()
    assert "2 of 3 layers have no heads" in table.title and {row["layer"] for row in table.rows} == {1}
    assert found.shape == (3, 4)
    matrix = found.matrix(3, 4)
    assert np.isnan(matrix[[0, 2]]).all() and np.isfinite(matrix[1]).all()
    html = found.map_html()
    assert html.count("has no head") == 8 and html.count("layer 1, head") == 4 and "nan" not in html
    shown = "\n".join(str(line) for line in terminal.head_map(found).renderables)  # pyright: ignore
    assert shown.count(" ×  ×  ×  × ") == 2 and "× no such head" in shown and "nan" not in shown
    chart = head_map("capitals", found)
    assert "2 of 3 layers have no heads. Crossed out: no such head." in chart.caption

    write_heads(tmp_path, found, 3, 4)
    content = json.loads((tmp_path / "heads.json").read_text())
    assert content["layers_without_heads"] == [0, 2] and len(content["all_heads"]) == 4
    np.testing.assert_array_equal(np.load(tmp_path / "head_scores.npy"), matrix)
    assert read_heads(tmp_path / "heads.json") == found


def test_where_all_layers_have_heads_nothing_is_said_of_it(tmp_path: Path) -> None:
    scores = tuple(HeadScore(layer, 0, Interval(0.1, 0.0, 0.2), 0.5, 0.4, 3) for layer in range(2))
    result = HeadResult("anls", Interval(0.5, 0.4, 0.6), 3, scores, 1)
    write_heads(tmp_path, result, 2, 1)
    assert "layers_without_heads" not in json.loads((tmp_path / "heads.json").read_text())
    assert "no heads" not in result.table().title and "×" not in result.map_html()
    assert "Crossed out" not in head_map("ocr", result).caption


def test_the_page_offers_heads_that_there_are(lfm2: VLM) -> None:
    figure = head_buttons("capitals", lfm2.anatomy.head_counts, {(1, 2)})
    assert figure.count("data-pick") == 4 and 'data-pick="1.3"' in figure and 'data-pick="0.' not in figure
    assert "Crossed out" in figure


def test_a_configuration_with_other_mixers_does_not_tell_how_many_heads_there_are(lfm2: VLM) -> None:
    assert heads_by_config(lfm2.name) is None
    assert heads_by_config("tiny-llava") == len(head_sites(load_vlm("tiny-llava")))


def test_methods_rank_neurons_or_stop_in_one_line(lfm2: VLM, asked: tuple[Task, list[Example]], tmp_path: Path) -> None:
    """relp and gim hold attention and norms, of which a delta rule has others."""
    heads = (HeadScore(1, 2, Interval(0.5, 0.5, 0.5), 0.0, 0.0),)
    for method in ("hones", "hones+", "layer-random", "wanda", "atp", "logprob-gain", "knowledge-neurons"):
        importance = METHODS[method].importance(Context(lfm2, *asked, heads))
        assert importance.shape == (3, 24) and (importance > 0).any(), method
    above = METHODS["hones"].importance(Context(lfm2, *asked, heads))
    assert (above[0] == 0).all() and (above[1:] > 0).any(), "a head feeds neurons of its own layer and later ones"
    delta = load_vlm(str(build_text("qwen3_next", tmp_path / "model")))
    for vlm, rule in (
        (lfm2, "'attention' cannot be applied: layer 0"),
        (delta, "'norm' cannot be applied: linear_attn"),
    ):
        with pytest.raises(HonesError, match=rule):
            METHODS["relp"].importance(Context(vlm, *asked, heads))


def test_a_forecast_counts_the_heads_that_there_are_and_whole_passes(lfm2: VLM, items: Items) -> None:
    """Against the operations that were done."""
    task = capitals()
    examples = task.examples(items)[0]
    shapes = shapes_of(lfm2, "float32")
    light = shapes_of(weightless(lfm2.name), "float32")
    assert light == shapes and shapes.head_counts == (0, 4, 0) and shapes.all_heads == 4 and shapes.stateful == 2
    jobs, _ = measure(lfm2, shapes, [task], items, max_new_tokens=3)
    each = Edits({1: 4}, heads=1)
    settings = SweepSettings(max_new_tokens=3)
    sweep = Sweep(shapes, jobs[task.name].asked, each, sweep_plan(shapes, jobs[task.name].asked, 1e9, "cpu", None))
    least, most = (sweep.work(left=left) + sweep.proof() for left in (0.0, 1.0))
    assert least.flop <= counted(lambda: localize_heads(lfm2, task, examples, sweep=settings)) <= 1.05 * most.flop
    gold = replace(sweep, asked=only_gold(sweep.asked))
    log_p = LogProbability(task)
    real = counted(lambda: localize_heads(lfm2, log_p, [log_p.with_gold(x) for x in examples], sweep=settings))
    assert (gold.work() + gold.proof()).flop == pytest.approx(real, rel=0.05)
    drawn = subset_edits(shapes, Subsets(share=0.5, count=40), seed=0)
    assert {*drawn.at} == {1} and drawn.count <= 40
    assert step_edits(shapes, each, 1).at == {1: 3} and step_edits(shapes, each, 0) is each


def test_the_commands_run_on_a_small_qwen3_5(
    tmp_path: Path, shapes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two layers of six delta heads and one of four attention heads."""
    model = build("qwen3_5", tmp_path / "model")
    out = tmp_path / "run"
    given: tuple[Any, ...] = ("--model", model, "--task", "retrieval", "--candidates", 3, "--out", out)
    assert call("heads", *given, "--data", shapes["discovery"], "--top-k", 16, "--anyway") == 0
    content = json.loads((out / "retrieval/heads.json").read_text())
    counts = [sum(row["layer"] == layer for row in content["all_heads"]) for layer in range(3)]
    assert counts == [6, 6, 4] and "layers_without_heads" not in content
    scores = np.load(out / "retrieval/head_scores.npy")
    assert scores.shape == (3, 6) and np.isnan(scores[2, 4:]).all() and np.isnan(scores).sum() == 2
    assert call("neurons", *given, "--data", shapes["discovery"], "--ratio", 0.1) == 0
    assert call("mask", *given, "--data", shapes["test"], "--draws", 1) == 0
    assert call("heads", *given, "--data", shapes["discovery"], "--top-k", 17, "--fresh", "--anyway") == 2
    assert "expected 1 to 16, the number of heads" in capsys.readouterr().err

    config = {
        "model": str(model),
        "out": str(tmp_path / "whole"),
        "data": {name: str(file) for name, file in shapes.items()},
        "tasks": ["retrieval"],
        "candidates": 3,
        "ratio": 0.1,
        "draws": 1,
        "anyway": True,
        "steering": {"learning_rate": 0.02, "epochs": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert call("plan", tmp_path / "config.yaml", "--memory", 16, "--tflops", 1) == 0
    planned = capsys.readouterr().out
    assert "16 heads in 3 layers" in planned and "2 of 3 layers go on from a state" in " ".join(planned.split())
    assert call("run", tmp_path / "config.yaml") == 0
    page = (tmp_path / "whole/report.html").read_text()
    assert "Crossed out: no such head" in page and "layer 2, head 3" in page and "layer 2, head 4" not in page
    capsys.readouterr()
