"""Uncertainty: intervals as text, and what a sweep measured against the slow obvious definition."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import RESAMPLES, UNEDITED, Interval, Measurement, PairedBootstrap
from hones.sweep import measure as module
from hones.sweep.measure import measure
from hones.tasks import make_task

SEED = 5


def test_an_interval_is_written_as_a_change_or_as_a_level() -> None:
    change = Interval(0.1234, -0.1, 0.15)
    assert str(change) == f"{change}" == f"{change:+.3f}" == "+0.123 [-0.100, +0.150]"
    assert f"{change:.2f}" == "0.12 [-0.10, 0.15]" and f"{change:.3g}" == "0.123 [-0.1, 0.15]"
    assert change.bounds(".2f") == "[-0.10, 0.15]" and change.bounds() == "[-0.100, +0.150]"


def test_shapes_are_checked_while_tests_run() -> None:
    with pytest.raises(TypeCheckError, match="items k"):
        PairedBootstrap(3, SEED).scores(np.ones((2, 3, 4)), lambda sums: sums[..., 0])


# --- measured, one resample, draw and item at a time ---


def statistics_of(task_name: str, draws: int, items: int, seed: int) -> np.ndarray:
    """Sums that the task could give; for captions, matches at most the n-grams that there are."""
    rng = np.random.default_rng(seed)
    statistics = rng.integers(1, 4, size=(draws, items, len(make_task(task_name).statistic_names)))
    if task_name == "caption":
        statistics[..., 4:8] += statistics[..., :4]
    return statistics.astype(np.float32)


def resamples_of(items: int) -> list[list[int]]:
    """The items of every resample by number, as often as they were drawn."""
    counts = np.random.default_rng(SEED).multinomial(items, [1 / items] * items, size=RESAMPLES)
    return [[i for i, count in enumerate(of_resample) for _ in range(count)] for of_resample in counts]


def slow_resampled(score: Callable[[np.ndarray], Any], statistics: np.ndarray, draws_again: bool) -> list[float]:
    """P(a; w) of every resample by the formula."""
    draws, items, _ = statistics.shape
    again = np.random.default_rng(SEED).integers(draws, size=(draws, RESAMPLES))
    values = []
    for r, drawn in enumerate(resamples_of(items)):
        taken = again[:, r] if draws_again else range(draws)
        of_draws = [float(score(sum(statistics[d, i].astype(float) for i in drawn))) for d in taken]  # pyright: ignore
        values.append(sum(of_draws) / draws)
    return values


def percentiles(values: list[float]) -> tuple[float, float]:
    return cast(tuple[float, float], tuple(np.quantile(values, (0.025, 0.975))))


@pytest.mark.parametrize("task_name", ["vqa", "caption"])
@pytest.mark.parametrize("draws", ["resampled", "averaged"])
def test_measured_equals_its_definition(task_name: str, draws) -> None:
    score, items = make_task(task_name).score, 7
    arms = {UNEDITED: statistics_of(task_name, 1, items, 0), "random": statistics_of(task_name, 3, items, 1)}
    measured = Measurement(arms, score, SEED, draws=draws)
    of_draw = {arm: [float(score(x.astype(float).sum(0))) for x in of_arm] for arm, of_arm in arms.items()}
    slow = {arm: slow_resampled(score, of_arm, draws == "resampled") for arm, of_arm in arms.items()}
    assert measured.items == items
    for arm in arms:
        assert measured.by_draw(arm) == pytest.approx(of_draw[arm], abs=1e-12)
        assert measured.value(arm) == pytest.approx(np.mean(of_draw[arm]), abs=1e-12)
        assert measured.resampled(arm) == pytest.approx(slow[arm], abs=1e-12)
        level = measured.level(arm)
        assert (level.low, level.high) == pytest.approx(percentiles(slow[arm]), abs=1e-12)
        of_items = [np.mean([float(score(x[i].astype(float))) for x in arms[arm]]) for i in range(items)]
        assert measured.by_item(arm) == pytest.approx(of_items, abs=1e-12)
        assert measured.sums(arm) == pytest.approx(arms[arm][0].sum(0))
    apart = [a - b for a, b in zip(slow["random"], slow[UNEDITED], strict=True)]
    difference, drop = measured.difference("random", UNEDITED), measured.drop("random")
    assert difference.value == pytest.approx(np.mean(of_draw["random"]) - of_draw[UNEDITED][0], abs=1e-12)
    assert (difference.low, difference.high) == pytest.approx(percentiles(apart), abs=1e-12)
    assert (drop.value, drop.low, drop.high) == pytest.approx((-difference.value, -difference.high, -difference.low))
    below, above = sum(x <= 0 for x in apart), sum(x >= 0 for x in apart)
    assert measured.p_value("random", UNEDITED) == min(1, 2 * (min(below, above) + 1) / (RESAMPLES + 1))
    assert measured.p_value("random", UNEDITED) == measured.p_value(UNEDITED, "random")
    lost = [100 * (b - a) / b for a, b in zip(slow["random"], slow[UNEDITED], strict=True)]
    relative = measured.relative_drop("random")
    assert relative is not None and (relative.low, relative.high) == pytest.approx(percentiles(lost), abs=1e-9)


def hits(*of_items: float) -> np.ndarray:
    """The statistics of one draw: an item's score, and 1."""
    return np.array([[[x, 1] for x in of_items]], dtype=np.float32)


