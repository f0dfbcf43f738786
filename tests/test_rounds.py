"""rounds: its ranking by a slow definition, that closing happens, and that a killed one goes on."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import in_double
from test_running_sum import Killed, Several, heads

from hones import HonesError, RunFolder, Study, load_items, make_task, select_neurons
from hones.data.items import Items
from hones.files import read_npy
from hones.models.interventions import mask_neurons
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import check_schedule, make_method, scheduled
from hones.rivals.base import Context, Importance
from hones.rivals.hones_plus import Knowledge
from hones.rivals.results import Comparison
from hones.rivals.rounds import Rounds, Schedule, close_in_rounds
from hones.runs.comparing import ComparisonRequest, compare
from hones.sweep.run import SweepSettings

Site = tuple[int, int]
__all__ = ["heads"]


def context_of(vlm: VLM, items: Items, task_name: str = "vqa", count: int = 4) -> Context:
    task = make_task(task_name, candidates=3)
    return Context(vlm, task, task.examples(items)[0][:count])


def in_rounds_by_hand(gradient: Callable[[set[Site]], Importance], widths: list[int]) -> list[Site]:
    """All neurons, best first: a loop over rounds and a sort of pairs."""
    closed: list[Site] = []
    for number, width in enumerate(widths, 1):
        g = gradient(set(closed))
        left = [(-float(g[site]), site) for site in np.ndindex(g.shape) if site not in closed]
        best = [site for _, site in sorted(left)]
        closed += best if number == len(widths) else best[:width]
    return closed


def ranked_by(importance: Importance) -> list[Site]:
    return [site for _, site in sorted((-float(importance[site]), site) for site in np.ndindex(importance.shape))]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_ranking_is_the_definitions(vlm: VLM, discovery: Items, precision: str) -> None:
    context = context_of(vlm, discovery)
    knowledge = copy.copy(Knowledge(vlm, context.task, context.examples))
    if precision == "float64":
        knowledge.vlm = in_double(vlm)
    shape = importance_shape(vlm)

    def at(gates: Importance) -> Importance:
        with frozen(knowledge.vlm.model):
            return knowledge.gradient(gates.astype(precision)).astype(precision)

    def gradient(closed: set[Site]) -> Importance:
        """Of the masked model with open gates on top: dV/dg of a neuron that is not closed."""
        with mask_neurons(knowledge.vlm.model, sorted(closed)):
            return at(np.ones(shape))

    expected = in_rounds_by_hand(gradient, [3, 3, 3])
    found = close_in_rounds(at, shape, [3, 6, 9])
    chosen = [site for site in ranked_by(found) if found[site] > 0]
    assert chosen[:6] == expected[:6]
    assert len(chosen) > 9
    last = gradient(set(expected[:6]))
    others = [site for site in np.ndindex(shape) if site not in expected[:6]]
    for site in others:
        np.testing.assert_allclose(found[site], last[site], rtol=2e-3, atol=1e-6 * float(np.abs(last).max()))
    if precision == "float64":
        assert chosen == expected[: len(chosen)]
    else:
        of_method = replace(Rounds(), schedule=Schedule(3, width=3)).importance(context)
        np.testing.assert_array_equal(of_method, found)


def test_one_round_is_hones_plus(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, "caption")
    one = make_method("rounds").with_schedule(rounds=1)
    np.testing.assert_array_equal(one.importance(context), make_method("hones+").importance(context))


def test_a_neuron_that_another_makes_up_for_is_found_in_the_second_round() -> None:
    """V = max(a, b) - 1 - c / 4: a hides b until it is closed, and c does harm."""
    weights = np.array([[3.0, 2.9, -0.25]])

    def gradient(gates: Importance) -> Importance:
        a, b, _ = (weights * gates)[0]
        return np.array([[3.0 * (a >= b), 2.9 * (b > a), -0.25]])

    assert ranked_by(close_in_rounds(gradient, (1, 3), [2]))[1] == (0, 1)
    assert close_in_rounds(gradient, (1, 3), [2])[0, 1] == 0
    found = close_in_rounds(gradient, (1, 3), [1, 2])
    assert [(n.layer, n.neuron) for n in select_neurons(found, 1.0)] == [(0, 0), (0, 1)]
    assert found.tolist() == [[5.8, 2.9, -0.25]]


def test_rounds_end_where_nothing_is_left_that_costs() -> None:
    asked: list[Importance] = []

    def gradient(gates: Importance) -> Importance:
        asked.append(gates.copy())
        return np.array([[float(gates[0, 0]), -1.0, -2.0]])

    found = close_in_rounds(gradient, (1, 3), [1, 2, 3])
    assert found.tolist() == [[2.0, -1.0, -2.0]]
    assert [gates.tolist() for gates in asked] == [[[1, 1, 1]], [[0, 1, 1]]]


def test_a_schedule_divides_the_budget() -> None:
    assert Schedule(6, ratio=0.01).closed(4000) == [7, 14, 20, 27, 34, 40]
    assert Schedule(6, ratio=0.01).closed(300) == [1, 2, 3]
    assert Schedule(3, width=5, ratio=0.5).closed(12) == [5, 10, 12]
    assert make_method("rounds").for_budget(0.1).options == {"rounds": 6, "width": None, "ratio": 0.1}
    wide = make_method("rounds").with_schedule(width=5)
    assert wide.for_budget(0.1).options == wide.for_budget(0.2).options


def test_rounds_of_a_method_without_any_are_one_line() -> None:
    with pytest.raises(HonesError, match="--rounds 3 --width 2 with the method dvp; expected the method rounds"):
        check_schedule(["dvp"], 3, 2)
    dvp, rounds = scheduled([make_method("dvp"), make_method("rounds")], 3, None)
    assert dvp is make_method("dvp") and rounds.options["rounds"] == 3


def neurons(vlm: VLM, run: Path, shapes: dict[str, Path], **sweep: Any) -> bytes:
    """`hones neurons --method rounds`; the bytes of every neuron's importance."""
    study = Study(vlm, RunFolder(run), SweepSettings(batch_size=2, **sweep))
    method = make_method("rounds").with_schedule(rounds=3)
    study.neurons(make_task("vqa"), load_items(shapes["discovery"]), None, 0.1, method=method)
    return (run / "vqa" / "neuron_importance.npy").read_bytes()


