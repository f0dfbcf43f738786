"""Every comparison method against a slow, independent formula on small random models."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import double_inputs, gate_and_z, in_double, slow_contributions, with_model, without_head

from hones import HonesError, make_task, mask_neurons, scale_neurons, select_neurons
from hones.data.items import Items
from hones.method.drops import Attribution, drops
from hones.method.found import HeadScore
from hones.models.capture import Z, capture
from hones.models.vlm import VLM
from hones.rivals import METHODS, make_method, make_methods, qrnca
from hones.rivals.ape import entropy_score
from hones.rivals.base import Context
from hones.rivals.integrated_gradients import integrated_gradients
from hones.rivals.knowledge_neurons import attributions
from hones.rivals.masks import LearnedMasks, Training
from hones.rivals.reading import ask, ask_with_gold
from hones.runs.method_inputs import other_tasks
from hones.stats import Interval
from hones.sweep.run import SweepSettings
from hones.tasks import TASKS
from hones.tasks.base import Example

HEADS = tuple(
    HeadScore(layer, head, Interval(s, s, s), 0.0, 0.0) for layer, head, s in ((0, 1, 0.5), (1, 3, 0.2), (2, 0, 0.1))
)


def context_of(vlm: VLM, items: Items, task_name: str = "vqa", count: int = 2) -> Context:
    task = make_task(task_name, candidates=4)
    examples = task.examples(items)[0][:count]
    return Context(vlm, task, examples, HEADS, other_tasks(vlm, task, items, examples), seed=1)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-5) -> None:
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=1e-3)


def readings(vlm: VLM, examples: Sequence[Example]) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """act(gate) and z [positions, I] of every item and layer in float64, items alone, so without padding."""
    double = in_double(vlm)
    alone = [gate_and_z(double, double_inputs(ask(vlm, [e]))) for e in examples]
    return [[(gate[0], z[0]) for gate, z in layers] for layers in alone]


def log_p(vlm: VLM, context: Context, example: Example) -> float:
    """log p of the gold answer and its end in float64, one item; `vlm` is in float64."""
    with torch.no_grad():
        return float(vlm.log_probabilities(double_inputs(ask_with_gold(vlm, context.task, [example])))[0])


def test_activation_statistics_equal_a_loop_over_tokens(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    items = readings(vlm, context.examples)
    layers, _, neurons = vlm.anatomy.shape
    active, total, square = (np.zeros((layers, neurons)) for _ in range(3))
    for item in items:
        for layer, (gate, z) in enumerate(item):
            for position in range(len(z)):
                active[layer] += (gate[position] > 0).numpy()
                total[layer] += z[position].numpy()
                square[layer] += z[position].numpy() ** 2
    tokens = sum(len(item[0][0]) for item in items)
    norms = np.array([layer.down_proj.weight.detach().norm(dim=0).numpy() for layer in vlm.anatomy.layers])
    close(METHODS["ap"].importance(context), active / tokens)
    close(METHODS["ma"].importance(context), total / tokens)
    close(METHODS["wanda"].importance(context), np.sqrt(square) * norms)


def test_padding_does_not_count_as_tokens(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    assert len({len(e.prompts[0]) for e in context.examples}) > 1
    for name in ("ap", "ma", "wanda"):
        alone = METHODS[name].importance(replace(context, sweep=SweepSettings(batch_size=1)))
        np.testing.assert_allclose(METHODS[name].importance(context), alone, atol=1e-6, rtol=1e-5)


def test_entropy_score_equals_a_loop() -> None:
    probability = np.random.default_rng(0).random((3, 4, 25))
    probability[:, 1, 2], probability[:, 0, 0] = [0.99, 0.0, 0.0], [1.0, 1.0, 1.0]
    found = entropy_score(probability)
    often = sorted(probability[0].ravel())[-5:]
    for layer in range(4):
        for i in range(25):
            p = probability[:, layer, i]
            share = p / p.sum()
            entropy = -sum(x * math.log(x) for x in share if x > 0)
            expected = math.log(3) - entropy if p[0] in often else 0
            assert found[layer, i] == pytest.approx(expected, abs=1e-6)
    assert select_neurons(found, 0.01)[0].layer == 1 and select_neurons(found, 0.01)[0].neuron == 2
    assert 0 < (found > 0).sum() <= 5


def test_ape_reads_every_task_on_the_same_pictures(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    assert [task.name for task, _ in context.jobs] == ["vqa", "ocr", "caption", "retrieval"]
    assert all({e.image for e in part} == {e.image for e in context.examples} for _, part in context.jobs)
    probability = []
    for _, examples in context.jobs:
        on = [torch.cat([item[layer][0] for item in readings(vlm, examples)]) > 0 for layer in range(3)]
        probability.append([x.double().mean(0).numpy() for x in on])
    expected = entropy_score(np.array(probability))
    np.testing.assert_allclose(METHODS["ape"].importance(context), expected, atol=1e-6)
    assert (expected > 0).any() or (np.array(probability)[:, expected == 0].max() == 1), "the always active tie"


@pytest.mark.parametrize("task_name", TASKS)
def test_projection_is_the_mean_contribution(vlm: VLM, discovery: Items, task_name: str) -> None:
    context = context_of(vlm, discovery, task_name)
    expected = slow_contributions(vlm, vlm.model, context.task, context.examples).mean(0)
    close(METHODS["dvp"].importance(context), expected, 1e-4)


@pytest.mark.parametrize("engine", ["naive", "replay"])
@pytest.mark.parametrize(("name", "task_name"), [("hones-norm-gain", "ocr"), ("hones-all-tokens", "caption")])
def test_variants_of_hones_equal_slow_loops(vlm: VLM, discovery: Items, name: str, task_name: str, engine) -> None:
    context = replace(context_of(vlm, discovery, task_name), sweep=SweepSettings(engine, batch_size=2))
    variant = {"norm_gain": "gain" in name, "all_tokens": "tokens" in name}
    base = slow_contributions(vlm, vlm.model, context.task, context.examples, **variant)
    expected = np.zeros(base.shape[1:])
    for head in HEADS:
        without = without_head(vlm.model, head.layer, head.head)
        drop = base - slow_contributions(vlm, without, context.task, context.examples, **variant)
        expected += head.score.value / 0.8 * np.maximum(drop.mean(0), 0)
    found = METHODS[name].importance(context)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(base).max(), rtol=1e-3)
    assert not np.allclose(found, METHODS["hones"].importance(context), rtol=0.01)


def test_one_answer_token_is_all_of_them(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, "retrieval")
    found = METHODS["hones-all-tokens"].importance(context)
    np.testing.assert_allclose(found, METHODS["hones"].importance(context), atol=1e-6)


def test_per_item_never_says_less_than_the_mean(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    assert (METHODS["hones-per-item"].importance(context) >= METHODS["hones"].importance(context) - 1e-6).all()


def test_log_probability_gain_equals_a_loop_over_neurons(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    double = in_double(vlm)
    blocks: Any = double.model.get_decoder().layers
    norm: Any = double.anatomy.decoder.get_submodule("norm")
    U = double.anatomy.lm_head.weight
    found = METHODS["logprob-gain"].importance(context)
    sites = [(layer, i) for layer in range(3) for i in (0, 7, vlm.anatomy.neurons - 1)]
    expected = dict.fromkeys(sites, 0.0)
    for example in context.examples:
        encoded = double_inputs(ask(vlm, [example]))
        token = vlm.answer_ids(example.prompts[0], example.target)[0]
        before: list[torch.Tensor] = []
        hooks = [
            b.post_attention_layernorm.register_forward_pre_hook(lambda _, args, to=before: to.append(args[0][0, -1]))
            for b in blocks
        ]
        z = [z[0, -1] for _, z in gate_and_z(double, encoded)]
        for hook in hooks:
            hook.remove()
        for layer, i in sites:
            h = before[layer]
            rms = (h.square().mean() + norm.variance_epsilon).sqrt()
            changed = h + z[layer][i] * blocks[layer].mlp.down_proj.weight[:, i]
            with torch.no_grad():
                gain = (U @ (norm.weight * changed / rms)).log_softmax(0)[token]
                gain = gain - (U @ (norm.weight * h / rms)).log_softmax(0)[token]
            expected[layer, i] += float(gain) / len(context.examples)
    for (layer, i), value in expected.items():
        assert found[layer, i] == pytest.approx(value, rel=2e-3, abs=1e-5)


def test_chunks_of_neurons_do_not_change_the_gain(vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(vlm, discovery)
    whole = METHODS["logprob-gain"].importance(context)
    monkeypatch.setattr("hones.rivals.logprob_gain.CELLS_AT_ONCE", 7 * 600)
    np.testing.assert_allclose(METHODS["logprob-gain"].importance(context), whole, atol=1e-6)


@pytest.mark.parametrize("task_name", ["vqa", "caption", "retrieval"])
def test_attribution_patching_is_the_slope_of_scaling_a_neuron(vlm: VLM, discovery: Items, task_name: str) -> None:
    """sum over positions of z dlogp/dz = dlogp/d(factor) at factor 1, by central differences in float64."""
    context = context_of(vlm, discovery, task_name)
    double, step = in_double(vlm), 2**-12  # exact in float32
    found = METHODS["atp"].importance(context)
    for site in ((0, 3), (1, 0), (2, 11)):
        slopes = []
        for example in context.examples:
            with scale_neurons(double.model, {site: step}):
                up = log_p(double, context, example)
            with scale_neurons(double.model, {site: -step}):
                down = log_p(double, context, example)
            slopes.append((up - down) / (2 * step))
        assert found[site] == pytest.approx(np.mean(slopes), rel=2e-3, abs=1e-5 * float(np.abs(found).max()))


def probability_at(vlm: VLM, context: Context, example: Example, layer: int, z: torch.Tensor) -> float:
    """p(answer) in float64 with the layer's z at the last prompt position given."""
    last = ask(vlm, [example]).inputs["input_ids"].shape[1] - 1

    def put(number: int, x: torch.Tensor) -> torch.Tensor | None:
        if number != layer:
            return None
        x = x.clone()
        x[0, last] = z
        return x

    with capture(vlm.anatomy, Z, put):
        return math.exp(log_p(vlm, context, example))