def test_a_relative_drop_leaves_out_resamples_with_nothing_to_lose() -> None:
    score = make_task("vqa").score
    measured = Measurement({UNEDITED: hits(1, 0, 0), "neurons": hits(0.5, 0, 0)}, score, SEED)
    assert any(0 not in drawn for drawn in resamples_of(3)), "some resamples have no success at all"
    relative = measured.relative_drop("neurons")
    assert relative is not None and (relative.low, relative.value, relative.high) == pytest.approx((50, 50, 50))
    nothing = Measurement({UNEDITED: hits(0, 0, 0), "neurons": hits(0, 0, 0)}, score, SEED)
    assert nothing.relative_drop("neurons") is None and nothing.drop("neurons") == Interval(0.0, 0.0, 0.0)


def test_equal_arms_do_not_differ_and_a_constant_difference_is_certain() -> None:
    values = np.random.default_rng(0).random(20)
    score = make_task("vqa").score
    measured = Measurement({"a": hits(*values), "b": hits(*values), "c": hits(*(values - 0.25))}, score, SEED)
    assert measured.difference("a", "b") == Interval(0.0, 0.0, 0.0) and measured.p_value("a", "b") == 1
    found = measured.difference("a", "c")
    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-6)
    assert measured.p_value("a", "c") == 2 / (RESAMPLES + 1)


def test_equal_edits_are_swept_once_and_arms_keep_their_draws(
    vlms: dict[str, VLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = []

    def counted(_: Any, jobs: Any, edits: list[Intervention], *__: Any, **___: Any) -> list[np.ndarray]:
        swept.append(edits)
        return [np.stack([hits(n / 10, n / 10)[0] for n in range(len(edits))]) for _ in jobs]

    monkeypatch.setattr(module, "sweep_tasks", counted)
    first, second = (Intervention(masked=frozenset({(0, i)})) for i in (1, 2))
    scaled = Intervention(scales={(0, 1): 0.5})
    arms = {
        UNEDITED: BASELINE,
        "empty": Intervention(masked=frozenset()),
        "no scaling": Intervention(scales={(0, 1): 0.0}),
        "neurons": first,
        "random": [second, Intervention(masked=frozenset({(0, 1)})), second],
        "scaled": scaled,
        "scaled, a zero beside": Intervention(scales={(1, 1): 0.0, (0, 1): 0.5}),
    }
    job = (make_task("vqa"), [])
    of_first_task, of_second = measure(vlms["llava"], [job, job], arms, seed=SEED)
    assert [len(edits) for edits in swept] == [4]
    assert of_first_task.by_draw("random") == pytest.approx((0.2, 0.1, 0.2))
    values = {arm: of_second.value(arm) for arm in arms}
    expected = [0, 0, 0, 0.1, 0.5 / 3, 0.3, 0.3]
    assert [*values.values()] == pytest.approx(expected)
