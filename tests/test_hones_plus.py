"""hones+: what V is, and that its attribution is the effect that interventions have."""

import copy
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import in_double, with_model

from hones import make_task
from hones.data.items import Items
from hones.errors import HonesError
from hones.models.interventions import mask_neurons, scale_neurons
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import make_method
from hones.rivals.base import Context
from hones.rivals.hones_plus import Knowledge, Question


@pytest.fixture(params=["vqa", "caption", "retrieval"])
def knowledge(request: pytest.FixtureRequest, vlm: VLM, discovery: Items) -> Knowledge:
    task = make_task(request.param, candidates=3)
    return Knowledge(vlm, task, task.examples(discovery)[0][:4])


def all_open(vlm: VLM) -> np.ndarray:
    return np.ones(importance_shape(vlm), dtype=np.float32)


def value_by_hand(vlm: VLM, asked: list[Question]) -> float:
    """V prompt by prompt and token by token."""
    weight, share = defaultdict(float), defaultdict(float)
    for a in asked:
        for t, token in enumerate(a.ids):
            weight[t] += a.weight / len(a.ids)
            share[t, token] += a.weight / len(a.ids)
    total = 0.0
    for a in asked:
        encoded = vlm.encode_with_answers([a.example.open_picture()], [a.prompt], [a.answer])
        with torch.no_grad():
            log_p = vlm.logits(encoded).log_softmax(-1)[0]
        for t, token in enumerate(a.ids):
            predicted = log_p[len(log_p) - len(a.ids) + t - 1]
            expected = sum(share[t, v] / weight[t] * float(predicted[v]) for (k, v) in share if k == t)
            total += a.weight / len(a.ids) * (float(predicted[token]) - expected)
    return total


def test_the_value_is_that_of_the_formula(knowledge: Knowledge) -> None:
    assert sum(a.weight for a in knowledge.asked) == pytest.approx(1)
    value = knowledge.value(all_open(knowledge.vlm))
    assert value == pytest.approx(value_by_hand(knowledge.vlm, knowledge.asked), abs=2e-5)
    assert value != 0


def test_gates_are_the_masks_and_scales_of_the_interventions(knowledge: Knowledge) -> None:
    vlm, gates = knowledge.vlm, all_open(knowledge.vlm)
    gates[0, 1], gates[1, 2] = 0, 0.5
    with mask_neurons(vlm.model, [(0, 1)]), scale_neurons(vlm.model, {(1, 2): -0.5}):
        expected = value_by_hand(vlm, knowledge.asked)
    assert knowledge.value(gates) == pytest.approx(expected, abs=2e-5)


def test_a_model_that_tells_no_item_from_another_knows_nothing(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm = with_model(vlms["llava"], copy.deepcopy(vlms["llava"].model))
    with torch.no_grad():
        vlm.anatomy.lm_head.weight.zero_()
    task = make_task("vqa")
    knowledge = Knowledge(vlm, task, task.examples(discovery)[0])
    bias = torch.randn(vlm.anatomy.lm_head.out_features, generator=torch.Generator().manual_seed(0))
    hook = vlm.anatomy.lm_head.register_forward_hook(lambda *args: args[2] + bias)
    assert knowledge.value(all_open(vlm)) == pytest.approx(0, abs=1e-6)
    hook.remove()


def test_gradients_are_difference_quotients(knowledge: Knowledge) -> None:
    double = copy.copy(knowledge)
    double.vlm = in_double(knowledge.vlm)
    gates = all_open(knowledge.vlm).astype(np.float64)
    gates[:, ::2] = 0.7
    with frozen(double.vlm.model):
        gradient = double.gradient(gates)
    step = 1e-4
    for site in [(0, 0), (0, 3), (1, 2)]:
        up, down = gates.copy(), gates.copy()
        up[site] += step
        down[site] -= step
        assert gradient[site] == pytest.approx((double.value(up) - double.value(down)) / (2 * step), rel=1e-3, abs=1e-9)


def test_the_score_is_what_closing_a_neuron_a_little_costs(vlm: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    examples = task.examples(discovery)[0][:4]
    score = make_method("hones+").importance(Context(vlm, task, examples))
    knowledge = Knowledge(vlm, task, examples)
    open_value = knowledge.value(all_open(vlm))
    site = np.unravel_index(np.argmax(score), score.shape)
    with scale_neurons(vlm.model, {(int(site[0]), int(site[1])): -0.05}):
        closed_a_little = knowledge.value(all_open(vlm))
    assert score[site] > 0
    assert (open_value - closed_a_little) / 0.05 == pytest.approx(float(score[site]), rel=0.1)


def test_rows_at_once_do_not_change_the_gradient(vlm: VLM, discovery: Items) -> None:
    task = make_task("caption")
    examples = task.examples(discovery)[0][:5]
    with frozen(vlm.model):
        one, three = (Knowledge(vlm, task, examples, rows).gradient(all_open(vlm)) for rows in (1, 3))
    np.testing.assert_allclose(one, three, rtol=1e-3, atol=1e-7)


def test_yes_and_no_weigh_the_same(vlm: VLM, discovery: Items) -> None:
    task = make_task("retrieval", candidates=4)
    knowledge = Knowledge(vlm, task, task.examples(discovery)[0][:3])
    assert [a.answer for a in knowledge.asked[:4]] == ["Yes", "No", "No", "No"]
    prior = knowledge.prior[0]
    assert prior[vlm.answer_tokens.yes] == prior[vlm.answer_tokens.no] == 0.5


def test_a_question_alone_is_asked_with_its_own_answer(vlm: VLM, discovery: Items) -> None:
    """As in a task of the user's with one prompt per item, whose answer may be No."""
    task = make_task("retrieval", candidates=2)
    first, second = task.examples(discovery)[0][:2]
    asked = [replace(first, prompts=first.prompts[:1]), replace(second, prompts=second.prompts[:1], target="No")]
    knowledge = Knowledge(vlm, task, asked)
    assert [a.answer for a in knowledge.asked] == ["Yes", "No"]
    assert [a.weight for a in knowledge.asked] == [0.5, 0.5]


def test_one_answer_to_all_items_is_refused(vlm: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    examples = [replace(e, target="red", references=("red",)) for e in task.examples(discovery)[0][:3]]
    with pytest.raises(HonesError, match="all 3 answers are the same"):
        make_method("hones+").importance(Context(vlm, task, examples))
