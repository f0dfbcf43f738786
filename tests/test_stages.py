"""The stages on random models: sweep, heads, masking and steering against independent routes."""

import copy
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import with_column_factors, with_model, without_head

from hones import (
    HonesError,
    SteeringSettings,
    attribute_neurons,
    evaluate_masking,
    evaluate_scales,
    layer_matched_random,
    learn_scales,
    load_items,
    localize_heads,
    make_task,
    select_neurons,
)
from hones.data.items import Items
from hones.method.heads import default_top_k, score_heads
from hones.method.steering.definition import answer_logits, objective
from hones.method.steering.pairs import training_pairs
from hones.method.steering.settings import Scales
from hones.method.steering.train import parameters
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.stats import UNEDITED, Measurement, PairedBootstrap, interval_of
from hones.sweep.run import SweepSettings, sweep
from hones.tasks import TASKS
from hones.tasks.base import Example, Task

NEURONS = [(0, 1), (0, 4), (1, 2), (2, 0), (2, 19)]
NEW_TOKENS = 6
SHORT = SweepSettings(max_new_tokens=NEW_TOKENS)


class FirstLetter(Task):
    """A metric that a random model does not fail: the share of answers that start with a letter of the first half."""

    name, metric_name, answers, statistic_names = "letters", "first_half", "text", ("hits", "n")

    def example(self, item, images) -> Example:
        return replace(make_task("vqa").example(item, images))

    def statistics(self, example, answer) -> np.ndarray:
        return np.array([sum(c.lower() < "n" for c in str(answer)) / max(1, len(str(answer))), 1.0])

    def score(self, sums) -> np.ndarray:
        return np.asarray(sums[..., 0] / sums[..., 1])


@pytest.mark.parametrize("task_name", ["ocr", "caption", "retrieval"])
def test_a_sweep_equals_one_item_at_a_time_on_edited_weights(vlm: VLM, discovery: Items, task_name: str) -> None:
    task = make_task(task_name, candidates=4)
    examples, _ = task.examples(discovery)
    edits = [BASELINE, *(Intervention(heads=frozenset({site})) for site in ((0, 1), (2, 3)))]
    found = sweep(vlm, task, examples, edits, SweepSettings("naive", 7, NEW_TOKENS))
    models = [vlm.model, without_head(vlm.model, 0, 1), without_head(vlm.model, 2, 3)]
    assert found.shape == (3, len(examples), len(task.statistic_names))
    for e, model in enumerate(models):
        edited = with_model(vlm, model)
        for i, example in enumerate(examples):
            picture = example.open_picture()
            alone = [edited.encode([picture], [prompt]) for prompt in example.prompts]
            if task.answers == "text":
                answer = edited.generate(alone[0], NEW_TOKENS)[0]
            else:
                answer = np.array([float(edited.yes_margins(x)[0]) for x in alone])
            np.testing.assert_allclose(found[e, i], task.statistics(example, answer), atol=1e-6)


def test_head_scores_are_drops_of_the_metric(vlm: VLM, discovery: Items) -> None:
    task = FirstLetter()
    examples, _ = task.examples(discovery)
    result = localize_heads(vlm, task, examples, top_k=4, sweep=SHORT)

    def metric(model) -> float:
        edited = with_model(vlm, model)
        answers = [edited.generate(vlm.encode([e.open_picture()], [e.prompts[0]]), NEW_TOKENS)[0] for e in examples]
        return float(
            task.score(np.sum([task.statistics(e, a) for e, a in zip(examples, answers, strict=True)], axis=0))
        )

    base = metric(vlm.model)
    assert result.baseline.value == pytest.approx(base, abs=1e-6)
    assert len(result.heads) == 12 and len(result.critical) == 4
    for h in result.heads:
        expected = metric(without_head(vlm.model, h.layer, h.head))
        assert h.intervened == pytest.approx(expected, abs=1e-6)
        assert h.score.value == pytest.approx(base - expected, abs=1e-6)
        assert h.score.low <= h.score.value <= h.score.high
    values = [h.score.value for h in result.heads]
    assert values == sorted(values, reverse=True) and values[0] > 0
    matrix = result.matrix(3, 4)
    assert matrix[result.heads[0].layer, result.heads[0].head] == np.float32(values[0])


