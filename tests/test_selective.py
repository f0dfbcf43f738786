"""selective: its score by loops, what stands against a task, and that neurons which all tasks need are not chosen."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_rounds import in_rounds_by_hand, ranked_by

from hones import HonesError, load_items, load_vlm, make_task, select_neurons, write_shapes
from hones.data.items import Items
from hones.models.interventions import BASELINE, mask_neurons
from hones.models.planted import load_plant
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import make_method, selective
from hones.rivals.base import Context, Importance
from hones.rivals.hones_plus import Knowledge
from hones.rivals.selective import Fluency, Selective
from hones.runs.method_inputs import CriticalHeads, method_inputs, on_other_pictures, other_tasks
from hones.runs.record import RunFolder
from hones.runs.stage import Workspace
from hones.sweep.plain_text import plain_text_losses, plain_text_of


def context_of(vlm: VLM, items: Items, count: int = 4) -> Context:
    task = make_task("vqa")
    examples = task.examples(items)[0][:count]
    return Context(vlm, task, examples, others=other_tasks(vlm, task, items, examples))


def opened(vlm: VLM) -> Importance:
    return np.ones(importance_shape(vlm), dtype=np.float32)


def test_the_ranking_is_the_definitions(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = vlms["qwen"]
    context = context_of(vlm, discovery)
    monkeypatch.setattr(selective, "_reads", lambda context: True)
    gated = [Knowledge(vlm, task, examples) for task, examples in context.jobs] + [Fluency(vlm, 4)]
    assert len(gated) == 5

    def score(closed: set[tuple[int, int]]) -> Importance:
        with mask_neurons(vlm.model, sorted(closed)), frozen(vlm.model):
            own, *others = (g.gradient(opened(vlm)) for g in gated)
        found = np.zeros(own.shape)

        def size(g: Importance) -> float:
            return float(sum(x * x for x in g.ravel()) / g.size) ** 0.5

        for site in np.ndindex(own.shape):
            worst = max([0.0] + [float(g[site]) / size(g) for g in others])
            found[site] = float(own[site]) / size(own) - 0.5 * worst
        return found.astype(np.float32)

    expected = in_rounds_by_hand(score, [4, 4, 4])
    found = replace(Selective(), against=0.5).with_schedule(rounds=3, width=4).importance(context)
    assert ranked_by(found)[:12] == expected[:12]
    assert score(set()).argmax() != score(set(expected[:4])).argmax(), "the first round is not the last"


def test_what_other_tasks_need_is_not_chosen() -> None:
    """Columns: needed by all, by this task alone, by another alone, harmful elsewhere, for nothing."""
    own = np.array([[3.0, 1.0, 0.0, 0.9, 0.0]])
    other = np.array([[3.0, 0.0, 1.0, -3.0, 0.0]])
    score = replace(Selective(), against=2.0).score(np.stack([own, other, np.zeros((1, 5))]))
    assert [n.neuron for n in select_neurons(score, 1.0)] == [1, 3]
    scale = np.sqrt((own**2).mean())
    assert score[0, 1] == pytest.approx(1 / scale) and score[0, 3] == pytest.approx(0.9 / scale)


def test_fluency_is_the_log_loss_of_the_sweep(vlm: VLM) -> None:
    """And its gradient is what closing neurons a little costs."""
    if not plain_text_of(vlm).examples:
        pytest.skip("asks for a picture")
    fluency = Fluency(vlm, 5)
    tokens = [plain_text_of(vlm).task.tokens[e.id] for e in plain_text_of(vlm).examples]
    losses = plain_text_losses(vlm, [BASELINE])[0]
    assert fluency.value(opened(vlm)) == pytest.approx(-np.average(losses, weights=tokens), abs=1e-5)
    with frozen(vlm.model):
        gradient = fluency.gradient(opened(vlm))
    step = np.full_like(opened(vlm), 0.01)
    quotient = (fluency.value(opened(vlm) + step) - fluency.value(opened(vlm) - step)) / 0.02
    assert gradient.sum() == pytest.approx(quotient, rel=0.02, abs=1e-5)
    assert fluency.about(range(2)) == "paragraph 1, paragraph 2"


def test_a_task_that_stands_alone_is_one_line(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks: list[str] = []
    monkeypatch.setattr(selective, "remark", remarks.append)
    context = context_of(vlms["llava"], discovery)
    monkeypatch.setattr(selective, "_reads", lambda context: False)
    with pytest.raises(HonesError, match=r"vqa stands alone: .*; expected items annotated for two tasks"):
        make_method("selective").importance(replace(context, others=()))
    task, examples = context.others[0]
    same = [replace(e, target="EXIT", references=("EXIT",)) for e in examples]
    monkeypatch.setattr(selective, "_reads", lambda context: True)
    assert len(Selective().jobs(replace(context, others=[(task, same)]))) == 2
    assert remarks == [
        "selective on vqa leaves out plain text: the model reads it worse than it would guess",
        "selective on vqa leaves out ocr, as its 4 answers are the same",
    ]


def one_task_each(items: Items) -> Items:
    """The same pictures, the first half asked about and the others read and described."""
    half = len(items.items) // 2
    asked = [item.model_copy(update={"ocr": None, "captions": [], "retrieval": None}) for item in items.items[:half]]
    return replace(items, items=(*asked, *(item.model_copy(update={"vqa": None}) for item in items.items[half:])))


def test_tasks_of_other_pictures_stand_against_it_too(vlms: dict[str, VLM], discovery: Items, tmp_path: Path) -> None:
    """Where an item serves one task only, other items of the file serve the others."""
    vlm = vlms["llava"]
    task = make_task("vqa")

    def inputs(items: Items) -> tuple[Context, dict[str, Any]]:
        examples = task.examples(items)[0][:2]
        method = make_method("selective")
        given = method_inputs(Workspace(vlm, RunFolder(tmp_path)), task, items, examples, CriticalHeads(), [method])
        return given.context, given.fingerprint_of(method)

    shared, without = inputs(discovery)
    assert not shared.elsewhere and "elsewhere" not in without
    apart, told = inputs(one_task_each(discovery))
    assert not any(examples for _, examples in apart.others)
    assert [(other.name, len(examples)) for other, examples in apart.elsewhere] == [
        ("ocr", 2),
        ("caption", 2),
        ("retrieval", 2),
    ]
    jobs = Selective().jobs(apart)
    assert {other.name for job in jobs for other in job.tasks} == {"vqa", "ocr", "caption", "retrieval"}
    assert told["elsewhere"] and told != without
    _, other = inputs(one_task_each(replace(discovery, items=discovery.items[:-1])))
    assert other["elsewhere"] != told["elsewhere"]
    assert not on_other_pictures(vlm, [make_task("ocr")], replace(discovery, items=()), 4)


def test_what_it_depends_on_is_recorded() -> None:
    options = make_method("selective").for_budget(0.2).options
    assert options["ratio"] == 0.2 and options["against"] == Selective().against and len(options["plain_text"]) == 16


def test_a_text_that_is_read_like_noise_does_not_stand_against_a_task(vlms: dict[str, VLM], discovery: Items) -> None:
    """A random model that is sure of what it says is worse than a uniform guess."""
    vlm = vlms["qwen"]
    context = context_of(vlm, discovery)
    weight = vlm.anatomy.lm_head.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        try:
            weight.mul_(50)
            assert not selective._reads(context)
        finally:
            weight.copy_(kept)


def test_planted_neurons_are_found_and_general_ones_are_not(tmp_path) -> None:
    """planted-llava-1 has neurons that every answer needs: the loudest of all for one task alone."""
    plant = load_plant("planted-llava-1")
    vlm = load_vlm("planted-llava-1")
    items = load_items(write_shapes(tmp_path, {"discovery": 12}, seed=5)["discovery"])
    context = context_of(vlm, items, 12)
    found = make_method("selective").with_schedule(rounds=2).for_budget(0.01).importance(context)
    chosen = {(n.layer, n.neuron) for n in select_neurons(found, 0.01)}
    planted = {*plant.sets["vqa"]}
    assert len(chosen & planted) >= 0.7 * len(planted)
    assert len(chosen & {*plant.general}) == 0
