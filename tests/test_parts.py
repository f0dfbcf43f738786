"""What steering learns in place of scales: adapters against their formulas, in every engine, trained, kept and read."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_probe, in_double, with_model
from safetensors.torch import load_file, save_file
from test_cli import call
from torch import Tensor

from hones import HonesError, SteeringSettings, evaluate_scales, load_items, load_vlm, make_task, select_neurons
from hones.data.items import Items
from hones.method.found import HeadResult, HeadScore
from hones.method.steering import definition
from hones.method.steering.controls import SteeringContext
from hones.method.steering.fast import FastObjective, gradient_of, probe
from hones.method.steering.pairs import make_plan
from hones.method.steering.parts import PARTS
from hones.method.steering.settings import EarlyStopping, Scales
from hones.method.steering.train import learn_part
from hones.method.steering.trainable import TrainedPart
from hones.models.adapters import Adapter, LowRank, OfHeads, Part
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, frozen
from hones.runs.artifacts import read_scales, write_heads, write_neurons
from hones.runs.scales_files import read_learned, write_learned
from hones.stats import Interval
from hones.sweep.memory import make_plan as memory_plan
from hones.sweep.run import SweepSettings, sweep

NEURONS = [(0, 1), (0, 4), (2, 19)]
HEADS = [(0, 1), (2, 0), (2, 3)]
PLACE_IN_LAYER = {(0, 1): 0, (2, 0): 0, (2, 3): 1}
SETTINGS = SteeringSettings(learning_rate=0.05, epochs=2, beta=0.3, gamma=0.1)
NAMES = [*PARTS]


def part_of(name: str, vlm: VLM) -> Part:
    way: Any = PARTS[name]
    return way.part(SteeringContext(vlm, make_task("vqa"), [], NEURONS, SETTINGS, heads=HEADS))


def random_adapter(part: Part, seed: int = 0, size: float = 0.5) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(part, {k: (size * rng.normal(size=n)).astype(np.float32) for k, n in part.sizes.items()})


def logits_under(vlm: VLM, edit: Intervention) -> Tensor:
    with torch.no_grad(), edit.on(vlm.model):
        return vlm.logits(encoded_probe(vlm))


def parameters_of(vlm: VLM) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in vlm.model.named_parameters()}


def hooks_of(vlm: VLM) -> list[int]:
    return [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.model.modules()]


# --- formulas ---


@pytest.mark.parametrize("name", ["lora-1", "lora-8"])
def test_a_low_rank_is_that_weight_added(vlm: VLM, name: str) -> None:
    """W + B A in place of W, in a copy."""
    adapter = random_adapter(part_of(name, vlm), size=0.2)
    folded = with_model(vlm, copy.deepcopy(vlm.model))
    for layer, vector in adapter.vectors.items():
        named = adapter.part.tensors(layer, vector)
        assert named["lora_A"].shape == (int(name[-1]), vlm.anatomy.neurons)
        folded.anatomy.layers[layer].down_proj.weight.data += named["lora_B"] @ named["lora_A"]
    assert [*adapter.values] == [0, 2], "the layers of the set"
    found = logits_under(vlm, Intervention(adapter=adapter))
    torch.testing.assert_close(found, logits_under(folded, BASELINE), rtol=1e-4, atol=1e-4)
    assert float((found - logits_under(vlm, BASELINE)).abs().max()) > 0.01


@pytest.mark.parametrize("name", ["head-offset", "head-scale"])
def test_heads_become_what_the_formula_says(vlm: VLM, name: str) -> None:
    """One head after the other, by its slice of the input of o_proj."""
    adapter = random_adapter(part_of(name, vlm))
    width = vlm.anatomy.head_dim

    def by_hand(layer: int, x: Tensor) -> Tensor:
        x = x.clone()
        named = adapter.part.tensors(layer, adapter.vectors[layer])
        for (at, head), place in PLACE_IN_LAYER.items():
            if at == layer:
                own = slice(head * width, (head + 1) * width)
                factor = 1 + named["scale"][place] if name == "head-scale" else 1
                x[..., own] = factor * x[..., own] + named["offset"][place]
        return x

    handles = [
        vlm.anatomy.layers[layer].o_proj.register_forward_pre_hook(
            lambda _, args, layer=layer: (by_hand(layer, args[0]),)
        )
        for layer in (0, 2)
    ]
    expected = logits_under(vlm, BASELINE)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(logits_under(vlm, Intervention(adapter=adapter)), expected, rtol=1e-5, atol=1e-5)
    assert float((expected - logits_under(vlm, BASELINE)).abs().max()) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_before_training_nothing_changes_bit_for_bit(vlm: VLM, name: str) -> None:
    start = part_of(name, vlm).start(7)
    adapter = Adapter(part_of(name, vlm), {layer: vector.numpy() for layer, vector in start.items()})
    half: Any = copy.deepcopy(vlm.model)
    for model in (vlm, with_model(vlm, half.to(torch.bfloat16))):
        assert torch.equal(logits_under(model, Intervention(adapter=adapter)), logits_under(model, BASELINE))
    if name.startswith("lora"):
        first = adapter.part.tensors(0, start[0])
        assert float(first["lora_A"].abs().max()) <= vlm.anatomy.neurons**-0.5 and not first["lora_B"].any()
        assert torch.equal(adapter.part.start(7)[0], start[0])
        assert not torch.equal(adapter.part.start(8)[0], start[0]), "another seed, another A"
    else:
        assert not any(vector.any() for vector in start.values())


@pytest.mark.parametrize("task_name", ["caption", "retrieval"])
def test_every_engine_gives_the_definitions_cells(vlm: VLM, discovery: Items, task_name: str) -> None:
    """Adapters of different layers beside each other, beside scales, and on heads that are replaced."""
    task = make_task(task_name, candidates=3)
    examples = task.examples(discovery)[0][:3]
    last = OfHeads(((2, 1),), vlm.anatomy.head_dim, scaled=True)
    middle = OfHeads(((1, 0), (1, 2)), vlm.anatomy.head_dim, scaled=False)
    parts = [*(part_of(name, vlm) for name in NAMES), last, middle]
    edits = [BASELINE, Intervention(scales={(0, 1): 2.0, (0, 4): -3.0})]
    edits += [Intervention(adapter=random_adapter(part, seed, 1.0)) for seed, part in enumerate(parts)]
    edits.append(Intervention(heads=frozenset({(1, 2), (1, 3)}), adapter=random_adapter(middle, 9, 1.0)))
    edits.append(Intervention(scales=dict.fromkeys(NEURONS, 3.0), adapter=random_adapter(parts[1], 9, 1.0)))
    expected = sweep(vlm, task, examples, edits, SweepSettings("naive", max_new_tokens=4))
    found = sweep(vlm, task, examples, edits, SweepSettings("replay", max_new_tokens=4))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    logits = [_last(vlm, examples, edits, engine) for engine in ("naive", "forward", "replay")]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(logits[2], logits[0], rtol=1e-3, atol=1e-3)
    apart = (logits[0][1:] - logits[0][:1]).abs().amax((1, 2))
    assert float(apart.min()) > 0.01, "each edit changes something"


def _last(vlm: VLM, examples: Sequence[Any], edits: Sequence[Intervention], engine: str) -> Tensor:
    from hones.sweep.engines import last_logits
    from hones.sweep.forward import Forward
    from hones.sweep.replay import Replay

    first = [replace(example, prompts=example.prompts[:1]) for example in examples]
    if engine == "naive":
        return last_logits(vlm, first, edits)
    if engine == "forward":
        return Forward(vlm, max_new_tokens=4, batch_size=2).last_logits(first, edits)
    replay = Replay(vlm, max_new_tokens=4, plan=memory_plan(vlm, 400, None))
    return torch.cat([last_logits(vlm, first, edits[:1]), replay.last_logits(first, edits[1:])])


def test_an_adapter_of_another_model_is_refused(vlm: VLM) -> None:
    narrow = random_adapter(OfHeads(((0, 1),), vlm.anatomy.head_dim + 1, scaled=False))
    with pytest.raises(HonesError, match="offsets of heads of width"), Intervention(adapter=narrow).on(vlm.model):
        pass
    missing = random_adapter(OfHeads(((9, 1),), vlm.anatomy.head_dim, scaled=False))
    with pytest.raises(HonesError, match=r"no head \(9, 1\)"), Intervention(adapter=missing).on(vlm.model):
        pass
    low_rank = part_of("lora-1", vlm)
    assert isinstance(low_rank, LowRank)
    low = replace(low_rank, neurons=vlm.anatomy.neurons + 1)
    with pytest.raises(HonesError, match=r"a low rank of .* neurons and width"):
        low.check(vlm.anatomy)
    with pytest.raises(HonesError, match=r"no neuron \(7, 0\)"):
        replace(low, layers=(7,)).check(vlm.anatomy)


# --- training ---


@pytest.mark.parametrize("name", NAMES)
def test_the_fast_objective_is_the_definitions(vlms: dict[str, VLM], discovery: Items, name: str) -> None:
    vlm = in_double(vlms["qwen"])
    plan = make_plan(make_task("caption"), make_task("caption").examples(discovery)[0], SETTINGS)
    trained = TrainedPart(vlm, part_of(name, vlm), 1)
    with frozen(vlm.model):
        vectors = {layer: vector.detach().double().requires_grad_() for layer, vector in probe(trained).items()}
        slow = partial(definition.objective, vlm, trained=trained, settings=SETTINGS)
        fast = FastObjective(vlm, plan.pairs, trained, SETTINGS)
        found, expected = (gradient_of(one, plan.steps[0][1], vectors) for one in (fast, slow))
    torch.testing.assert_close([*found], [*expected], rtol=1e-9, atol=1e-11)
    assert float(expected[1].norm()) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_finite_differences(vlms: dict[str, VLM], discovery: Items, name: str) -> None:
    """Of a few parameters of every layer."""
    vlm = in_double(vlms["llava"])
    plan = make_plan(make_task("vqa"), make_task("vqa").examples(discovery)[0][:2], SETTINGS)
    trained = TrainedPart(vlm, part_of(name, vlm), 1)
    pairs = plan.steps[0][1]
    with frozen(vlm.model):
        objective = partial(definition.objective, vlm, trained=trained, settings=SETTINGS)
        vectors = {layer: vector.detach().double().requires_grad_() for layer, vector in probe(trained).items()}
        objective(pairs, vectors).total.backward()
        for layer, vector in vectors.items():
            assert vector.grad is not None
            for i in (0, len(vector) // 2, len(vector) - 1):
                ends = []
                for sign in (1, -1):
                    moved = {k: v.detach().clone() for k, v in vectors.items()}
                    moved[layer][i] += sign * 1e-5
                    ends.append(objective(pairs, moved).total.item())
                assert float(vector.grad[i]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_training_touches_its_own_parameters_alone(vlms: dict[str, VLM], discovery: Items, name: str) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    examples = task.examples(discovery)[0]
    before, flags, hooks = parameters_of(vlm), [p.requires_grad for p in vlm.model.parameters()], hooks_of(vlm)
    part = part_of(name, vlm)
    settings = SETTINGS.model_copy(update={"epochs": 4, "beta": 0.05, "gamma": 0.0, "max_scale": 0.12})
    learned = learn_part(vlm, task, examples, part, settings)
    # an epoch draws answers of its own, so it is compared with itself, learning next to nothing
    idle = learn_part(vlm, task, examples, part, settings.model_copy(update={"learning_rate": 1e-9}))
    assert learned.losses[-1] < idle.losses[-1] - 0.001
    assert all(torch.equal(p, before[key]) and p.grad is None for key, p in vlm.model.named_parameters())
    assert flags == [p.requires_grad for p in vlm.model.parameters()]
    assert hooks == hooks_of(vlm)
    assert learned.adapter is not None and learned.values == {} and learned.learned is not None
    assert learned.adapter.part == part and learned.parameters == learned.learned.scales == sum(part.sizes.values())
    start = part.start(settings.seed)
    moved = {k: (torch.from_numpy(x) - start[k]).abs() for k, x in learned.adapter.values.items()}
    assert all(float(x.max()) > 0 for x in moved.values()), "every layer has learned"
    assert learned.learned.largest == pytest.approx(max(float(x.max()) for x in moved.values()))
    again = learn_part(vlm, task, examples, part, settings)
    assert again.adapter is not None
    assert all(np.array_equal(again.adapter.values[k], x) for k, x in learned.adapter.values.items())
    if name.startswith("lora"):
        assert learned.learned.learning_rate == pytest.approx(0.1 * 0.05) and learned.learned.clamped == 0
    else:
        assert learned.learned.learning_rate == 0.05
        scales = [part.tensors(k, v).get("scale") for k, v in learned.adapter.vectors.items()]
        if name == "head-scale":
            largest = max(float(s.abs().max()) for s in scales if s is not None)
            assert largest == pytest.approx(0.12) and learned.learned.clamped > 0, "factors are bounded, offsets not"
        else:
            assert scales == [None, None] and learned.learned.clamped == 0
        assert learned.learned.largest > 0.12


def test_a_killed_training_goes_on_and_ends_with_the_same(
    vlms: dict[str, VLM], discovery: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hones.method.steering import train

    vlm, task = vlms["llava"], make_task("vqa")
    examples = task.examples(discovery)[0]
    settings = SETTINGS.model_copy(update={"early_stopping": EarlyStopping(share=0.2, patience=2), "epochs": 3})
    part = part_of("lora-1", vlm)
    assert isinstance(part, LowRank)
    expected = learn_part(vlm, task, examples, part, settings)
    step, done = train._step, []

    def killed(*args: Any) -> list[float]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return step(*args)

    file = tmp_path / "x.safetensors"
    monkeypatch.setattr(train, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        learn_part(vlm, task, examples, part, settings, checkpoint=file)
    monkeypatch.setattr(train, "_step", step)
    with pytest.raises(HonesError, match="belongs to a training with neurons"):
        learn_part(vlm, task, examples, replace(part, rank=2), settings, checkpoint=file)
    found = learn_part(vlm, task, examples, part, settings, checkpoint=file)
    assert (found.losses, found.epoch) == (expected.losses, expected.epoch)
    assert found.adapter is not None and expected.adapter is not None
    assert all(np.array_equal(found.adapter.values[k], x) for k, x in expected.adapter.values.items())


def test_nothing_to_learn_from_is_said(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    with pytest.raises(HonesError, match="2 layers and 0 dev items to steer"):
        learn_part(vlm, task, [], part_of("lora-1", vlm))
    context = SteeringContext(vlm, task, task.examples(discovery)[0], NEURONS, SETTINGS)
    with pytest.raises(HonesError, match="head-offset without critical heads; expected those of vqa; run `hones heads"):
        PARTS["head-offset"].check(context)
    with pytest.raises(HonesError, match=r"no head \(9, 0\)"):
        PARTS["head-scale"].check(replace(context, heads=[(9, 0)]))


# --- files and the stage ---


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_gives_the_same_answers(vlm: VLM, discovery: Items, tmp_path: Path, name: str) -> None:
    adapter = random_adapter(part_of(name, vlm), size=1.0)
    file = tmp_path / "new/adapter.safetensors"
    write_learned(file, Scales({}, adapter=adapter))
    read = read_learned(file)
    assert read.adapter is not None and read.adapter.part == adapter.part
    assert all(np.array_equal(read.adapter.values[k], x) for k, x in adapter.values.items())
    task, sweeping = make_task("retrieval", candidates=4), SweepSettings(max_new_tokens=3)
    examples = task.examples(discovery)[0][:3]
    results = [evaluate_scales(vlm, task, examples, x, sweep=sweeping) for x in (read, Scales({}, adapter=adapter))]
    assert results[0] == results[1]
    assert torch.equal(
        logits_under(vlm, Intervention(adapter=read.adapter)), logits_under(vlm, Intervention(adapter=adapter))
    )
    with pytest.raises(HonesError, match=r"is an adapter; expected scales.json; adapters stay in the run"):
        read_scales(file)


def test_a_file_that_is_no_adapter_is_refused(vlms: dict[str, VLM], tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    with pytest.raises(HonesError, match="cannot read"):
        read_learned(file)
    write_learned(file, Scales({}, adapter=random_adapter(part_of("head-scale", vlms["llava"]))))
    good = load_file(file)
    first = next(iter(good))
    bad: list[dict[str, Tensor]] = [
        {},
        {name: x for name, x in good.items() if name != first},
        good | {first: good[first][..., :-1].contiguous()},
        good | {first: good[first].double()},
        good | {"2.offset": good["2.offset"] * float("nan")},
        {"x": torch.zeros(1)},
        {"0.lora_A": torch.zeros(2), "0.lora_B": torch.zeros(2)},
        good | {"0.lora_A": torch.zeros(1, 2)},
    ]
    for content in bad:
        save_file(content, file)
        with pytest.raises(HonesError, match=r"is not an adapter \(.*expected adapter.safetensors as `hones steer`"):
            read_learned(file)
    file.write_bytes(b"no tensors at all")
    with pytest.raises(HonesError, match="is not an adapter"):
        read_learned(file)


def test_hones_steer_compares_them_and_goes_on(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    importance = np.random.default_rng(0).random((3, 24), dtype=np.float32)
    out = tmp_path / "run"
    write_neurons(out / "retrieval", importance, select_neurons(importance, 0.1))
    arguments = ["steer", "--model", model_folders["qwen"], "--task", "retrieval", "--candidates", 3, "--limit", 2]
    arguments += ["--dev", shapes["dev"], "--test", shapes["test"], "--out", out, "--epochs", 1]
    ways = ["--methods", "lora-1,head-scale"]
    assert call(*arguments, *ways) == 2
    assert "head-scale without critical heads" in capsys.readouterr().err
    scored = [HeadScore(layer, head, Interval(0.3, 0.2, 0.4), 0.5, 0.2) for layer, head in HEADS]
    write_heads(out / "retrieval", HeadResult("ndcg@5", Interval(0.5, 0.4, 0.6), 2, tuple(scored), 2), 3, 4)
    assert call(*arguments, *ways, "--anyway") == 0
    shown = capsys.readouterr().out
    steering = out / "retrieval/steering"
    evidence = json.loads((steering / "evidence.json").read_text())
    by_way = {way["method"]: way for way in evidence["test"]["methods"]}
    vlm = load_vlm(str(model_folders["qwen"]))
    for name in ("lora-1", "head-scale"):
        adapter = read_learned(steering / name / "adapter.safetensors").adapter
        assert adapter is not None and by_way[name]["parameters"] == adapter.parameters > by_way[name]["neurons"] == 0
        assert f"{adapter.parameters:,} parameters" in shown
    assert isinstance(adapter.part, OfHeads) and adapter.part.heads == (HEADS[0], HEADS[1]), "the critical ones"
    task, items = make_task("retrieval", candidates=3), load_items(shapes["test"], limit=2)
    learned = read_learned(steering / "lora-1/adapter.safetensors")
    alone = evaluate_scales(vlm, task, task.examples(items)[0], learned)
    assert alone.steered.value == pytest.approx(by_way["lora-1"]["steered"]["value"])
    assert [spread["method"] for spread in evidence["scales"]] == ["hones"], "of scales alone"
    monkeypatch.setattr("hones.method.steering.trainings.learn_part", None)
    assert call(*arguments, *ways, "--anyway") == 0
    assert capsys.readouterr().out == shown, "what was learned is read back"
    assert call("export", steering / "lora-1/adapter.safetensors", "--model", model_folders["qwen"], "--to", out) == 2
    assert "is an adapter; expected scales.json" in capsys.readouterr().err
