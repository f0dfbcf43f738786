"""relp and gim: their score by a slow route, that a rule without effect is refused, and what they find."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import with_model
from torch import Tensor

from hones import HonesError, make_task
from hones.data.items import Items
from hones.models.backward import backward_by
from hones.models.backward_rules import Rules
from hones.models.capture import Z, capture
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import make_method
from hones.rivals.base import Context, Importance
from hones.rivals.gim import GradientInteraction
from hones.rivals.hones_plus import Knowledge
from hones.rivals.relp import RelevancePatching
from hones.rivals.ruled import RuledKnowledge

BOTH = pytest.mark.parametrize("method", [RelevancePatching(), GradientInteraction()])


def context_of(vlm: VLM, items: Items, count: int = 3) -> Context:
    task = make_task("vqa")
    return Context(vlm, task, task.examples(items)[0][:count])


def z_times_relevance(context: Context, rules: Rules) -> Importance:
    """sum_x w_x sum_s z R, prompt by prompt, from z and the gradient of V's part itself, without gates."""
    vlm = context.vlm
    knowledge = Knowledge(vlm, context.task, context.examples, 1)
    total = np.zeros(importance_shape(vlm))
    for n in range(knowledge.count):
        read: list[Tensor] = []

        def see(_: int, z: Tensor, read: list[Tensor] = read) -> Tensor:
            read.append(z if z.requires_grad else z.detach().requires_grad_())
            return read[-1]

        with frozen(vlm.model), torch.enable_grad(), backward_by(vlm.model, rules), capture(vlm.anatomy, Z, see):
            (value,) = knowledge.parts(torch.ones(total.shape), range(n, n + 1))
            for layer, (z, r) in enumerate(zip(read, torch.autograd.grad(value, read), strict=True)):
                total[layer] += (z.detach() * r)[0].sum(0).numpy()
    return total


@BOTH
def test_the_score_is_z_times_relevance(vlm: VLM, discovery: Items, method: Any) -> None:
    context = context_of(vlm, discovery)
    found, expected = method.importance(context), z_times_relevance(context, method.rules)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5 * float(np.abs(expected).max()))
    plain = make_method("hones+").importance(context)
    assert np.corrcoef(found.ravel(), plain.ravel())[0, 1] < 0.999, "not hones+ again"
    np.testing.assert_allclose(plain, z_times_relevance(context, Rules()), rtol=2e-3, atol=2e-5 * np.abs(plain).max())


@BOTH
def test_a_rule_that_changes_no_gradient_is_refused_by_name(
    vlms: dict[str, VLM], discovery: Items, method: Any
) -> None:
    """With one layer nothing behind its neurons attends."""
    vlm = with_model(vlms["llava"], copy.deepcopy(vlms["llava"].model))
    decoder: Any = vlm.model.get_decoder()
    decoder.layers = decoder.layers[:1]
    context = context_of(with_model(vlm, vlm.model), discovery)
    rule = next(name for name in method.rules.alone() if name != "norm")
    said = f"{method.name}: the rule '{rule}' changes no gradient of LlavaForConditionalGeneration; use a method with"
    with pytest.raises(HonesError, match=said):
        method.importance(context)


def test_a_rule_is_tried_once_and_its_value_is_that_of_hones_plus(vlms: dict[str, VLM], discovery: Items) -> None:
    context = context_of(vlms["qwen"], discovery)
    ruled = RuledKnowledge(context.vlm, context.task, context.examples, "relp", RelevancePatching.rules)
    gates = np.ones(importance_shape(context.vlm), dtype=np.float32)
    assert ruled.value(gates) == Knowledge(context.vlm, context.task, context.examples).value(gates)
    tried = []
    ruled._try_rules = tried.append  # pyright: ignore[reportAttributeAccessIssue]
    with frozen(context.vlm.model):
        for _ in range(2):
            ruled.gradient(gates)
    assert len(tried) == 1


def test_shards_add_up_to_the_same(vlms: dict[str, VLM], discovery: Items) -> None:
    context = context_of(vlms["llava"], discovery, 5)
    method = make_method("gim")
    one = method.importance(replace(context, sweep=replace(context.sweep, batch_size=1)))
    np.testing.assert_allclose(method.importance(context), one, rtol=1e-3, atol=1e-5 * float(np.abs(one).max()))
