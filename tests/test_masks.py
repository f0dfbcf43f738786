"""masks: the gates' distribution, that training keeps what counts, and that its seed is all that it hangs on."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from hones import HonesError, make_task
from hones.data.items import Items
from hones.models.vlm import VLM
from hones.rivals import make_method
from hones.rivals.base import Context
from hones.rivals.gates import Gated
from hones.rivals.masks import LEFT, RIGHT, SURVIVES, LearnedMasks, Training, drawn, learn, probability_of_open


class Weighed(Gated):
    """V is the neurons' weights, half of them for each of two prompts."""

    rows = 1

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.count = 2

    def about(self, prompts: range) -> str:
        return "toy"

    def parts(self, gates: Float[Tensor, "layers neurons"], prompts: range) -> Iterator[Float[Tensor, ""]]:
        for _ in self.batches(prompts):
            yield (gates * self.weights).sum() / 2


def test_gates_are_open_as_often_as_their_probability_says() -> None:
    logits = torch.tensor([[-4.0, -2.0, 0.0, 1.0, 4.0]])
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([drawn(logits, generator) for _ in range(4000)])
    often = (draws > 0).float().mean(0)
    torch.testing.assert_close(often, probability_of_open(logits), atol=0.025, rtol=0)
    assert (draws == 0).any() and (draws == 1).any() and ((draws > 0) & (draws < 1)).any()
    by_hand = [1 / (1 + np.exp(-(a - 2 / 3 * np.log(0.1 / 1.1)))) for a in logits[0].tolist()]
    np.testing.assert_allclose(probability_of_open(logits)[0], by_hand, rtol=1e-6)


def test_a_gate_without_noise_is_open_above_the_threshold() -> None:
    def gate(alpha: float) -> float:
        return 1 / (1 + np.exp(-alpha)) * (RIGHT - LEFT) + LEFT

    assert gate(SURVIVES) == pytest.approx(0, abs=1e-12) and gate(SURVIVES + 0.1) > 0 > gate(SURVIVES - 0.1)


def test_what_carries_more_than_its_cost_survives() -> None:
    weights = torch.zeros(2, 20)
    weights[0, 3], weights[1, 5], weights[1, 7] = 0.5, 0.3, 0.2
    weights[0, 4], weights[0, 9] = -0.1, 0.02
    found = learn(Weighed(weights), (2, 20), Training(steps=150, cost=4.0, learning_rate=0.2), seed=1) - SURVIVES
    assert {*map(tuple, (found > 0).nonzero().tolist())} == {(0, 3), (1, 5), (1, 7)}
    everything = learn(Weighed(weights), (2, 20), Training(steps=150, cost=0.0, learning_rate=0.2), seed=1) - SURVIVES
    assert (everything > 0).sum() >= 38 and everything[0, 4] < everything[0, 9]


def test_the_seed_gives_the_ranking(vlms: dict[str, VLM], discovery: Items) -> None:
    task = make_task("vqa")
    context = Context(vlms["llava"], task, task.examples(discovery)[0])
    method = replace(LearnedMasks(), training=Training(steps=4))
    one, same, other = (method.importance(replace(context, seed=seed)) for seed in (1, 1, 2))
    assert one.dtype == np.float32 and np.isfinite(one).all()
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert (one != one[0, 0]).any()


def test_a_model_that_knows_nothing_is_one_line() -> None:
    with pytest.raises(HonesError, match="the model tells no item's answer from another's: V is 0"):
        learn(Weighed(torch.zeros(1, 4)), (1, 4), Training(steps=1), seed=0)


def test_what_it_depends_on_is_recorded() -> None:
    options = make_method("masks").options
    assert options == {"steps": 200, "cost": 100.0, "learning_rate": 0.1, "start": 2.0}
