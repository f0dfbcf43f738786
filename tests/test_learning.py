"""Learning scales: the fast objective against the definition, early stopping, divergence."""

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from family_models_apart import save_gemma3
from helpers import in_double, with_model
from random_models import save_random_qwen3_vl
from torch import Tensor

from hones import HonesError, SteeringSettings, learn_scales, load_vlm, make_task
from hones.cli.steer import TrainingOptions
from hones.data.items import Items
from hones.method.steering import definition, train
from hones.method.steering.definition import Losses
from hones.method.steering.fast import FastObjective, Objective, Savings, gradient_of, make_objective, probe
from hones.method.steering.kept import PAIRS_AT_ONCE
from hones.method.steering.pairs import Pair, TrainingPlan, make_plan
from hones.method.steering.settings import EarlyStopping
from hones.method.steering.train import parameters
from hones.method.steering.trainable import Trainable
from hones.models.vlm import VLM, frozen
from hones.tasks import TASKS

NEURONS = [(0, 1), (0, 4), (1, 2), (2, 0), (2, 19)]
UPPER = [(1, 3), (2, 0), (2, 5)]
LAST = [(2, 7), (2, 9)]
SETTINGS = SteeringSettings(beta=0.3, gamma=0.1, epochs=2)


def plan_of(discovery: Items, task_name: str, settings: SteeringSettings = SETTINGS) -> TrainingPlan:
    task = make_task(task_name, candidates=7)
    return make_plan(task, task.examples(discovery)[0], settings)


def slow(vlm: VLM, trained: Trainable, settings: SteeringSettings = SETTINGS) -> Objective:
    return partial(definition.objective, vlm, trained=trained, settings=settings)