def test_default_top_k_is_three_per_cent_at_least_five() -> None:
    assert default_top_k(1024) == 31 and default_top_k(36) == 5 and default_top_k(2) == 2


@pytest.mark.parametrize("top_k", [0, 13])
def test_an_impossible_top_k_is_an_error(vlm: VLM, discovery: Items, top_k: int) -> None:
    task = make_task("vqa")
    with pytest.raises(HonesError, match=f"^top_k {top_k}; expected 1 to 12"):
        localize_heads(vlm, task, task.examples(discovery)[0], top_k=top_k)


def test_intervals_are_paired() -> None:
    """Arms that differ by a constant on every item have a difference without uncertainty, though each varies."""
    rng = np.random.default_rng(0)
    base = np.stack([rng.random(200), np.ones(200)], axis=1).astype(np.float32)
    lower = base - np.array([0.25, 0], dtype=np.float32)
    measured = Measurement({UNEDITED: base[None], (0, 0): lower[None]}, FirstLetter().score, 0)
    result = score_heads(FirstLetter(), measured, [(0, 0)], 1)
    assert result.baseline.high - result.baseline.low > 0.05
    drop = result.heads[0].score
    assert (drop.low, drop.value, drop.high) == pytest.approx((0.25, 0.25, 0.25), abs=1e-6)


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(1), 0
    score = FirstLetter().score
    for seed in range(200):
        sample = np.stack([rng.random(60), np.ones(60)], axis=1)
        bootstrap = PairedBootstrap(60, seed, resamples=400)
        interval = interval_of(sample[:, 0].mean(), bootstrap.scores(sample, score))
        covered += interval.low <= 0.5 <= interval.high
    assert 178 <= covered <= 199


def test_masking_equals_zeroed_columns_and_pairs_with_its_control(vlm: VLM, discovery: Items) -> None:
    task = FirstLetter()
    examples, _ = task.examples(discovery)
    found = evaluate_masking(vlm, task, examples, NEURONS, draws=2, sweep=SHORT, seed=5)

    def metric(neurons: list[tuple[int, int]]) -> float:
        edited = with_model(vlm, with_column_factors(vlm.model, dict.fromkeys(neurons, 0.0)))
        return float(task.score(sweep(edited, task, examples, [BASELINE], SHORT)[0].sum(0)))

    base, masked = metric([]), metric(NEURONS)
    controls = [metric(layer_matched_random(NEURONS, vlm.anatomy.neurons, 5 + draw)) for draw in range(2)]
    assert found.baseline.value == pytest.approx(base, abs=1e-6)
    assert found.masked.value == pytest.approx(masked, abs=1e-6)
    assert found.absolute_drop.value == pytest.approx(base - masked, abs=1e-6)
    assert found.relative_drop is not None
    assert found.relative_drop.value == pytest.approx(100 * (base - masked) / base, abs=1e-4)
    assert found.control_draws == pytest.approx(controls, abs=1e-6)
    assert found.advantage.value == pytest.approx(np.mean(controls) - masked, abs=1e-6)
    assert (found.neurons, found.items) == (5, len(examples))


