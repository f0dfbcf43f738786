"""Integrated gradients from the tail alone against their definition, the whole model for every layer and step."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from family_models_apart import save_mllama
from helpers import double_inputs, in_double
from torch import Tensor

from hones import load_vlm, make_task
from hones.data.items import Items
from hones.models.vlm import VLM
from hones.rivals import METHODS
from hones.rivals.base import Context
from hones.rivals.integrated_gradients import integrated_gradients
from hones.rivals.knowledge_neurons import attributions
from hones.rivals.reading import ask_with_gold
from hones.rivals.tail import Tail, disproof, integrated_gradients_of, tails
from hones.sweep.layer_rows import SharedPast
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task

Asked = tuple[Task, Example]


def asked_about_one_picture(items: Items) -> list[Asked]:
    """A caption of several tokens and Yes, about the first picture."""
    tasks = [make_task("caption"), make_task("retrieval", candidates=2)]
    return [(task, task.examples(items)[0][0]) for task in tasks]


def test_tails_give_the_integrated_gradients_of_the_definition(vlm: VLM, discovery: Items) -> None:
    asked = asked_about_one_picture(discovery)
    found = tails(vlm, asked)
    assert len(found[0].labels) > 4 and len(found[1].labels) == 2, "the answer's tokens and the end"
    for tail, (task, example) in zip(found, asked, strict=True):
        expected = integrated_gradients(vlm, ask_with_gold(vlm, task, [example]), 3, rows=3)
        assert expected.abs().max() > 0
        atol = 2e-6 * float(expected.abs().max())
        for rows in (None, 1, 4):
            torch.testing.assert_close(integrated_gradients_of(tail, 3, rows), expected, rtol=1e-3, atol=atol)


def test_tails_are_the_definition_in_float64(vlm: VLM, discovery: Items) -> None:
    double = in_double(vlm)
    asked = asked_about_one_picture(discovery)
    for tail, (task, example) in zip(tails(double, asked), asked, strict=True):
        encoded = double_inputs(ask_with_gold(double, task, [example]))
        expected = integrated_gradients(double, encoded, 2, rows=2)
        found = integrated_gradients_of(tail, 2, None)
        assert found.dtype == expected.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_rows_at_once_are_those_of_batch_size(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, (task, example) = vlms["llava"], asked_about_one_picture(discovery)[0]
    (tail,) = tails(vlm, [(task, example)])
    sizes: list[int] = []
    run = Tail.gradients
    monkeypatch.setattr(Tail, "gradients", lambda self, of, alphas: sizes.append(len(of)) or run(self, of, alphas))
    context = Context(vlm, task, [example], sweep=SweepSettings(batch_size=4))
    assert len([*attributions(context, [(task, [example])], 5, "")]) == 1
    assert sizes == [3, 4, 4, 4, 3], "the proof, then 3 layers of 5 steps"
    monkeypatch.setattr("hones.rivals.tail.free_memory", lambda _: 0)
    assert tail.rows_at_once() == 1


def test_a_picture_of_several_tasks_is_encoded_once(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, asked = vlms["qwen"], asked_about_one_picture(discovery)
    seen: list[int] = []
    hook = vlm.model.get_submodule("model.visual").register_forward_hook(lambda *_: seen.append(1))
    monkeypatch.setattr("hones.rivals.knowledge_neurons.disproof", lambda *_: None)
    context = Context(vlm, asked[0][0], [asked[0][1]])
    try:
        found = [*attributions(context, [(task, [example]) for task, example in asked], 2, "")]
    finally:
        hook.remove()
    assert [task.name for task, _ in found] == ["caption", "retrieval"] and len(seen) == 1


def test_a_past_that_misses_something_is_disproven(vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    task, example = asked_about_one_picture(discovery)[1]
    assert disproof(vlm, task, example) is None
    update = SharedPast.update

    def stale(self: SharedPast, keys: Tensor, values: Tensor, *args: object, **more: object) -> tuple[Tensor, Tensor]:
        past = copy.copy(self)
        past.values = torch.zeros_like(self.values)  # pyright: ignore[reportArgumentType]
        return update(past, keys, values)

    monkeypatch.setattr(SharedPast, "update", stale)
    problem = disproof(vlm, task, example)
    assert problem is not None and "of its norm from the whole model's" in problem


def test_other_families_are_named_and_served_by_the_definition(
    discovery: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hones.rivals.knowledge_neurons.STEPS", 1)
    vlm = load_vlm(str(save_mllama(tmp_path / "mllama")))
    task, example = asked_about_one_picture(discovery)[1]
    with pytest.warns(UserWarning, match="Mllama.*by whole passes take longer .*not given embeddings"):
        found = METHODS["knowledge-neurons"].importance(Context(vlm, task, [example]))
    expected = integrated_gradients(vlm, ask_with_gold(vlm, task, [example]), 1, rows=4)
    np.testing.assert_array_equal(found, expected.numpy())