def gradients(objective: Objective, plan: TrainingPlan, scales: dict[int, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [gradient_of(objective, pairs, scales) for _, pairs in plan.steps]


def all_close(found: Sequence[Any], expected: Sequence[Any], rtol: float, atol: float) -> None:
    torch.testing.assert_close([*found], [*expected], rtol=rtol, atol=atol)


@pytest.mark.parametrize("task_name", TASKS)
def test_every_step_is_the_definitions(vlm: VLM, discovery: Items, task_name: str) -> None:
    """Batches of four pictures, prompts and answers of different lengths; the second epoch's from memory."""
    plan = plan_of(discovery, task_name)
    some = TrainingPlan([*plan.steps[:2], *plan.steps[-2:]], [])
    with frozen(vlm.model):
        for neurons, steps in ((NEURONS, some.steps), (UPPER, some.steps[1:2]), (LAST, some.steps[:1])):
            trained, _ = parameters(vlm, neurons)
            scales, fast = probe(trained), FastObjective(vlm, plan.pairs, trained, SETTINGS)
            found, expected = (gradients(one, TrainingPlan(steps, []), scales) for one in (fast, slow(vlm, trained)))
            all_close(found, expected, rtol=2e-4, atol=2e-5)
            assert all(float(gradient.norm()) > 1e-3 for _, gradient in expected)


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_what_differs_is_rounding(vlms: dict[str, VLM], discovery: Items, family: str) -> None:
    vlm = in_double(vlms[family])
    for task_name in ("caption", "retrieval"):
        plan = plan_of(discovery, task_name)
        with frozen(vlm.model):
            trained, _ = parameters(vlm, NEURONS)
            scales = {layer: s.detach().double().requires_grad_() for layer, s in probe(trained).items()}
            first = TrainingPlan(plan.steps[:1], [])
            fast = FastObjective(vlm, plan.pairs, trained, SETTINGS)
            found, expected = (gradients(one, first, scales) for one in (fast, slow(vlm, trained)))
            all_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("off", ["picture_once", "teacher_once", "lower_once", "written", "last_ffn", "answer_logits"])
def test_each_saving_changes_nothing(vlms: dict[str, VLM], discovery: Items, off: str) -> None:
    vlm, plan = vlms["qwen"], plan_of(discovery, "retrieval")
    trained, _ = parameters(vlm, UPPER)
    with frozen(vlm.model):
        one, other = (
            FastObjective(vlm, plan.pairs, trained, SETTINGS, savings) for savings in (None, Savings(**{off: False}))
        )
        few = TrainingPlan(plan.steps[:2], [])
        all_close(gradients(one, few, probe(trained)), gradients(other, few, probe(trained)), rtol=1e-4, atol=1e-5)
        assert (other.start, one.start) == ({"lower_once": 0, "written": 1}.get(off, 2), 2)


@pytest.mark.parametrize(("family", "some"), [("llava", False), ("qwen", True)])
def test_what_does_not_fit_is_computed_again(vlms, discovery: Items, family: str, some: bool) -> None:
    """Nothing is kept, or one picture; two epochs' pairs of two pictures, more than one pass of pairs of each."""
    vlm, plan = vlms[family], plan_of(discovery, "retrieval", SETTINGS.model_copy(update={"epochs": 4}))
    pictures = {pair.picture for pair in plan.pairs[:2]}
    own = [pair for pair in plan.pairs if pair.picture in pictures]
    few = TrainingPlan([(0, [a, b]) for a, b in zip(own[:4], own[-4:], strict=True)], [])
    trained, _ = parameters(vlm, NEURONS)
    with frozen(vlm.model):
        kept = FastObjective(vlm, own, trained, SETTINGS)
        expected = gradients(kept, few, probe(trained))
        sizes = [known.bytes for known in kept.rows.known.values()]
        bounded = FastObjective(vlm, own, trained, SETTINGS, Savings(memory=int(1.5 * max(sizes)) if some else 0))
        for one, other in zip(expected, gradients(bounded, few, probe(trained)), strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert len(own) > 2 * PAIRS_AT_ONCE - 4 and len(sizes) == len(pictures) == 2
    assert len(bounded.rows.known) == some


def test_a_picture_is_encoded_once(vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, opened = plan_of(discovery, "retrieval"), []
    trained, _ = parameters(vlm, NEURONS)
    encode = VLM.encode
    monkeypatch.setattr(VLM, "encode", lambda self, *a: opened.append(len(a[0])) or encode(self, *a))
    with frozen(vlm.model):
        fast = FastObjective(vlm, plan.pairs, trained, SETTINGS)
        assert len(fast.rows.of(plan.pairs)) == len(plan.pairs) == len(fast.rows.of(plan.pairs))
    assert sum(opened) == len({pair.picture for pair in plan.pairs}) == 6


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_the_fast_gradient_equals_finite_differences(vlms: dict[str, VLM], discovery: Items, family: str) -> None:
    vlm, plan = in_double(vlms[family]), plan_of(discovery, "caption")
    with frozen(vlm.model):
        trained, _ = parameters(vlm, NEURONS)
        fast = FastObjective(vlm, plan.pairs, trained, SETTINGS)
        scales = {layer: s.detach().double().requires_grad_() for layer, s in probe(trained).items()}
        _, gradient = gradient_of(fast, plan.steps[0][1], scales)
        numeric, by = [], 1e-5
        with torch.no_grad():
            for layer, s in scales.items():
                for i in range(len(s)):
                    ends = []
                    for sign in (1, -1):
                        moved = {k: v.clone() for k, v in scales.items()}
                        moved[layer][i] += sign * by
                        ends.append(fast(plan.steps[0][1], moved).total)
                    numeric.append((ends[0] - ends[1]) / (2 * by))
    torch.testing.assert_close(gradient, torch.stack(numeric), rtol=1e-6, atol=1e-8)


def test_the_scales_are_the_definitions(vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task("vqa")
    examples, settings = task.examples(discovery)[0], SteeringSettings(learning_rate=0.02, epochs=3)
    fast = learn_scales(vlm, task, examples, NEURONS, settings)
    monkeypatch.setattr(train, "make_objective", lambda vlm, pairs, first, trained, *_: slow(vlm, trained, settings))
    exact = learn_scales(vlm, task, examples, NEURONS, settings)
    assert fast.values == pytest.approx(exact.values, abs=2e-4)
    assert fast.losses == pytest.approx(exact.losses, rel=1e-4) and len(fast.epochs) == 3
    assert max(map(abs, exact.values.values())) > 0.02
    for epoch, loss in zip(fast.epochs, fast.losses, strict=True):
        assert loss == epoch.total and epoch.held_out is None
        assert loss == pytest.approx(epoch.cross_entropy + 0.05 * epoch.divergence, abs=1e-4)


def test_picture_features_between_layers_are_kept(discovery: Items, tmp_path: Path) -> None:
    """Training begins above layer 0, behind which features are added, and above layer 1, behind which they are too."""
    vlm, plan = load_vlm(str(save_random_qwen3_vl(tmp_path / "qwen3"))), plan_of(discovery, "retrieval")
    with frozen(vlm.model):
        for neurons, layers in ((NEURONS, {1}), (UPPER, set())):
            trained, _ = parameters(vlm, neurons)
            scales, steps = probe(trained), TrainingPlan(plan.steps[:1], [])
            fast = make_objective(vlm, plan.pairs, plan.steps[0][1], trained, SETTINGS)
            assert isinstance(fast, FastObjective)
            assert {layer for row in fast.rows.of(plan.steps[0][1]) for layer in row.prefix.between} == layers
            found, expected = (gradients(one, steps, scales) for one in (fast, slow(vlm, trained)))
            all_close(found, expected, rtol=2e-4, atol=2e-5)


def test_another_family_takes_the_definition_and_is_named(discovery: Items, tmp_path: Path) -> None:
    vlm, plan = load_vlm(str(save_gemma3(tmp_path / "gemma3"))), plan_of(discovery, "vqa")
    trained, _ = parameters(vlm, NEURONS)
    with (
        frozen(vlm.model),
        pytest.warns(UserWarning, match="Gemma3.* cannot be served by the fast trainer .its decoder is not given"),
    ):
        objective = make_objective(vlm, plan.pairs, plan.steps[0][1], trained, SETTINGS)
    assert isinstance(objective, partial) and objective.func is definition.objective


def test_an_objective_that_is_not_the_definition_is_not_used(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, plan = vlms["llava"], plan_of(discovery, "vqa")
    trained, _ = parameters(vlm, NEURONS)
    run = FastObjective._run

    def without_scales(self: FastObjective, rows: Any, scales: dict[int, Tensor]) -> Tensor:
        return run(self, rows, scales) if self.below is None else run(self, rows, {k: 0 * s for k, s in scales.items()})

    monkeypatch.setattr(FastObjective, "_run", without_scales)
    with frozen(vlm.model):
        objective = make_objective(vlm, plan.pairs, plan.steps[0][1], trained, SETTINGS)
        assert isinstance(objective, FastObjective) and objective.below is None, "the one that is right is taken"
    monkeypatch.setattr(
        FastObjective, "_run", lambda self, rows, scales: run(self, rows, {k: s / 2 for k, s in scales.items()})
    )
    with (
        frozen(vlm.model),
        pytest.warns(UserWarning, match=r"cannot be served by the fast trainer \(its .* differs by"),
    ):
        assert not isinstance(make_objective(vlm, plan.pairs, plan.steps[0][1], trained, SETTINGS), FastObjective)


# --- early stopping ---


def held_out_losses(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> None:
    """Give the objective on held-out pictures by hand."""
    given = iter(values)

    def judge(objective: Any, plan: TrainingPlan, state: Any, settings: Any) -> None:
        state.held_out.append(next(given))
        if state.held_out[-1] == min(state.held_out):
            state.best = {layer: s.detach().clone() for layer, s in state.scales.items()}

    monkeypatch.setattr(train, "_judge", judge)


def test_early_stopping_keeps_the_best_epoch(vlms, discovery: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    examples = task.examples(discovery)[0]
    settings = SteeringSettings(epochs=8, learning_rate=0.02, early_stopping=EarlyStopping(share=0.3, patience=2))
    held_out_losses(monkeypatch, [3.0, 2.0, 1.0, 1.5, 1.2, 0.1])
    found = learn_scales(vlm, task, examples, NEURONS, settings)
    assert found.epoch == 2 and len(found.losses) == 4
    assert found.held_out == 3.0 and [x.held_out for x in found.epochs] == [2.0, 1.0, 1.5, 1.2]
    held_out_losses(monkeypatch, [3.0, 2.0, 1.0, 9.0, 9.0])
    assert learn_scales(vlm, task, examples, NEURONS, settings).values == found.values


def test_held_out_pictures_are_not_trained_on(discovery: Items) -> None:
    for name in TASKS:
        plan = plan_of(discovery, name, SteeringSettings(early_stopping=EarlyStopping(share=0.4)))
        learned = {p.example.image for _, pairs in plan.steps for p in pairs}
        held_out = {p.example.image for p in plan.held_out}
        assert len(held_out) == 2 and len(learned) == 4 and not learned & held_out
    few = replace(discovery, items=discovery.items[:1])
    with pytest.raises(HonesError, match="early stopping with 1 dev picture"):
        plan_of(few, "vqa", SteeringSettings(early_stopping=EarlyStopping()))


def test_training_that_only_harms_ends_with_no_scaling(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    settings = SteeringSettings(learning_rate=1.5, gamma=100, early_stopping=EarlyStopping(share=0.5))
    found = learn_scales(vlm, task, task.examples(discovery)[0], NEURONS, settings)
    assert found.epoch == 0 and set(found.values.values()) == {0.0}
    assert found.held_out is not None and found.epochs[0].held_out is not None
    assert found.epochs[0].held_out > found.held_out


# --- divergence, and the user's model ---


def diverging(after: int, *, gradient_only: bool) -> Any:
    """An objective that is not finite, or whose gradient is not, after so many steps."""
    steps = []

    def objective(pairs: Sequence[Pair], scales: dict[int, Tensor]) -> Losses:
        steps.append(1)
        size = torch.cat([*scales.values()])
        total = size.sum() + 1
        if len(steps) > after:
            total = (size - size.detach()).abs().sqrt().sum() + 1 if gradient_only else total * math.nan
        return Losses(total, total.detach(), total.detach())

    return lambda *_: objective


@pytest.mark.parametrize(("gradient_only", "message"), [(False, "objective is nan"), (True, "gradient of .* is nan")])
def test_divergence_stops_and_the_checkpoint_before_stays(
    vlms, discovery: Items, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gradient_only: bool, message: str
) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    file = tmp_path / "training.safetensors"
    monkeypatch.setattr("hones.method.steering.checkpoint.SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(train, "make_objective", diverging(2, gradient_only=gradient_only))
    with pytest.raises(HonesError, match=f"{message} at step 3 of 4; expected a finite number"):
        learn_scales(vlm, task, task.examples(discovery)[0], NEURONS, checkpoint=file)
    monkeypatch.setattr(train, "make_objective", diverging(2, gradient_only=False))
    found = learn_scales(vlm, task, task.examples(discovery)[0], NEURONS, checkpoint=file)
    assert len(found.losses) == 2 and all(s < 0 for s in found.values.values())


def test_the_users_model_is_as_before(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm = with_model(vlms["qwen"], copy.deepcopy(vlms["qwen"].model))
    vlm.model.train()
    next(vlm.model.parameters()).requires_grad_(False)
    modules = [*vlm.model.modules()]

    def state() -> list[Any]:
        hooks = [(len(m._forward_pre_hooks), len(m._forward_hooks), len(m._backward_hooks)) for m in modules]
        flags = [(p.requires_grad, p.grad is None) for p in vlm.model.parameters()]
        return [hooks, flags, [m.training for m in modules], ["forward" in m.__dict__ for m in modules]]

    weights, before = {k: v.clone() for k, v in vlm.model.state_dict().items()}, state()
    task = make_task("caption")
    learn_scales(vlm, task, task.examples(discovery)[0][:3], NEURONS, SteeringSettings(epochs=1))
    assert state() == before and all(m.training for m in modules)
    assert all(torch.equal(v, weights[k]) for k, v in vlm.model.state_dict().items())


# --- options ---


def test_options_become_settings_and_bad_ones_are_named() -> None:
    options = {"learning_rate": 1e-3, "epochs": 3, "beta": 0.1, "gamma": 0.0, "max_scale": 1.0}
    found = TrainingOptions(**options, step_size=2, early_stopping=0.25, patience=3).training(seed=1)
    stopping = EarlyStopping(share=0.25, patience=3)
    assert found == SteeringSettings(**options, batch_size=2, seed=1, early_stopping=stopping)
    assert json.loads(found.model_dump_json())["early_stopping"] == {"share": 0.25, "patience": 3}
    plain = TrainingOptions(**options).training(seed=1)
    assert plain.early_stopping is None and SteeringSettings().early_stopping is None
    for bad, message in (
        ({"learning_rate": 0.0}, r"--learning-rate 0\.0: Input should be greater than 0"),
        ({"max_scale": -1.0}, r"--max-scale -1\.0"),
        ({"max_scale": math.inf}, "--max-scale inf: Input should be a finite number"),
        ({"learning_rate": math.inf}, "--learning-rate inf: Input should be a finite number"),
        ({"early_stopping": math.nan}, "--early-stopping nan: Input should be a finite number"),
        ({"early_stopping": 1.0}, r"--early-stopping 1\.0: Input should be less than 1"),
    ):
        with pytest.raises(HonesError, match=message):
            TrainingOptions(**{**options, **bad}).training(seed=1)
