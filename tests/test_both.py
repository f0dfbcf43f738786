"""Methods compared in both directions: what is kept and what is replaced, the areas, the stage and what is shown."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import call
from test_stages import FirstLetter

from hones import HonesError
from hones.data.items import Items
from hones.method.found import sites_of
from hones.method.keeping import evaluate_keeping, mean_activations
from hones.method.neurons import select_neurons
from hones.models.vlm import VLM
from hones.rivals.both import areas_of, compare_both
from hones.rivals.both_results import BothCurve, BothDirections
from hones.rivals.compare import Ranking
from hones.runs.artifacts import read_result, write_result
from hones.stats import Interval, Share, interval_of
from hones.sweep.run import SweepSettings
from hones.views.kept import kept_curves
from hones.views.report.summary import both_sentence

SHORT = SweepSettings(max_new_tokens=3)
BUDGETS = (0.02, 0.2, 0.5)


def shares(*values: float, draws: int = 500) -> list[Share]:
    rng = np.random.default_rng(0)
    return [Share(value, value + 0.1 * rng.normal(size=draws)) for value in values]


def test_areas_are_means_along_the_axis_of_the_curves() -> None:
    """By hand: budgets evenly on a log scale, so the inner ones count twice what the ends do."""
    given = shares(0.0, 0.5, 1.0, 1.4)
    cpr, cmd = areas_of((0.001, 0.01, 0.1, 1.0), given)
    assert cpr is not None and cmd is not None
    assert cpr.value == pytest.approx((0.0 / 2 + 0.5 + 1.0 + 1.4 / 2) / 3)
    assert cmd.value == pytest.approx((1.0 / 2 + 0.5 + 0.0 + 0.4 / 2) / 3)
    by_hand = sum(w * x.resampled for w, x in zip((0.5, 1, 1, 0.5), given, strict=True)) / 3
    assert vars(cpr.interval) == pytest.approx(vars(interval_of(cpr.value, np.asarray(by_hand))))
    off = sum(w * np.abs(1 - x.resampled) for w, x in zip((0.5, 1, 1, 0.5), given, strict=True)) / 3
    assert vars(cmd.interval) == pytest.approx(vars(interval_of(cmd.value, np.asarray(off))))
    # the whole model at every budget; the order of budgets is of no matter
    one = [Share(1.0, np.ones(9))] * 2
    assert [x and x.value for x in areas_of((0.01, 0.3), one)] == [1.0, 0.0]
    mixed, _ = areas_of((0.1, 0.001, 1.0, 0.01), [given[i] for i in (2, 0, 3, 1)])
    assert mixed is not None and mixed.value == pytest.approx(cpr.value)
    uneven, _ = areas_of((0.001, 0.01, 1.0), shares(0.0, 1.0, 1.0))
    assert uneven is not None and uneven.value == pytest.approx((0.5 + 2.0) / 3)


def test_without_a_scale_or_with_one_budget_there_is_no_area() -> None:
    assert areas_of((0.01,), shares(0.5)) == (None, None)
    assert areas_of((0.01, 0.1), shares(0.5)) == (None, None), "not known at every budget"


@pytest.mark.parametrize("rest", ["zero", "mean"])
def test_what_is_kept_and_replaced_is_what_each_method_selects(vlm: VLM, discovery: Items, rest: str) -> None:
    task = FirstLetter()
    examples, _ = task.examples(discovery)
    layers, _, width = vlm.anatomy.shape
    rng = np.random.default_rng(4)
    ranked = {name: rng.random((layers, width)).astype(np.float32) for name in ("hones", "other", "again")}
    rankings = [Ranking("hones", (ranked["hones"],), 0.0), Ranking("random", (ranked["other"], ranked["again"]), 0.0)]
    means = mean_activations(vlm, examples) if rest == "mean" else None
    both = compare_both(vlm, task, examples, rankings, budgets=BUDGETS, means=means, sweep=SHORT, seed=5)
    assert both.rest == rest and ("means for the rest" in both.tables()[0].title) == (rest == "mean")
    curves = {curve.method: curve for curve in both.curves}
    for i, budget in enumerate(BUDGETS):
        chosen = {name: sites_of(select_neurons(x, budget)) for name, x in ranked.items()}
        alone = {
            name: evaluate_keeping(vlm, task, examples, sites, means=means, draws=1, sweep=SHORT, seed=5)
            for name, sites in chosen.items()
        }
        of = alone["hones"]
        assert curves["hones"].kept[i] == of.kept and curves["hones"].removed[i] == of.removed
        assert curves["hones"].faithfulness[i] == of.faithfulness
        assert curves["hones"].completeness[i] == of.completeness
        assert curves["hones"].neurons[i] == len(chosen["hones"])
        mean = (alone["other"].kept.value + alone["again"].kept.value) / 2
        assert curves["random"].kept[i].value == pytest.approx(mean, abs=1e-6), "a random method's mean over draws"
        assert (both.whole, both.empty, both.span) == (of.whole, of.empty, of.span)
    assert len({x.value for c in both.curves for x in (*c.kept, *c.removed)}) > 2, "the sets make a difference"
    for budgets in ((), (2.0,)):
        with pytest.raises(HonesError, match=r"0 budgets to keep|2\.0; expected a share"):
            compare_both(vlm, task, examples, rankings, budgets=budgets, sweep=SHORT)


def made(sure: bool) -> BothDirections:
    """Two methods at three budgets; of a difference that may be none no share is known."""
    level, share = Interval(0.5, 0.4, 0.6), Interval(0.3, 0.2, 0.4)
    known = (share,) * 3 if sure else (None,) * 3
    curves = tuple(
        BothCurve(
            method=method,
            ratios=BUDGETS,
            neurons=(1, 12, 30),
            kept=(level,) * 3,
            removed=(level,) * 3,
            faithfulness=known,
            completeness=known,
            cpr=replace(share, value=cpr) if sure else None,
            cmd=share if sure else None,
        )
        for method, cpr in (("hones", 0.3), ("rounds", 0.35))
    )
    span = Interval(0.4, 0.3, 0.5) if sure else Interval(0.01, -0.02, 0.04)
    return BothDirections("vqa", "vqa_soft_accuracy", 50, Interval(0.9, 0.8, 1.0), level, span, curves)


def test_what_is_shown(tmp_path: Path) -> None:
    both = made(sure=True)
    write_result(tmp_path / "both.json", both)
    assert read_result(tmp_path / "both.json", BothDirections) == both
    areas, points = both.tables()
    assert [row["method"] for row in areas.rows] == ["rounds", "hones"] and len(points.rows) == 6
    assert "rounds bring back most of vqa: CPR 0.35" in both_sentence(both)
    chart = kept_curves(both)
    assert len(chart.table.rows) == 6 and len(chart.drawing.labels) == 6
    unsure = made(sure=False)
    write_result(tmp_path / "both.json", unsure)
    assert read_result(tmp_path / "both.json", BothDirections) == unsure
    assert "no share is given" in unsure.tables()[0].caption and "+0.010 [-0.020, +0.040]" in unsure.tables()[0].caption
    assert "no share that kept neurons bring back is given" in both_sentence(unsure)


def test_compare_grows_by_the_other_direction(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--both` after a comparison adds a file, and leaves the comparison as it is."""
    run = tmp_path / "run"
    command = ("compare", "--model", model_folders["qwen"], "--task", "retrieval", "--candidates", 4, "--out", run)
    command += ("--data", shapes["discovery"], "--test", shapes["test"], "--methods", "ma,random", "--draws", 2)
    command += ("--ratio", 0.1, "--no-curves", "--limit", 4, "--anyway")
    assert call(*command) == 0
    comparison = run / "retrieval/comparison.json"
    before, written = comparison.read_bytes(), comparison.stat().st_mtime_ns
    assert not (run / "retrieval/both.json").exists()
    capsys.readouterr()
    assert call(*command, "--both") == 0
    shown = capsys.readouterr().out
    assert "faithfulness of kept sets by share of neurons" in shown and "both.json" in shown
    assert comparison.read_bytes() == before and comparison.stat().st_mtime_ns == written
    both = read_result(run / "retrieval/both.json", BothDirections)
    assert {c.method for c in both.curves} == {"hones", "ma", "random"} and both.curves[0].ratios == (0.1,)
    assert json.loads((run / "run.json").read_text())["stages"]["retrieval/both"]["fingerprint"]["budgets"] == [0.1]
    masked = {m["method"]: m["masked"]["value"] for m in json.loads(before)["methods"]}
    assert {c.method: c.removed[0].value for c in both.curves} == pytest.approx(masked), "the same sets as were masked"
    # other means: another stage, refused in place of the first and computed anew when asked
    assert call(*command, "--rest", "mean") == 2 and "--rest mean without --both" in capsys.readouterr().err
    assert call(*command, "--both", "--rest", "mean") == 2 and "means = null" in capsys.readouterr().err
    assert call(*command, "--both", "--rest", "mean", "--fresh") == 0
    at_means = read_result(run / "retrieval/both.json", BothDirections)
    assert (both.rest, at_means.rest) == ("zero", "mean") and at_means.whole == both.whole
    assert call("report", run) == 0
    assert "kept neurons bring back" in (run / "report.html").read_text()