@pytest.mark.parametrize("last", [1, 3, 7])
def test_a_killed_ranking_goes_on_to_the_same_bytes(
    vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path, last: int
) -> None:
    """Three shards a round: killed in the first round, between two, and in the last."""
    vlm = vlms["qwen"]
    whole = neurons(vlm, tmp_path / "whole", shapes)
    with pytest.raises(Killed):
        neurons(vlm, tmp_path / "run", shapes, workers=Several(1, last))
    with pytest.raises(HonesError, match=r"options\.ratio = 0\.1, now 0\.2"):
        study = Study(vlm, RunFolder(tmp_path / "run"), SweepSettings(batch_size=2))
        method = make_method("rounds").with_schedule(rounds=3)
        study.neurons(make_task("vqa"), load_items(shapes["discovery"]), None, 0.2, method=method)
    others = Several(2)
    assert neurons(vlm, tmp_path / "run", shapes, workers=others) == whole
    assert len(others.computed) == 9 - last


def test_a_comparison_ranks_for_every_budget(
    vlms: dict[str, VLM], shapes: dict[str, Path], heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each point of the curve is what the method selects when it is asked for that budget; a rerun computes nothing."""
    vlm = vlms["qwen"]
    study = Study(vlm, RunFolder(tmp_path / "run"))
    task, splits = make_task("vqa"), {name: load_items(shapes[name]) for name in ("discovery", "test")}
    request = ComparisonRequest([make_method("rounds").with_schedule(rounds=2)], 0.3, budgets=(0.1, 0.3))

    def run() -> Comparison:
        return compare(study, task, splits["discovery"], splits["test"], heads, request)

    found = run()
    folder = tmp_path / "run/vqa/methods/rounds"
    examples = study.prepare(task, splits["discovery"], "discovery").examples
    alone = make_method("rounds").with_schedule(rounds=2).for_budget(0.1).importance(Context(vlm, task, examples))
    np.testing.assert_array_equal(read_npy(folder / "at-0.1/neuron_importance.npy"), alone)
    assert not np.array_equal(read_npy(folder / "neuron_importance.npy"), alone)
    assert found.curves[1].neurons[0] == len(select_neurons(alone, 0.1)) and not (folder / "at-0.3").exists()
    stages = study.run.record.stages
    assert stages["vqa/methods/rounds/at-0.1"].fingerprint["options"] == {"rounds": 2, "width": None, "ratio": 0.1}
    assert stages["vqa/compare"].fingerprint["methods"]["rounds/at-0.1"]
    monkeypatch.setattr(Rounds, "importance", None)
    assert run() == found
    request = replace(request, methods=[make_method("rounds")])
    with pytest.raises(HonesError, match=r"options.*rounds"):
        run()
