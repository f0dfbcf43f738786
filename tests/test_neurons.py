"""Contributions and importance against slow loops in float64, and against what interventions do."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers import slow_contributions, without_head
from torch import Tensor

from hones import HonesError, attribute_neurons, make_task, mask_neurons, select_neurons
from hones.data.items import Items
from hones.method.direction import target_directions, target_ids
from hones.method.found import HeadScore
from hones.models.vlm import VLM
from hones.models.writing import contributions, readout_of
from hones.stats import Interval
from hones.sweep.run import SweepSettings
from hones.tasks import TASKS
from hones.tasks.base import Example, Task


def head_score(layer: int, head: int, score: float) -> HeadScore:
    return HeadScore(layer, head, Interval(score, score, score), 0.0, 0.0)


HEADS = [head_score(0, 1, 0.5), head_score(1, 3, 0.2), head_score(2, 0, 0.1), head_score(2, 2, -0.4)]


def examples_of(task: Task, items: Items) -> list[Example]:
    examples, left_out = task.examples(items)
    assert not left_out
    return examples


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("positive_part", ["mean", "item"])
def test_importance_equals_a_slow_loop(vlm: VLM, discovery: Items, task_name: str, positive_part) -> None:
    task = make_task(task_name, candidates=4)
    examples = examples_of(task, discovery)
    base = slow_contributions(vlm, vlm.model, task, examples)
    expected, total = np.zeros(base.shape[1:]), 0.0
    for head in HEADS[:3]:  # the fourth has a negative score and carries no weight
        drop = base - slow_contributions(vlm, without_head(vlm.model, head.layer, head.head), task, examples)
        mean = np.maximum(drop, 0).mean(0) if positive_part == "item" else np.maximum(drop.mean(0), 0)
        expected += head.score.value * mean
        total += head.score.value
    expected /= total
    found = attribute_neurons(
        vlm, task, examples, HEADS, positive_part=positive_part, sweep=SweepSettings(batch_size=4)
    )
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(base).max(), rtol=1e-3)
    assert (expected > 0).any()


def test_contributions_of_a_layer_sum_to_the_ffn_output(vlm: VLM, discovery: Items) -> None:
    task = make_task("caption")
    examples = examples_of(task, discovery)
    directions = target_directions(vlm, task, examples)
    encoded = vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])
    outputs: list[Tensor] = []
    blocks: Any = vlm.model.get_decoder().layers
    hooks = [b.mlp.register_forward_hook(lambda _, args, out: outputs.append(out[:, -1])) for b in blocks]
    found = contributions(vlm, encoded, readout_of(vlm, directions)).sum(-1)
    for hook in hooks:
        hook.remove()
    expected = torch.stack([(out * directions).sum(-1) for out in outputs], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_masking_a_neuron_of_the_last_layer_takes_away_its_contribution(vlm: VLM, discovery: Items) -> None:
    """The prediction of the method, checked by intervention: the residual's projection on u falls by c."""
    task = make_task("vqa")
    examples = examples_of(task, discovery)[:2]
    directions = target_directions(vlm, task, examples)
    encoded = vlm.encode([e.open_picture() for e in examples], [e.prompts[0] for e in examples])
    last = len(vlm.anatomy.layers) - 1
    predicted = contributions(vlm, encoded, readout_of(vlm, directions))[:, last]

    def projection() -> Tensor:
        seen: list[Tensor] = []
        norm: Any = vlm.model.get_decoder().norm
        hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, -1]))
        with torch.no_grad():
            vlm.logits(encoded, keep=1)
        hook.remove()
        return (seen[0] * directions).sum(-1)

    base = projection()
    for neuron in (0, 5, vlm.anatomy.neurons - 1):
        with mask_neurons(vlm.model, [(last, neuron)]):
            torch.testing.assert_close(base - projection(), predicted[:, neuron], atol=1e-5, rtol=1e-3)


def test_target_direction_is_the_unit_weighted_sum_of_lm_head_rows(vlm: VLM, discovery: Items) -> None:
    task = make_task("ocr")
    examples = examples_of(task, discovery)
    found = target_directions(vlm, task, examples)
    for u, example in zip(found, examples, strict=True):
        ids = target_ids(vlm, task, example)
        assert vlm.tokenizer.decode(ids).strip() == example.target
        v = torch.stack([vlm.anatomy.lm_head.weight[t] for t in ids]).sum(0)
        torch.testing.assert_close(u, (v / v.norm()).detach())


def test_batches_do_not_change_the_importance(vlm: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    examples = examples_of(task, discovery)
    one = attribute_neurons(vlm, task, examples, HEADS, sweep=SweepSettings(batch_size=1))
    many = attribute_neurons(vlm, task, examples, HEADS, sweep=SweepSettings(batch_size=6))
    np.testing.assert_allclose(one, many, atol=1e-6)


def test_heads_that_do_not_lower_the_metric_are_an_error(vlm: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    with pytest.raises(HonesError, match="none of the 1 critical heads lowers the metric"):
        attribute_neurons(vlm, task, examples_of(task, discovery), [head_score(0, 0, 0.0)])


@pytest.mark.parametrize(("shape", "count"), [((32, 11008), 3523), ((28, 18944), 5304)])
def test_one_per_cent_of_the_published_models(shape: tuple[int, int], count: int) -> None:
    importance = np.random.default_rng(0).random(shape, dtype=np.float32) + 1
    assert len(select_neurons(importance, 0.01)) == count


def test_selection_is_ordered_and_leaves_out_zeros() -> None:
    importance = np.array([[0.0, 3.0, 1.0], [3.0, 0.0, 2.0]], dtype=np.float32)
    chosen = select_neurons(importance, 1.0)
    assert [(n.rank, n.layer, n.neuron) for n in chosen] == [(1, 0, 1), (2, 1, 0), (3, 1, 2), (4, 0, 2)]
    assert [n.score for n in chosen] == [3.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_ratio_is_an_error(ratio: float) -> None:
    with pytest.raises(HonesError, match=r"^ratio"):
        select_neurons(np.ones((1, 4), dtype=np.float32), ratio)
