"""coax: growth by its definition, what the gradients make of it, and that it finds what stands in."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import in_double
from jaxtyping import Float
from torch import Tensor

from hones import make_task, select_neurons
from hones.data.items import Items
from hones.models.interventions import mask_neurons
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import check_schedule, make_method
from hones.rivals.base import Context, Importance
from hones.rivals.coax import growth
from hones.rivals.gates import Gated
from hones.rivals.hones_plus import Knowledge


class Redundant(Gated):
    """Neurons 0 and 1 each suffice, one of them the stronger; 2 is needed a little, 3 for nothing."""

    count, rows = 1, 1

    def about(self, prompts: range) -> str:
        return "toy"

    def parts(self, gates: Float[Tensor, "layers neurons"], prompts: range) -> Iterator[Float[Tensor, ""]]:
        first, second, alone, _ = gates[0]
        for _ in self.batches(prompts):
            yield 1 - (1 - 0.99 * first) * (1 - 0.9 * second) + 0.2 * alone


def context_of(vlm: VLM, items: Items) -> Context:
    task = make_task("vqa")
    return Context(vlm, task, task.examples(items)[0][:4])


def test_growth_is_the_definition() -> None:
    gates = np.ones((1, 4), dtype=np.float32)
    seeds = frozenset({(0, 0)})
    # alone, the backup costs .9 of what the first lets through, .01; with the first closed, .9
    assert growth(Redundant(), seeds, (0, 1), gates) == pytest.approx(0.9 - 0.9 * 0.01, abs=1e-6)
    assert growth(Redundant(), seeds, (0, 2), gates) == pytest.approx(0, abs=1e-6)
    assert growth(Redundant(), seeds, (0, 3), gates) == 0
    closed = gates.copy()
    closed[0, 0] = 0
    grown = Redundant().gradient(closed) - Redundant().gradient(gates)
    for neuron in (1, 2, 3):  # V is linear in each of them: the gradient's growth is the definition's
        assert grown[0, neuron] == pytest.approx(growth(Redundant(), seeds, (0, neuron), gates), abs=1e-6)


def test_the_ranking_is_seeds_and_then_growth(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    shape = importance_shape(vlm)
    knowledge = Knowledge(vlm, context.task, context.examples)
    opened = np.ones(shape, dtype=np.float32)
    with frozen(vlm.model):
        at_open = knowledge.gradient(opened)
        seeds = [site for _, site in sorted((-at_open[site], site) for site in np.ndindex(shape))][:3]
        with mask_neurons(vlm.model, seeds):
            grown = knowledge.gradient(opened) - at_open
    found = make_method("coax").for_budget(6 / at_open.size).importance(context)
    chosen = [(n.layer, n.neuron) for n in select_neurons(found, 6 / at_open.size)]
    rest = sorted((-grown[site], site) for site in np.ndindex(shape) if site not in seeds)
    assert chosen[:3] == seeds
    assert chosen[3:] == [site for _, site in rest[:3]]
    for site in [site for _, site in rest]:
        assert found[site] == pytest.approx(grown[site], rel=5e-3, abs=1e-5 * np.abs(grown).max())
    assert chosen != [(n.layer, n.neuron) for n in select_neurons(make_method("hones+").importance(context), 0.1)][:6]


def test_gradients_are_growth_to_first_order(vlms: dict[str, VLM], discovery: Items) -> None:
    """Each neuron closed a little, by the definition's four values. (Closed wholly it is another matter: `coax`.)"""
    context = context_of(vlms["qwen"], discovery)
    knowledge = copy.copy(Knowledge(context.vlm, context.task, context.examples))
    knowledge.vlm = in_double(context.vlm)
    opened = np.ones(importance_shape(context.vlm))
    with frozen(knowledge.vlm.model):
        at_open = knowledge.gradient(opened)
        closed = opened.copy()
        closed.flat[np.argsort(-at_open.ravel(), kind="stable")[:4]] = 0
        grown = knowledge.gradient(closed) - at_open
    order = np.argsort(-np.where(closed > 0, grown, -np.inf).ravel(), kind="stable")[: int(closed.sum())]
    some = order[:: len(order) // 9]  # from the largest growth to the smallest
    step = 1e-3

    def closed_a_little(gates: Importance, n: int) -> float:
        these = gates.copy()
        these.flat[n] = 1 - step
        return knowledge.value(these)

    at_closed, before = knowledge.value(closed), knowledge.value(opened)
    exact = [at_closed - closed_a_little(closed, n) - (before - closed_a_little(opened, n)) for n in some.tolist()]
    assert len(some) >= 9 and exact[0] > 0 > exact[-1]
    np.testing.assert_allclose(np.array(exact) / step, grown.flat[some], rtol=0.02, atol=1e-3 * np.abs(grown).max())
    ranks = np.argsort(np.argsort(exact))
    assert np.corrcoef(ranks, np.arange(len(some))[::-1])[0, 1] > 0.9


def test_its_schedule_is_that_of_rounds() -> None:
    coax = make_method("coax")
    assert coax.options == {"rounds": 2, "width": None, "ratio": 0.01}
    assert coax.with_schedule(width=5).for_budget(0.5).options == {"rounds": 2, "width": 5, "ratio": None}
    check_schedule(["coax"], 3, None)


def test_one_neuron_is_that_of_hones_plus(vlms: dict[str, VLM], discovery: Items) -> None:
    context = context_of(vlms["llava"], discovery)

    def first(importance: Importance) -> int:
        return int(importance.argmax())

    assert first(make_method("coax").for_budget(1e-6).importance(context)) == first(
        make_method("hones+").importance(context)
    )
    assert torch.is_grad_enabled()