def test_integrated_gradients_add_up_to_what_the_layer_is_worth(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, "caption", count=1)
    (example,) = context.examples
    double = in_double(vlm)
    z = [z[0, -1] for _, z in gate_and_z(double, double_inputs(ask(vlm, [example])))]
    short = replace(example, references=("a",))  # a probability that is not vanishingly small
    encoded = double_inputs(ask_with_gold(vlm, context.task, [short]))
    found = integrated_gradients(double, encoded, 40, rows=40).sum(1)
    for layer in range(3):
        whole = probability_at(double, context, short, layer, z[layer])
        without = probability_at(double, context, short, layer, torch.zeros_like(z[layer]))
        assert abs(whole - without) > 0
        assert float(found[layer]) == pytest.approx(whole - without, rel=0.02)


def test_knowledge_neurons_equal_difference_quotients_along_the_path(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, "retrieval", count=1)
    double = in_double(vlm)
    found = METHODS["knowledge-neurons"].importance(context)
    for layer, i in ((1, 9),):
        total = 0.0
        for example in context.examples:
            z = gate_and_z(double, double_inputs(ask(vlm, [example])))[layer][1][0, -1]
            step = 1e-5 * torch.eye(len(z), dtype=z.dtype)[i]
            for k in range(1, 21):
                up = probability_at(double, context, example, layer, k / 20 * z + step)
                down = probability_at(double, context, example, layer, k / 20 * z - step)
                total += float(z[i]) * (up - down) / 2e-5 / 20 / len(context.examples)
        assert found[layer, i] == pytest.approx(total, rel=5e-3, abs=1e-4 * float(np.abs(found).max()))