def test_every_step_takes_what_the_one_before_gives(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm, task = vlms["llava"], FirstLetter()
    examples = task.examples(discovery)[0][:4]
    heads = localize_heads(vlm, task, examples, top_k=4, sweep=SHORT)
    importance = attribute_neurons(vlm, task, examples, heads, sweep=SHORT)
    np.testing.assert_array_equal(importance, attribute_neurons(vlm, task, examples, heads.critical, sweep=SHORT))
    neurons = select_neurons(importance, 0.1)
    sites = [(n.layer, n.neuron) for n in neurons]
    masked = evaluate_masking(vlm, task, examples, neurons, draws=1, sweep=SHORT)
    assert masked == evaluate_masking(vlm, task, examples, sites, draws=1, sweep=SHORT)
    settings = SteeringSettings(epochs=1)
    scales = learn_scales(vlm, task, examples, neurons, settings)
    assert scales.values == learn_scales(vlm, task, examples, sites, settings).values and [*scales.values] == sorted(
        sites
    )


def test_a_control_needs_a_draw(vlms: dict[str, VLM], discovery: Items) -> None:
    task = FirstLetter()
    with pytest.raises(HonesError, match=r"^draws 0; expected at least one"):
        evaluate_masking(vlms["llava"], task, task.examples(discovery)[0], NEURONS, draws=0)


def test_nothing_to_lose_has_no_relative_drop(vlm: VLM, discovery: Items) -> None:
    task = make_task("ocr")
    found = evaluate_masking(
        vlm, task, task.examples(discovery)[0], NEURONS, draws=1, sweep=SweepSettings(max_new_tokens=2)
    )
    assert found.baseline.value == 0 and found.relative_drop is None and found.absolute_drop.value == 0


def test_the_control_matches_the_layers_and_avoids_the_selection() -> None:
    drawn = layer_matched_random(NEURONS, 20, seed=0)
    assert sorted(layer for layer, _ in drawn) == sorted(layer for layer, _ in NEURONS)
    assert len(set(drawn)) == len(drawn) and not set(drawn) & set(NEURONS)
    assert drawn != layer_matched_random(NEURONS, 20, seed=1)


def test_a_sweep_out_of_memory_halves_the_batch_for_every_arm(
    vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, sizes = FirstLetter(), []
    examples, _ = task.examples(discovery)
    edits = [BASELINE, Intervention(heads=frozenset({(0, 1)}))]
    expected = sweep(vlm, task, examples, edits, SweepSettings("naive", 3, NEW_TOKENS))
    generate = VLM.generate

    def limited(self, encoded, max_new_tokens, stops=()):
        sizes.append(len(encoded.inputs["input_ids"]))
        if len(sizes) > 1 and sizes[-1] > 3:
            raise torch.OutOfMemoryError
        return generate(self, encoded, max_new_tokens, stops)

    monkeypatch.setattr(VLM, "generate", limited)
    found = sweep(vlm, task, examples, edits, SweepSettings("naive", 6, NEW_TOKENS))
    assert sizes == [6, 6, 3, 3, 3, 3] and np.array_equal(found, expected)
    monkeypatch.setattr(VLM, "generate", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(HonesError, match="out of device memory with one prompt at a time"):
        sweep(vlm, task, examples, edits, SweepSettings("naive"))


# --- steering ---


@pytest.mark.parametrize("task_name", TASKS)
def test_the_gradient_of_the_scales_equals_finite_differences(vlms, discovery: Items, task_name: str) -> None:
    vlm = attach_double(copy.copy(vlms["llava"]))
    task = make_task(task_name, candidates=5)
    pairs = training_pairs(task, task.examples(discovery)[0], random.Random(0))[:4]
    settings = SteeringSettings(beta=0.3, gamma=0.1)
    trained, scales = parameters(vlm, NEURONS)
    scales = {k: (0.1 * torch.arange(1, len(v) + 1, dtype=torch.float64)).requires_grad_() for k, v in scales.items()}
    objective(vlm, pairs, scales, trained, settings).total.backward()
    for layer in scales:
        for i in range(len(scales[layer])):
            gradient = scales[layer].grad
            assert gradient is not None

            def shifted(by: float, layer: int = layer, i: int = i) -> float:
                moved = {k: v.detach().clone() for k, v in scales.items()}
                moved[layer][i] += by
                return objective(vlm, pairs, moved, trained, settings).total.item()

            numeric = (shifted(1e-2) - shifted(-1e-2)) / 2e-2
            assert float(gradient[i]) == pytest.approx(numeric, rel=0.02, abs=5e-5)


def attach_double(vlm: VLM) -> VLM:
    model = copy.deepcopy(vlm.model).double()
    return with_model(vlm, model)


def test_the_objective_is_cross_entropy_where_nothing_is_scaled(vlm: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    pairs = training_pairs(task, task.examples(discovery)[0], random.Random(0))[:3]
    trained, scales = parameters(vlm, NEURONS)
    found = objective(vlm, pairs, scales, trained, SteeringSettings(beta=7.0)).total
    expected = []
    for pair in pairs:
        encoded = vlm.encode_with_answers([pair.example.open_picture()], [pair.prompt], [pair.answer])
        assert encoded.answer is not None
        labels = encoded.inputs["input_ids"].masked_fill(~encoded.answer, -100)
        expected.append(vlm.model(**encoded.inputs, labels=labels).loss)
    torch.testing.assert_close(found, torch.stack(expected).mean(), atol=1e-4, rtol=1e-4)


def test_learning_lowers_the_objective_and_leaves_the_model_alone(vlm: VLM, discovery: Items) -> None:
    task = make_task("vqa")
    examples, _ = task.examples(discovery)
    before = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    flags = [p.requires_grad for p in vlm.model.parameters()]
    settings = SteeringSettings(learning_rate=0.05, epochs=15, max_scale=0.35)
    scales = learn_scales(vlm, task, examples, NEURONS, settings)
    pairs = training_pairs(task, examples, random.Random(0))
    trained, zero = parameters(vlm, NEURONS)
    learned = {k: torch.tensor([scales.values[k, int(i)] for i in v]) for k, v in trained.indices.items()}
    with torch.no_grad():
        before_and_after = [objective(vlm, pairs, s, trained, settings).total for s in (zero, learned)]
    assert before_and_after[1] < before_and_after[0]
    assert len(scales.losses) == 15
    assert set(scales.values) == set(NEURONS)
    assert max(map(abs, scales.values.values())) == pytest.approx(0.35), "the bound is reached and kept"
    assert all(torch.equal(v, before[k]) for k, v in vlm.model.state_dict().items())
    assert flags == [p.requires_grad for p in vlm.model.parameters()]
    assert not any(m._forward_pre_hooks for m in vlm.model.modules())
    assert learn_scales(vlm, task, examples, NEURONS, settings).values == scales.values


def test_scales_of_zero_change_no_answer(vlm: VLM, discovery: Items) -> None:
    task = FirstLetter()
    result = evaluate_scales(vlm, task, task.examples(discovery)[0], Scales(dict.fromkeys(NEURONS, 0.0)))
    assert result.base == result.steered and result.gain.value == result.gain.low == result.gain.high == 0


def test_training_pairs(shapes: dict[str, Path]) -> None:
    items = load_items(shapes["dev"])
    for name in TASKS:
        task = make_task(name, candidates=10)
        examples, _ = task.examples(items)
        pairs = training_pairs(task, examples, random.Random(0))
        if name == "retrieval":
            assert len(pairs) == 5 * len(examples)
            for example in examples:
                own = [p for p in pairs if p.example is example]
                assert [p.prompt for p in own if p.answer == "Yes"] == [example.prompts[0]]
                negatives = {p.prompt for p in own if p.answer == "No"}
                assert len(negatives) == 4 and negatives <= set(example.prompts[1:])
        else:
            assert all(p.answer in p.example.references for p in pairs) and len(pairs) == len(examples)


def test_answer_logits_predict_the_answer_tokens(vlm: VLM, discovery: Items) -> None:
    examples, _ = make_task("caption").examples(discovery)
    answers = [e.references[0] for e in examples]
    prompts = [e.prompts[0] for e in examples]
    encoded = vlm.encode_with_answers([e.open_picture() for e in examples], prompts, answers)
    assert encoded.answer is not None
    with torch.no_grad():
        found, full = answer_logits(vlm, encoded), vlm.logits(encoded)
    before = encoded.answer.roll(-1, dims=1)
    torch.testing.assert_close(found, full[before], atol=1e-5, rtol=1e-4)
