"""Heads that stand in for each other: subsets with a linear model, and steps; planted truths, definitions, runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_runs import call
from random_models import save_random_llava

from hones import HonesError, RunFolder, Study, load_items, load_vlm, localize_heads, make_task
from hones.data.items import Items
from hones.errors import HonesWarning
from hones.method import head_steps, head_subsets, heads
from hones.method.found import HeadResult
from hones.method.head_steps import localize_heads_conditionally
from hones.method.head_subsets import Regression, draw_subsets, localize_heads_by_subsets
from hones.method.head_ways import Conditional, StepsTaken, SubsetFit, Subsets, check_utility, make_head_way
from hones.models.interventions import Intervention
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.runs.artifacts import read_heads, write_heads
from hones.runs.config import HeadsConfig
from hones.runs.published import FoundHeads, Published
from hones.sharing.publish import _heads
from hones.stats import Measurement
from hones.sweep.engines import DEFAULT_BATCH_SIZE
from hones.sweep.forward import Forward
from hones.sweep.journal import Journal
from hones.sweep.run import SweepSettings, sweep
from hones.tasks.log_probability import LogProbability

# --- the linear model ---


def drawn(share: float = 0.3, count: int = 60, heads: int = 8) -> np.ndarray:
    return draw_subsets(Subsets(share, count), heads, seed=1)


def test_an_additive_score_is_recovered_exactly() -> None:
    drops = np.array([0.3, -0.1, 0.0, 0.05, 0.2, 0.0, 1.5, -0.4])
    design = drawn()
    values = 2.5 - design @ drops
    regression = Regression(design)
    np.testing.assert_allclose(-regression.coefficients(values), drops, atol=1e-12)
    fit = regression.fit(values, Subsets(0.3, 60))
    assert fit.intercept == pytest.approx(2.5, abs=1e-12)
    assert fit.r2 == pytest.approx(1) and fit.left_out == pytest.approx(1) and fit.draw_error == pytest.approx(0)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_fit_and_what_it_is_worth_by_their_definitions(ridge: float) -> None:
    design = drawn()
    rng = np.random.default_rng(0)
    values = design @ rng.normal(size=8) + rng.normal(size=60)

    def fitted(rows: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        """Least squares with an unpenalised intercept and, as rows of their own, the ridge."""
        columns = np.column_stack([np.ones(len(rows)), rows])
        added = np.column_stack([np.zeros(8), np.sqrt(penalty) * np.eye(8)])
        found = np.linalg.lstsq(np.vstack([columns, added]), np.concatenate([y, np.zeros(8)]), rcond=None)[0]
        return found[0], found[1:]

    penalty = ridge * ((design - design.mean(0)) ** 2).sum(0).mean()
    intercept, coefficients = fitted(design, values)
    regression = Regression(design, ridge)
    fit = regression.fit(values, Subsets(0.3, 60, ridge))
    np.testing.assert_allclose(regression.coefficients(values), coefficients, atol=1e-10)
    assert fit.intercept == pytest.approx(intercept, abs=1e-10)

    missed = total = 0.0
    for i in range(60):
        rest = np.arange(60) != i
        intercept, coefficients = fitted(design[rest], values[rest])
        missed += (values[i] - intercept - design[i] @ coefficients) ** 2
        total += (values[i] - values[rest].mean()) ** 2
    assert fit.left_out == pytest.approx(1 - missed / total, abs=1e-8)
    assert fit.r2 is not None and fit.left_out is not None and fit.left_out < fit.r2 < 1


def test_the_error_of_a_draw_is_that_of_many_draws() -> None:
    rng = np.random.default_rng(0)
    found, told = [], []
    for seed in range(300):
        design = draw_subsets(Subsets(0.3, 60), 8, seed)
        values = design @ np.arange(8.0) + rng.normal(size=60)
        regression = Regression(design)
        found.append(regression.coefficients(values))
        told.append(regression.fit(values, Subsets(0.3, 60)).draw_error)
    assert np.mean(told) == pytest.approx(np.std(found, axis=0).mean(), rel=0.05)


def test_what_does_not_tell_heads_apart_is_refused() -> None:
    with pytest.raises(HonesError, match=r"^subsets 12 of 12 heads; expected 13 or more"):
        Subsets(count=12).of(12)
    assert Subsets().of(12).count == 48 and Subsets(count=5, ridge=0.1).of(12).count == 5
    design = drawn()
    design[:, 3] = design[:, 2]
    with pytest.raises(HonesError, match=r"60 subsets tell 7 of 8 heads apart"):
        Regression(design)
    found = Regression(design, ridge=1e-6).coefficients(design @ np.array([0, 0, 1.0, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(found[2:4], 0.5, atol=1e-4)
    flat = Regression(drawn()).fit(np.ones(60), Subsets(0.3, 60))
    assert (flat.r2, flat.left_out, flat.draw_error) == (None, None, None) and "score the same" in str(flat)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"by": "subset"}, "by subset; expected single, subsets, conditional"),
        ({"by": "single", "share": 0.2}, "--share with --by single; expected --by subsets"),
        ({"by": "conditional", "subsets": 99}, "--subsets with --by conditional; expected --by subsets"),
        ({"by": "subsets", "steps": 3}, "--steps with --by subsets; expected --by conditional"),
        ({"by": "subsets", "share": 1.0}, "share 1; expected a share of the heads between 0 and 1"),
        ({"by": "subsets", "ridge": float("nan")}, "ridge nan; expected 0 or more"),
        ({"by": "subsets", "subsets": 0}, "subsets 0; expected at least 1"),
        ({"by": "conditional", "steps": 0}, "steps 0; expected at least 1"),
    ],
)
def test_what_a_way_cannot_be_asked_for(asked: dict[str, Any], line: str) -> None:
    with pytest.raises(HonesError) as refused:
        make_head_way(**asked)
    assert str(refused.value).startswith(line)
    with pytest.raises(ValueError):
        HeadsConfig.model_validate(asked)


def test_what_is_asked_for_by_default() -> None:
    assert make_head_way("single") is None
    assert make_head_way("subsets", share=0.2, subsets=99, ridge=0.5) == Subsets(0.2, 99, 0.5)
    assert make_head_way("conditional", steps=3) == Conditional(3)
    assert [check_utility(None, way) for way in (None, Subsets(), Conditional())] == ["metric", "logprob", "logprob"]
    assert check_utility("metric", Subsets()) == "metric"
    with pytest.raises(HonesError, match="utility loss; expected metric or logprob"):
        check_utility("loss", None)
    assert Conditional(6).chosen(30) == [5, 10, 15, 20, 25, 30] and Conditional(6).chosen(2) == [1, 2]


# --- planted truths ---

A, B, C = (0, 1), (1, 2), (2, 3)
ITEMS = 40


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, vlms: dict[str, VLM]) -> Callable[[Callable[[set[Site]], float]], VLM]:
    """A model of 12 heads whose answers are worth what a function of the replaced heads says."""

    def plant(worth: Callable[[set[Site]], float]) -> VLM:
        def measure(vlm: VLM, jobs: Any, arms: Mapping[Any, Intervention], *_: Any, seed: int, **__: Any) -> Any:
            noise = 0.01 * np.random.default_rng(0).normal(size=ITEMS)
            of_arm = {
                arm: np.stack([worth({*edit.heads}) + noise, np.ones(ITEMS)], -1)[None] for arm, edit in arms.items()
            }
            return [Measurement(of_arm, task.score, seed) for task, _ in jobs]

        for module in (heads, head_subsets, head_steps):
            monkeypatch.setattr(module, "measure", measure)
        return vlms["llava"]

    return plant


def found_heads(result: HeadResult) -> list[Site]:
    return [(h.layer, h.head) for h in result.critical]


def redundant(alone: float) -> Callable[[set[Site]], float]:
    """A and B make up for each other but for `alone`; C stands alone."""

    def worth(replaced: set[Site]) -> float:
        lost = 0.1 * (C in replaced) + alone * (A in replaced) + 0.6 * ({A, B} <= replaced)
        return 1 - lost

    return worth


def test_a_wholly_redundant_pair_is_seen_in_subsets_and_not_alone(planted: Any, discovery: Items) -> None:
    vlm, task = planted(redundant(0.0)), LogProbability(make_task("vqa"))
    examples: Sequence[Any] = [object()]
    assert found_heads(localize_heads(vlm, task, examples, top_k=3)) == [C]
    subsets = localize_heads_by_subsets(vlm, task, examples, Subsets(0.3, 200), top_k=3)
    assert {*found_heads(subsets)} == {A, B, C}
    by_site = {(h.layer, h.head): h.score.value for h in subsets.heads}
    # what is not additive moves the others by chance
    assert min(by_site[A], by_site[B]) > 0.1 > 2 * max(abs(s) for site, s in by_site.items() if site not in (A, B, C))
    # no head alone leads to the pair, so no step does
    steps = localize_heads_conditionally(vlm, task, examples, Conditional(3), top_k=3)
    assert found_heads(steps) == [C] and steps.found_by == StepsTaken(3, (1,))
    assert "1 critical instead of 3" in steps.table().caption


def test_steps_find_the_head_that_takes_over(planted: Any, discovery: Items) -> None:
    vlm, task = planted(redundant(0.2)), LogProbability(make_task("vqa"))
    examples: Sequence[Any] = [object()]
    alone = localize_heads(vlm, task, examples, top_k=3)
    assert found_heads(alone) == [A, C]  # B seems needless
    steps = localize_heads_conditionally(vlm, task, examples, Conditional(3), top_k=3)
    assert found_heads(steps) == [A, B, C]
    of = {(h.layer, h.head): h for h in steps.heads}
    assert [of[site].step for site in (A, B, C)] == [1, 2, 3]
    second, third = of[B].growth, of[C].growth
    assert second is not None and third is not None
    assert of[B].score.value == pytest.approx(0.6)
    assert second.value == pytest.approx(0.6) and second.low > 0
    assert third.value == pytest.approx(0)
    assert of[B].baseline == pytest.approx(0.8, abs=0.01) and of[B].intervened == pytest.approx(0.2, abs=0.01)
    widest = localize_heads_conditionally(vlm, task, examples, Conditional(1), top_k=3)
    assert found_heads(widest) == found_heads(alone)  # one step is the paper's way
    assert [h.score for h in widest.heads] == [h.score for h in alone.heads]


# --- random models ---


def test_heads_replaced_at_once_are_the_same_by_every_engine(vlm: VLM, discovery: Items) -> None:
    """Several of one layer, all of a layer, several layers: naive is the definition."""
    task = LogProbability(make_task("vqa"))
    examples = task.examples(discovery)[0][:3]
    rows = draw_subsets(Subsets(0.4, 4), 12, seed=3)
    edits = [Intervention(heads=frozenset((int(at) // 4, int(at) % 4) for at in row.nonzero()[0])) for row in rows]
    edits += [Intervention(heads=frozenset((1, head) for head in range(4))), Intervention()]
    naive = sweep(vlm, task, examples, edits, SweepSettings("naive"))
    assert np.abs(np.diff(naive[..., 0], axis=0)).max(1).min() > 1e-3
    np.testing.assert_allclose(sweep(vlm, task, examples, edits), naive, atol=1e-4)
    forward = Forward(vlm, max_new_tokens=1, batch_size=DEFAULT_BATCH_SIZE)
    of_items = forward.answer([(task, example) for example in examples], edits)
    np.testing.assert_allclose(np.stack([x.statistics for x in of_items], 1), naive, atol=1e-4)


def test_a_twin_is_found_beside_its_head(tmp_path: Path, discovery: Items) -> None:
    """Head 1 of layer 0 computes what head 0 does, and each writes half of it, far more than any other head writes."""
    vlm = load_vlm(str(save_random_llava(tmp_path)))
    decoder: Any = vlm.model.get_decoder()
    layer, width = decoder.layers[0].self_attn, vlm.anatomy.head_dim
    query, out = layer.q_proj.weight.data, layer.o_proj.weight.data  # heads 0 and 1 share keys and values
    out[:, :width] *= 16
    query[width : 2 * width] = query[:width]
    out[:, :width] /= 2
    out[:, width : 2 * width] = out[:, :width]
    task = LogProbability(make_task("vqa"))
    examples, _ = task.examples(discovery)
    sites = [(0, 0), (0, 1)]
    edits = [Intervention(heads=frozenset(x)) for x in ((), sites[:1], sites[1:], sites)]
    whole, first, second, both = sweep(vlm, task, examples, edits)[..., 0].mean(1)
    assert first == pytest.approx(second, abs=1e-4)
    steps = localize_heads_conditionally(vlm, task, examples, Conditional(2), top_k=2)
    assert {*found_heads(steps)} == {*sites}
    _, later = steps.critical
    assert later.step == 2 and later.growth is not None
    assert later.score.value == pytest.approx(first - both, abs=1e-4)
    assert later.growth.value == pytest.approx((first - both) - (whole - second), abs=1e-4)


@pytest.mark.parametrize("by", [Subsets(0.3, 40), Conditional(2)])
def test_a_run_keeps_how_heads_were_found(
    by: Subsets | Conditional, tmp_path: Path, vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = LogProbability(make_task("vqa"))

    def study(name: str = "run") -> Study:
        return Study(vlms["llava"], RunFolder(tmp_path / name), SweepSettings(batch_size=3))

    append, appended = Journal.append, []
    groups = 4 if isinstance(by, Conditional) else 2  # two a sweep
    stop = groups - 1

    def killed(self: Journal, group: int, answered: Any) -> None:
        append(self, group, answered)
        appended.append(group)
        if len(appended) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        study().heads([task], discovery, 2, by=by)
    results = study().heads([task], discovery, 2, by=by)
    assert len(appended) == groups  # none twice
    whole = study("whole").heads([task], discovery, 2, by=by)
    for name in ("heads.json", "head_scores.npy"):
        assert (tmp_path / "run/vqa" / name).read_bytes() == (tmp_path / "whole/vqa" / name).read_bytes()
    assert results == whole and not [*(tmp_path / "run/journal").iterdir()]
    (result,) = results
    assert isinstance(result.found_by, SubsetFit if isinstance(by, Subsets) else StepsTaken)
    content = json.loads((tmp_path / "run/vqa/heads.json").read_text())
    assert content["by"]["way"] == by.way and ("growth_low" in content["all_heads"][0]) == (by.way == "conditional")
    fingerprint = study().run.record.stages["vqa/heads"].fingerprint
    assert (fingerprint["by"], fingerprint[by.way]) == (by.way, by.of(12).options)
    with pytest.raises(HonesError, match=f"holds vqa/heads with by = .{by.way}., now null"):
        study().heads([task], discovery, 2)
    published = _heads(result)
    assert published.by == by.way and json.loads(published.model_dump_json())["by"] == by.way


def test_the_papers_way_leaves_what_it_left(tmp_path: Path, vlms: dict[str, VLM], discovery: Items) -> None:
    task = LogProbability(make_task("vqa"))
    result = localize_heads(vlms["llava"], task, task.examples(discovery)[0], top_k=2)
    write_heads(tmp_path, result, 3, 4)
    assert read_heads(tmp_path / "heads.json") == result
    content = json.loads((tmp_path / "heads.json").read_text())
    assert "by" not in content and not {"step", "growth"} & {*content["all_heads"][0]}
    assert "by" not in _heads(result).model_dump()


def test_steps_that_ended_early_are_read_back_as_they_were(tmp_path: Path, planted: Any) -> None:
    vlm, task = planted(redundant(0.0)), LogProbability(make_task("vqa"))
    examples: Sequence[Any] = [object()]
    result = localize_heads_conditionally(vlm, task, examples, Conditional(3), top_k=3)
    write_heads(tmp_path, result, 3, 4)
    assert read_heads(tmp_path / "heads.json") == result and len(result.critical) == 1
    found = FoundHeads.model_validate(_heads(result).model_dump())
    published = Published.model_validate({"model": "m", "revision": "r", "tasks": {"vqa": {"heads": found}}})
    assert found_heads(published.heads()) == found_heads(result)


def test_fewer_subsets_than_heads_warn_with_a_ridge(planted: Any) -> None:
    vlm, task = planted(redundant(0.0)), LogProbability(make_task("vqa"))
    with pytest.warns(HonesWarning, match="10 subsets of 12 heads"):
        localize_heads_by_subsets(vlm, task, [object()], Subsets(0.3, 10, 0.1), top_k=3)  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--by", "subsets", "--subsets", "12"), "hones: --subsets 12 of 12 heads; expected 13 or more"),
        (("--by", "conditional", "--racing", "0.9"), "hones: --racing with --by conditional; expected one of them"),
        (("--steps", "2"), "hones: --steps with --by single; expected --by conditional"),
    ],
)
def test_the_command_refuses_in_one_line(
    options: tuple[str, ...],
    line: str,
    tmp_path: Path,
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("--model", model_folders["llava"], "--task", "vqa", "--data", shapes["test"], "--out", tmp_path / "run")
    assert call("heads", *asked, *options) == 2
    assert line in " ".join(capsys.readouterr().err.split())
    assert load_items(shapes["test"]) and not (tmp_path / "run").exists()