def test_rows_at_once_do_not_change_integrated_gradients(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, count=1)
    encoded = ask_with_gold(vlm, context.task, context.examples)
    one, seven = integrated_gradients(vlm, encoded, 5, rows=1), integrated_gradients(vlm, encoded, 5, rows=7)
    torch.testing.assert_close(one, seven, atol=1e-6 * float(one.abs().max()), rtol=1e-3)


def test_qrnca_is_attribution_times_inverse_cluster_frequency(
    vlm: VLM, discovery: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(vlm, discovery, "retrieval", count=2)
    context = replace(context, others=context.others[:1])
    by_task = [[a for _, a in attributions(context, [job], 16, "")] for job in context.jobs]
    assert [len(found) for found in by_task] == [2, 2]
    expected = np.zeros(by_task[0][0].shape)
    for layer, i in np.ndindex(expected.shape):
        clusters = sum(a[layer, i] > 0.2 * a.max() for found in by_task for a in found if a.max() > 0)
        mean = (by_task[0][0][layer, i] + by_task[0][1][layer, i]) / 2
        expected[layer, i] = mean * math.log(4 / (1 + clusters))
    close(METHODS["qrnca"].importance(context), expected)
    asked: list[int] = []

    def counted(context, jobs, *more):
        asked.append(len(jobs))
        return attributions(context, jobs, *more)

    monkeypatch.setattr(qrnca, "attributions", counted)
    ((other, examples),) = context.others
    of_other = replace(context, task=other, examples=examples, others=[(context.task, context.examples)])
    alone = METHODS["qrnca"].importance(replace(of_other, shared={}))
    np.testing.assert_array_equal(METHODS["qrnca"].importance(of_other), alone)
    assert asked == [2], "what both tasks share is computed once"


def test_contrast_is_against_the_other_prompts_of_the_same_picture(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    first = context.others[0][1][0]
    context = replace(context, others=[(context.others[0][0], [first]), *context.others[1:2]])
    last = {e: np.array([z[-1].numpy() for _, z in readings(vlm, [e])[0]]) for _, es in context.jobs for e in es}
    rows = []
    for own in context.examples:
        others = [last[e] for _, examples in context.others for e in examples if e.image == own.image]
        rows.append(last[own] - sum(others) / len(others))
    close(METHODS["cna"].importance(context), np.mean(rows, axis=0))


def test_the_oracle_masks_one_neuron_at_a_time(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, "ocr", count=2)
    found, double = METHODS["oracle"].importance(context), in_double(vlm)
    base = np.mean([log_p(double, context, e) for e in context.examples])
    for site in [(layer, i) for layer in range(3) for i in range(0, vlm.anatomy.neurons, 5)]:
        with mask_neurons(double.model, [site]):
            masked = np.mean([log_p(double, context, e) for e in context.examples])
        assert found[site] == pytest.approx(base - masked, rel=1e-3, abs=2e-5)


def test_a_planted_neuron_comes_first(vlm: VLM, discovery: Items) -> None:
    """A neuron of the last layer that writes Yes, by far the strongest, is what the answer hangs on."""
    context = context_of(vlm, discovery, "retrieval")
    z = np.array([[z[-1].numpy() for _, z in item] for item in readings(vlm, context.examples)])[:, 2]
    neuron = int(np.argmax(np.abs(z.sum(0)) * (np.abs(np.sign(z).sum(0)) == len(z))))
    planted = copy.deepcopy(vlm.model)
    anatomy = with_model(vlm, planted).anatomy
    write = anatomy.lm_head.weight[vlm.answer_tokens.yes].detach()
    column = 8 * write / write.norm() / np.abs(z[:, neuron]).min() * np.sign(z[0, neuron])
    anatomy.layers[2].down_proj.weight.data[:, neuron] = column
    context = replace(context, vlm=with_model(vlm, planted))
    for name in ("oracle", "dvp", "logprob-gain"):
        best = select_neurons(METHODS[name].importance(context), 0.01)[0]
        assert (best.layer, best.neuron) == (2, neuron), name


def test_random_methods_differ_by_seed_and_keep_the_layers_of_hones(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery)
    hones = METHODS["hones"].importance(context)
    known = replace(context, hones=hones)
    np.testing.assert_array_equal(
        METHODS["layer-random"].importance(context), METHODS["layer-random"].importance(known)
    )
    for name in ("random", "layer-random"):
        one, two = (METHODS[name].importance(replace(known, seed=seed)) for seed in (1, 2))
        assert not np.array_equal(one, two)
        np.testing.assert_array_equal(one, METHODS[name].importance(replace(known, seed=1)))
    drawn = METHODS["layer-random"].importance(known)
    assert not np.array_equal(drawn, hones)
    for ratio in (0.01, 0.1, 0.5):
        counts = [np.bincount([n.layer for n in select_neurons(x, ratio)], minlength=3) for x in (drawn, hones)]
        np.testing.assert_array_equal(counts[0], counts[1])
    uniform = np.stack([METHODS["random"].importance(replace(context, seed=seed)) for seed in range(200)])
    assert uniform.min() > 0 and abs(uniform.mean(0) - 0.5).max() < 0.12


def test_all_methods_give_finite_numbers_and_leave_the_model_as_it_was(vlm: VLM, discovery: Items) -> None:
    context = context_of(vlm, discovery, "retrieval", count=3)
    before = {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    METHODS["dvp"].importance(context)  # transformers places hooks of its own in the first pass
    hooks = hooks_of(vlm)
    first = next(vlm.model.parameters())
    flag = first.requires_grad
    try:
        first.requires_grad_(not flag)
        for name, method in METHODS.items():
            method = replace(method, training=Training(steps=3)) if isinstance(method, LearnedMasks) else method
            found = method.importance(context)
            assert found.dtype == np.float32 and np.isfinite(found).all() and (name == "ape" or found.max() > 0), name
            assert method.name == name and method.summary and method.source
            assert first.requires_grad is not flag
    finally:
        first.requires_grad_(flag)
    assert all(p.requires_grad for p in vlm.model.parameters())
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in vlm.model.named_parameters())
    assert hooks_of(vlm) == hooks


def hooks_of(vlm: VLM) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vlm.model.modules()]


def test_every_method_of_the_table_is_there() -> None:
    table = "random layer-random ap ma ape dvp logprob-gain wanda atp knowledge-neurons qrnca cna oracle"
    ours = "hones hones-per-item hones-norm-gain hones-all-tokens hones+ rounds selective best-of"
    newer = "relp gim coax masks"
    assert set(METHODS) == {*table.split(" "), *ours.split(" "), *newer.split(" ")}


def test_what_a_method_lacks_is_one_line(vlms: dict[str, VLM], discovery: Items, monkeypatch) -> None:
    context = context_of(vlms["llava"], discovery, count=3)
    with pytest.raises(HonesError, match="the method hones needs critical heads"):
        METHODS["hones"].check(replace(context, heads=()))
    with pytest.raises(HonesError, match="the method cna needs other tasks about the pictures of vqa"):
        METHODS["cna"].check(replace(context, others=()))
    monkeypatch.setattr(type(METHODS["oracle"]), "most_cells", 100)
    with pytest.raises(HonesError, match="oracle on 3 items takes 180 answers; expected at most 100"):
        METHODS["oracle"].check(context)
    with pytest.raises(HonesError, match="no method 'telepathy'; expected one of hones"):
        make_method("telepathy")
    with pytest.raises(HonesError, match="each method once"):
        make_methods("dvp,dvp")
    assert {*METHODS} - {m.name for m in make_methods("all")} == {"masks", "oracle", "best-of"}
    assert [m.name for m in make_methods("atp,dvp")] == ["dvp", "atp"]


def test_the_fast_variants_equal_their_definition(vlms: dict[str, VLM], discovery: Items) -> None:
    """All-token readings of both engines over targets of several lengths, more pictures than one group."""
    context = context_of(vlms["llava"], discovery, "vqa", count=3)
    method = METHODS["hones-all-tokens"]
    naive, fast = (
        method.importance(replace(context, sweep=SweepSettings(engine, batch_size=2))) for engine in ("naive", "replay")
    )
    np.testing.assert_allclose(fast, naive, atol=1e-6)
    sites = [(h.layer, h.head) for h in HEADS]
    attribution = Attribution(context.task, context.examples, sites)
    assert drops(vlms["llava"], attribution, 2).shape == (3, *naive.shape)
