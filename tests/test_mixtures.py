"""Mixtures of experts: a neuron is one of an expert, its z times the router's weight, 0 where the expert is not chosen.

What is expected comes from the families' own modules, as transformers has them, not from the anatomy.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_cli import call
from test_text_models import TASK, capitals, own_answers
from text_models import MIXTURES, TEXT_FAMILIES, save_text
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from hones import HonesError, load_items, load_vlm, mask_neurons, replace_heads, scale_neurons, select_neurons, verify
from hones.method.analysis.explain import explain
from hones.method.found import HeadScore
from hones.method.masking import layer_matched_random
from hones.method.steering.settings import Scales
from hones.models.capture import DOWN_PROJ, FFN, Z, capture, collect
from hones.models.finding import find_anatomy
from hones.models.interventions import BASELINE, Intervention, Kept, keep_neurons, scaling
from hones.models.mixtures import Experts
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, readout_of
from hones.rivals import METHODS
from hones.rivals.base import Context
from hones.runs.artifacts import read_neurons, read_scales
from hones.runs.plan.shapes import shapes_of, weightless
from hones.sharing.export import export_scales
from hones.stats import Interval
from hones.sweep.forward import Forward
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.replay import Replay
from hones.tasks.log_probability import LogProbability
from hones.views.report.explain import render_explanation

PROMPTS = ("What?", "What is the capital of Peru?", "Say where the river Nile ends, in one word.")
OF_ALL = pytest.mark.parametrize("family", MIXTURES)
SHARED = ("Qwen2-MoE", "Llama 4")
LAYOUTS = {
    "Mixtral": Experts(4, 24),
    "Qwen2-MoE": Experts(4, 12, 20),
    "Qwen3-MoE": Experts(4, 12),
    "OLMoE": Experts(4, 24),
    "Llama 4": Experts(4, 12, 12),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """Families by name, each built and loaded once."""
    folder, known = tmp_path_factory.mktemp("mixtures"), {}

    def load(family: str) -> VLM:
        if family not in known:
            known[family] = load_vlm(str(TEXT_FAMILIES[family](folder / family)))
        return known[family]

    return load


def asked(vlm: VLM) -> Encoded:
    return vlm.encode([None] * len(PROMPTS), PROMPTS)


def blocks(model: Any) -> list[Any]:
    """The FFNs of a model, layer by layer."""
    return [block.feed_forward if hasattr(block, "feed_forward") else block.mlp for block in model.model.layers]


def neurons_of(vlm: VLM) -> int:
    """I' of a family: of all experts, and of the shared one."""
    layout = vlm.anatomy.layers[0].experts
    assert layout is not None
    return layout.count * layout.size + layout.shared


def some_neurons(vlm: VLM) -> list[tuple[int, int]]:
    """Neurons of each expert in layers 0 and 2, two of one of them."""
    width, last = LAYOUTS[vlm.name.rsplit("/", 1)[-1]].size, neurons_of(vlm) - 1
    return [(0, 3), (0, 5), (0, width), (0, 3 * width + 2), (0, last), (2, 1), (2, 2 * width + 7), (2, last)]


def weights_of_router(family: str, mlp: Any, x: Tensor) -> Tensor:
    """w [positions, experts], 0 where an expert is not chosen; from the families' papers."""
    router = mlp.router if family == "Llama 4" else mlp.gate
    logits = linear(x, router.weight)
    if family == "Llama 4":
        best = logits.topk(2, -1)
        return torch.zeros_like(logits).scatter(1, best.indices, best.values.sigmoid())
    p = logits.softmax(-1)
    best = p.topk(2, -1)
    values = best.values / best.values.sum(-1, keepdim=True) if family in ("Mixtral", "Qwen3-MoE") else best.values
    return torch.zeros_like(p).scatter(1, best.indices, values)


def z_by_hand(family: str, mlp: Any, x: Tensor) -> Tensor:
    """z [positions, neurons] of what enters an FFN, one expert at a time."""
    w = weights_of_router(family, mlp, x)
    parts = []
    for e in range(4):
        if family == "Llama 4":
            gate, up = (x * w[:, e, None] @ mlp.experts.gate_up_proj[e]).chunk(2, -1)
            parts.append(silu(gate) * up)
        else:
            gate, up = linear(x, mlp.experts.gate_up_proj[e]).chunk(2, -1)
            parts.append(w[:, e, None] * silu(gate) * up)
    shared = getattr(mlp, "shared_expert", None)
    if shared is not None:
        z = silu(shared.gate_proj(x)) * shared.up_proj(x)
        parts.append(z * linear(x, mlp.shared_expert_gate.weight).sigmoid() if family == "Qwen2-MoE" else z)
    return torch.cat(parts, -1)


def scale_column(family: str, mlp: Any, neuron: int, factor: float) -> None:
    """Multiply the column of one neuron in its expert's own down projection."""
    layout = LAYOUTS[family]
    expert, i = divmod(neuron, layout.size)
    if neuron >= 4 * layout.size:
        mlp.shared_expert.down_proj.weight.data[:, neuron - 4 * layout.size] *= factor
    elif family == "Llama 4":
        mlp.experts.down_proj.data[expert, i] *= factor
    else:
        mlp.experts.down_proj.data[expert, :, i] *= factor


def logits_and_text(model: Any, encoded: Encoded) -> tuple[Tensor, list[list[int]]]:
    """By transformers alone: logits of all tokens, greedy answers."""
    mask = encoded.inputs["attention_mask"]
    with torch.no_grad():
        logits = model(**encoded.inputs, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits[mask.bool()]
        ids = model.generate(**encoded.inputs, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return logits, ids.tolist()


def entering(vlm: VLM, encoded: Encoded) -> list[Tensor]:
    """What enters every FFN, [batch, positions, d]."""
    found: list[Tensor] = []
    hooks = [mlp.register_forward_pre_hook(lambda _, args: found.append(args[0])) for mlp in blocks(vlm.model)]
    with torch.no_grad():
        vlm.logits(encoded)
    for hook in hooks:
        hook.remove()
    return found


@OF_ALL
def test_z_is_the_experts_times_the_routers_weights(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    assert {layer.experts for layer in vlm.anatomy.layers} == {LAYOUTS[family]} and vlm.anatomy.neurons == neurons_of(
        vlm
    )
    inputs = entering(vlm, encoded)
    with collect(vlm.anatomy, Z) as z, collect(vlm.anatomy, FFN) as added, torch.no_grad():
        vlm.logits(encoded)
    for number, (mlp, x) in enumerate(zip(blocks(vlm.model), inputs, strict=True)):
        with torch.no_grad():
            expected = z_by_hand(family, mlp, x.flatten(0, 1)).view(*x.shape[:2], -1)
            own = mlp(x)
            own = (own[0] if isinstance(own, tuple) else own).view_as(x)
        torch.testing.assert_close(z[number], expected, atol=1e-6, rtol=1e-4)
        chosen = expected[..., : 4 * LAYOUTS[family].size].unflatten(-1, (4, -1)).abs().amax(-1) > 0
        assert (chosen.sum(-1) == 2).all() and chosen.flatten(0, 1).any(0).all(), "every expert is chosen somewhere"
        assert torch.equal(added[number], own), "who only looks changes no bit"
        torch.testing.assert_close(z[number] @ vlm.anatomy.layers[number].down_proj.weight.T, own, atol=1e-5, rtol=1e-4)


@OF_ALL
def test_neuron_edits_equal_folded_columns_of_experts(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    base, base_text = logits_and_text(vlm.model, encoded)
    sites = some_neurons(vlm)
    scales = dict(zip(sites, (0.5, -0.75, 2.0, -3.0, 1.5, 0.25, -1.0, 4.0), strict=True))
    edits = {"mask": (mask_neurons(vlm.model, sites), dict.fromkeys(sites, 0.0))}
    edits["scale"] = (scale_neurons(vlm.model, scales), {site: 1 + s for site, s in scales.items()})
    kept = [(0, 1), (1, neurons_of(vlm) - 1), (2, 3), (2, 4)]
    others = {(layer, i) for layer in range(3) for i in range(neurons_of(vlm))} - {*kept}
    edits["keep"] = (keep_neurons(vlm.model, kept), dict.fromkeys(others, 0.0))
    for edit, factors in edits.values():
        folded = copy.deepcopy(vlm.model)
        for (layer, neuron), factor in factors.items():
            scale_column(family, blocks(folded)[layer], neuron, factor)
        expected, text = logits_and_text(folded, encoded)
        with edit:
            found, hooked_text = logits_and_text(vlm.model, encoded)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        assert hooked_text == text and (found - base).abs().max() > 1e-2
    after, after_text = logits_and_text(vlm.model, encoded)
    assert torch.equal(after, base) and after_text == base_text
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in vlm.model.modules())


def test_constants_are_written_where_an_expert_is_not_chosen_too(loaded: Callable[[str], VLM]) -> None:
    """A mean takes the place of z at every position."""
    vlm = loaded("Qwen2-MoE")
    encoded = asked(vlm)
    width = neurons_of(vlm)
    constants = torch.randn(3, width, generator=torch.Generator().manual_seed(0)).numpy()
    kept = [(layer, i) for layer in range(3) for i in range(width) if (layer, i) not in ((1, 5), (1, 40))]
    x = entering(vlm, encoded)[1]
    mlp = blocks(vlm.model)[1]
    with torch.no_grad():
        z = z_by_hand("Qwen2-MoE", mlp, x.flatten(0, 1))
        z[:, [5, 40]] = torch.from_numpy(constants[1, [5, 40]])
        expected = z @ vlm.anatomy.layers[1].down_proj.weight.T
        with keep_neurons(vlm.model, kept, constants):
            torch.testing.assert_close(mlp(x).flatten(0, 1), expected, atol=1e-5, rtol=1e-4)


@OF_ALL
def test_an_edit_leaves_positions_without_its_expert_as_they_are(family: str, loaded: Callable[[str], VLM]) -> None:
    """Bit for bit the family's own; and a hook that gives back what is there changes no bit anywhere."""
    vlm = loaded(family)
    x = entering(vlm, asked(vlm))[1]
    mlp = blocks(vlm.model)[1]
    with torch.no_grad():
        plain = mlp(x)
        chosen = weights_of_router(family, mlp, x.flatten(0, 1))[:, 2] > 0
        with mask_neurons(vlm.model, [(1, 2 * LAYOUTS[family].size + 4)]):
            edited = mlp(x)
        with capture(vlm.anatomy, Z, lambda _, z: z.clone()), capture(vlm.anatomy, DOWN_PROJ, lambda _, x: x + 0):
            same = mlp(x)
    plain, edited, same = ((y[0] if isinstance(y, tuple) else y).view(-1, 32) for y in (plain, edited, same))
    assert torch.equal(same, plain)
    assert chosen.any() and not chosen.all()
    assert torch.equal(edited[~chosen], plain[~chosen]) and (edited != plain).any(1)[chosen].all()


@OF_ALL
def test_contributions_sum_to_what_the_ffn_adds(family: str, loaded: Callable[[str], VLM]) -> None:
    """Measured at the residual: what leaves a layer, less what leaves it with its FFN's output taken away."""
    vlm = loaded(family)
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    found = contributions(vlm, encoded, readout_of(vlm, u))
    layers: Any = vlm.anatomy.decoder.layers
    for number, mlp in enumerate(blocks(vlm.model)):
        left: list[Tensor] = []
        hooks = [layers[number].register_forward_hook(lambda _, __, out, left=left: left.append(out[:, -1].clone()))]
        with torch.no_grad():
            vlm.logits(encoded, 1)
            hooks.append(mlp.register_forward_hook(nothing))
            vlm.logits(encoded, 1)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(found[:, number].sum(-1), ((left[0] - left[1]) * u).sum(-1), atol=1e-5, rtol=1e-4)
    z = activations(vlm, encoded)
    assert ((z == 0) == (found == 0)).all() and (z == 0).any()
    assert family not in SHARED or (z[..., -1] != 0).all(), "a shared expert is always chosen"


def nothing(_: nn.Module, __: Any, out: Any) -> Any:
    return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)


@pytest.mark.parametrize("family", ["Mixtral", "Qwen2-MoE", "Llama 4"])
def test_all_engines_give_the_same_cells(family: str, loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    """Rows of a batch are under other masks, of other experts; against the definition, cell by cell."""
    vlm = loaded(family)
    assert verify(vlm).engine == "replay"
    task = capitals()
    examples = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))[0][:4]
    sites, width = some_neurons(vlm), neurons_of(vlm)
    edits = [BASELINE, *(Intervention(heads=frozenset({(layer, h)})) for layer in range(3) for h in (0, 3))]
    edits += [Intervention(masked=frozenset({site})) for site in sites]
    edits += [Intervention(masked=frozenset(sites)), Intervention(scales=dict.fromkeys(sites, 2.0))]
    edits += [Intervention(heads=frozenset({(1, 0)}), masked=frozenset({(1, 5), (1, width - 1)}))]
    edits += [Intervention(scales={(layer, i): -6.0 for i in range(width)}) for layer in range(3)]  # other answers
    log_p = LogProbability(task)
    golden = [log_p.with_gold(example) for example in examples]
    for asked_of, of_task, apart in ((task, examples, 0.0), (log_p, golden, 1e-4)):
        members = [(asked_of, example) for example in of_task]
        naive = np.stack(Naive(vlm, 4, 4).statistics(members, edits))
        for engine in (Replay(vlm, max_new_tokens=4, plan=make_plan(vlm, 64, 4)), Forward(vlm, 4, 4)):
            found = np.stack(engine.statistics(members, edits))
            np.testing.assert_allclose(found, naive, rtol=0, atol=apart, err_msg=type(engine).__name__)
        assert (naive[:, 1:] != naive[:, :1]).any(), "an edit shows"
    by_mask = np.abs(naive[:, 7 : 7 + len(sites)] - naive[:, :1])
    assert (by_mask > 1e-3).any((0, 2)).sum() >= 6, "masks alone show where their experts are chosen"


@pytest.mark.parametrize("family", ["Mixtral", "Qwen2-MoE"])
@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_implementation_of_experts_is_edited_alike(
    family: str, implementation: str, loaded: Callable[[str], VLM]
) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    sites = some_neurons(vlm)
    with mask_neurons(vlm.model, sites):
        expected, text = logits_and_text(vlm.model, encoded)
    model = copy.deepcopy(vlm.model)
    model.set_experts_implementation(implementation)
    with mask_neurons(model, sites):
        found, hooked_text = logits_and_text(model, encoded)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert hooked_text == text


def test_half_precision_is_edited_within_its_rounding(loaded: Callable[[str], VLM]) -> None:
    model = copy.deepcopy(loaded("Mixtral").model).bfloat16()
    mlp = blocks(model)[0]
    x = torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    folded = copy.deepcopy(model).float()
    for neuron in (3, 50):
        scale_column("Mixtral", blocks(folded)[0], neuron, 0.0)
    with torch.no_grad():
        with mask_neurons(model, [(0, 3), (0, 50)]):
            found = mlp(x).float()
        expected, plain = blocks(folded)[0](x.float()), copy.deepcopy(mlp).float()(x.float())
    same = ((found - expected).norm(dim=-1) < 0.03 * expected.norm(dim=-1)).float().mean()
    assert same > 0.9, "where rounding makes the router choose another expert, it does so without the edit too"
    assert (plain - expected).norm() > 0.1 * expected.norm()


@OF_ALL
def test_attribution_patching_equals_the_gradient_of_the_experts_columns(
    family: str, loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    """z dL/dz, summed over positions, is the derivative by a factor on the neuron's column: of the family's forward."""
    vlm = loaded(family)
    task = capitals()
    examples, _ = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))
    examples = examples[:2]
    found = METHODS["atp"].importance(Context(vlm, task, examples))
    expected = np.zeros(found.shape)
    for example in examples:
        encoded = vlm.encode_with_answers([None], example.prompts[:1], [task.answers_to_learn(example)[0]])
        with torch.enable_grad():
            vlm.log_probabilities(encoded).sum().backward()
        for layer, mlp in enumerate(blocks(vlm.model)):
            down = mlp.experts.down_proj
            of_experts = (down.detach() * down.grad).sum(2 if family == "Llama 4" else 1).flatten()
            expected[layer, : len(of_experts)] += of_experts.numpy() / len(examples)
            if family in SHARED:
                weight = mlp.shared_expert.down_proj.weight
                expected[layer, len(of_experts) :] += (weight.detach() * weight.grad).sum(0).numpy() / len(examples)
        vlm.model.zero_grad()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-3)


@pytest.mark.parametrize("dense", [24, 100])
def test_layers_that_are_dense_lack_neurons_or_the_others_do(dense: int, tmp_path: Path) -> None:
    """What is missing is 0 and never selected; edits of the others equal folded columns, in every engine."""
    more: dict[str, Any] = {"num_experts": 4, "moe_intermediate_size": 12, "num_experts_per_tok": 2, "head_dim": 8}
    folder = save_text(tmp_path / "model", "qwen3_moe", decoder_sparse_step=2, intermediate_size=dense, **more)
    vlm = load_vlm(str(folder))
    width = max(dense, 48)
    assert vlm.anatomy.shape == (3, 4, width) and [x.neurons for x in vlm.anatomy.layers] == [dense, 48, dense]
    assert [vlm.anatomy.expert_of(layer, 13) for layer in range(3)] == [None, 1, None]
    short, lacking = (1, 48) if dense == 100 else (0, dense)
    for edit in (mask_neurons, lambda model, sites: scale_neurons(model, dict.fromkeys(sites, 1.0))):
        with pytest.raises(
            HonesError, match=rf"no neuron \({short}, {lacking}\); expected layer < 3 and neuron < {lacking}"
        ):
            edit(vlm.model, [(short, lacking)]).__enter__()
    result = verify(vlm)
    assert result.failed == [] and result.engine == "replay"

    encoded = asked(vlm)
    z = activations(vlm, encoded)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    total = contributions(vlm, encoded, readout_of(vlm, u)).sum(-1)
    with collect(vlm.anatomy, FFN, lambda x: x[:, -1]) as added, torch.no_grad():
        vlm.logits(encoded)
    for number, layer in enumerate(vlm.anatomy.layers):
        assert (z[:, number, layer.neurons :] == 0).all() and (z[:, number, : layer.neurons] != 0).any()
        torch.testing.assert_close(total[:, number], (added[number] * u).sum(-1), atol=1e-5, rtol=1e-4)

    kept = [(0, 1), (1, 13), (1, 47), (2, 3)]
    exists = {(n, i) for n, layer in enumerate(vlm.anatomy.layers) for i in range(layer.neurons)}
    scales = {(0, 3): -3.0, (1, 13): 4.0, (1, 40): -1.0, (2, dense - 1): 2.0}
    constants = np.ones((3, width), dtype=np.float32)
    edits = {"scale": (scale_neurons(vlm.model, scales), {site: 1 + s for site, s in scales.items()})}
    edits["keep"] = (keep_neurons(vlm.model, kept), dict.fromkeys(exists - {*kept}, 0.0))
    for edit, factors in edits.values():
        folded: Any = copy.deepcopy(vlm.model)
        for (layer, neuron), factor in factors.items():
            if layer == 1:
                scale_column("Qwen3-MoE", blocks(folded)[1], neuron, factor)
            else:
                blocks(folded)[layer].down_proj.weight.data[:, neuron] *= factor
        expected, _ = logits_and_text(folded, encoded)
        with edit:
            found, _ = logits_and_text(vlm.model, encoded)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with keep_neurons(vlm.model, kept, constants):
        assert torch.isfinite(logits_and_text(vlm.model, encoded)[0]).all()

    task = capitals()
    examples = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))[0][:2]
    drawn = layer_matched_random([(0, 1), (1, 13), (1, 14), (2, 5)], width, 0, alike=vlm.anatomy.alike)
    assert {(0, 1), (1, 2), (2, 1)} == {(n, sum(layer == n for layer, _ in drawn)) for n in range(3)}
    assert {*drawn} <= exists and {vlm.anatomy.expert_of(*site) for site in drawn if site[0] == 1} == {1}
    heads = (HeadScore(0, 1, Interval(0.5, 0.5, 0.5), 0.0, 0.0),)
    for method in ("hones", "hones+", "random", "layer-random", "wanda", "atp", "logprob-gain", "oracle"):
        importance = METHODS[method].importance(Context(vlm, task, examples, heads))
        assert importance.shape == (3, width) and (importance > 0).any()
        for number, layer in enumerate(vlm.anatomy.layers):
            assert (importance[number, layer.neurons :] == 0).all(), method
        chosen = select_neurons(importance, 1.0, vlm.anatomy.expert_of)
        assert {(n.layer, n.neuron) for n in chosen} <= exists
        assert all((n.expert is None) is (n.layer != 1) for n in chosen)
    log_p = LogProbability(task)
    members = [(log_p, log_p.with_gold(example)) for example in examples]
    every = [Intervention(masked=frozenset({site})) for site in (*scales, (1, 47))]
    every += [Intervention(kept=Kept.of(kept, vlm.anatomy)), Intervention(scales=scales)]
    naive = np.stack(Naive(vlm, 4, 4).statistics(members, [BASELINE, *every]))
    for engine in (Replay(vlm, max_new_tokens=4, plan=make_plan(vlm, 64, 4)), Forward(vlm, 4, 4)):
        found = np.stack(engine.statistics(members, [BASELINE, *every]))
        np.testing.assert_allclose(found, naive, rtol=0, atol=1e-4, err_msg=type(engine).__name__)
    done = export_scales(vlm, Scales(scales), tmp_path / "out", format="merged")
    assert done.manifest.check is not None and done.manifest.check.effect > 1e-3


def test_a_scale_that_closes_a_neuron_has_a_gradient(loaded: Callable[[str], VLM]) -> None:
    """Where z is multiplied by 0 it still has one: what opening the neuron again would do."""
    vlm = loaded("Qwen2-MoE")
    encoded = asked(vlm)
    indices = torch.tensor([3, 14, 60])

    def likely(s: Tensor) -> Tensor:
        with scaling(vlm.anatomy, {1: indices}, {1: s}):
            return vlm.logits(encoded, 1)[:, -1].float().log_softmax(-1)[:, 7].sum()

    closed = torch.full((3,), -1.0, requires_grad=True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(likely(closed), closed)
    with torch.no_grad():
        steps = 0.02 * torch.eye(3)
        expected = torch.stack([(likely(closed + step) - likely(closed - step)) / 0.04 for step in steps])
    assert (expected.abs() > 3e-4).all()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-4)


def test_a_plan_counts_the_experts_that_a_position_is_sent_to(loaded: Callable[[str], VLM]) -> None:
    ffn = shapes_of(weightless(loaded("Qwen2-MoE").name), "float32").ffn
    assert ffn.weights == 3 * 32 * 20 + 32 + 2 * 3 * 32 * 12, "the shared expert, its gate, and two of four"


def test_contexts_may_be_left_in_any_order(loaded: Callable[[str], VLM]) -> None:
    vlm = loaded("Mixtral")
    encoded = asked(vlm)
    first, second = mask_neurons(vlm.model, [(0, 3)]), scale_neurons(vlm.model, {(0, 30): 1.0, (2, 5): -3.0})
    with scale_neurons(vlm.model, {(0, 30): 1.0, (2, 5): -3.0}):
        alone, _ = logits_and_text(vlm.model, encoded)
    plain, _ = logits_and_text(vlm.model, encoded)
    first.__enter__()
    second.__enter__()
    both, _ = logits_and_text(vlm.model, encoded)
    first.__exit__(None, None, None)
    assert torch.equal(logits_and_text(vlm.model, encoded)[0], alone) and not torch.equal(both, alone)
    second.__exit__(None, None, None)
    assert torch.equal(logits_and_text(vlm.model, encoded)[0], plain)


@OF_ALL
def test_a_merged_export_scales_the_experts_columns(family: str, loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    vlm = loaded(family)
    sites = some_neurons(vlm)
    scales = dict(zip(sites, (0.5, -0.75, 2.0, -3.0, 1.5, 0.25, -0.5, 4.0), strict=True))
    done = export_scales(vlm, Scales(scales), tmp_path / "out", format="merged")
    assert done.manifest.check is not None and done.manifest.check.effect > 1e-3
    merged = load_vlm(str(done.folder)).model
    folded = copy.deepcopy(vlm.model)
    for (layer, neuron), s in scales.items():
        scale_column(family, blocks(folded)[layer], neuron, 1 + s)
    for name, weight in folded.state_dict().items():
        assert torch.equal(merged.state_dict()[name], weight), name
    assert load_file(done.folder / "model.safetensors").keys() == load_file(Path(vlm.name) / "model.safetensors").keys()
    for form in ("ia3", "lora"):
        with pytest.raises(HonesError, match=f"a {form} adapter for neurons of a mixture of experts.* merged or json"):
            export_scales(vlm, Scales(scales), tmp_path / form, format=form)
    assert export_scales(vlm, Scales(scales), tmp_path / "json", format="json").manifest.check is not None


def test_random_neurons_are_of_the_same_experts() -> None:
    """As many of each expert of a layer, none of the set; of a small one the set's own where no other is left."""
    layout = Experts(4, 12, 20)
    chosen = [(0, 1), (0, 2), (0, 13), (1, 67), (2, 40), *((3, i) for i in range(24, 34))]
    for seed in range(5):
        drawn = layer_matched_random(chosen, 68, seed, alike=lambda _, i: layout.neurons_of(layout.of(i)))
        experts = [sorted((layer, layout.of(i)) for layer, i in sites) for sites in (drawn, chosen)]
        assert experts[0] == experts[1] and len({*drawn}) == len(drawn)
        assert not {*drawn} & {*chosen[:5]} and {i for layer, i in drawn if layer == 3} <= {*range(24, 36)}


def test_selected_neurons_name_their_experts(loaded: Callable[[str], VLM]) -> None:
    layout = loaded("Qwen2-MoE").anatomy.layers[0].experts
    assert layout is not None and [layout.of(i) for i in (0, 11, 12, 47, 48, 60, 67)] == [0, 0, 1, 3, 4, 4, 4]
    importance = np.zeros((2, 68), dtype=np.float32)
    importance[0, 13], importance[1, 67] = 2, 1
    chosen = select_neurons(importance, 0.1, loaded("Qwen2-MoE").anatomy.expert_of)
    assert [(n.layer, n.expert, n.neuron) for n in chosen] == [(0, 1, 13), (1, 4, 67)]
    (table,) = chosen.tables()
    assert [column.name for column in table.columns] == ["rank", "layer", "expert", "neuron", "score"]
    (plain,) = select_neurons(importance, 0.1).tables()
    assert "expert" not in [column.name for column in plain.columns]


@pytest.mark.parametrize("family", ["Mixtral", "Qwen2-MoE"])
def test_every_step_of_the_command_line(family: str, loaded: Callable[[str], VLM], tmp_path: Path) -> None:
    vlm = loaded(family)
    for split in ("discovery", "dev", "test"):
        own_answers(vlm, tmp_path, split)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK))
    run = tmp_path / "run"
    data = {split: str(tmp_path / f"{split}.json") for split in ("discovery", "dev", "test")}
    steering = ["--epochs", "1", "--learning-rate", "0.1", "--methods", "fixed-amp"]
    steps = {
        "heads": ["--data", data["discovery"], "--top-k", "3", "--max-new-tokens", "4"],
        "neurons": ["--data", data["discovery"], "--ratio", "0.1"],
        "mask": ["--data", data["test"], "--draws", "2", "--max-new-tokens", "4"],
        "steer": ["--dev", data["dev"], "--test", data["test"], *steering, "--max-new-tokens", "4"],
    }
    for command, options in steps.items():
        given = ["--model", vlm.name, "--task", str(tmp_path / "task.yaml"), *options, "--out", str(run), "--anyway"]
        assert call(command, *given) == 0
    rows = json.loads((run / "capitals" / "neurons.json").read_text())
    layout = LAYOUTS[family]
    assert rows and all(row["expert"] == min(row["neuron"] // layout.size, 4) for row in rows)
    assert len({row["expert"] for row in rows}) > 1
    neurons = read_neurons(run / "capitals" / "neurons.json")
    assert [n.expert for n in neurons] == [row["expert"] for row in rows]
    found = explain(vlm, None, "What is the capital of Peru?", answer="Lima")
    assert found.neurons and all(n.expert == min(n.neuron // layout.size, 4) for n in found.neurons)
    assert "expert" in [column.name for column in found.table("neurons").columns]
    first = found.neurons[0]
    page = render_explanation(found, None)
    assert f"layer {first.layer}, expert {first.expert}, neuron {first.neuron}" in page
    masking = json.loads((run / "capitals" / "masking.json").read_text())
    assert masking["neurons"] == len(rows)
    scales = read_scales(run / "capitals" / "steering" / "hones" / "scales.json").values
    assert {*scales} == {(n.layer, n.neuron) for n in neurons} and any(scales.values())


@pytest.mark.parametrize(
    ("family", "more", "line"),
    [
        (
            "granitemoeshared",
            {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 12},
            "GraniteMoeSharedExperts: the layer has a shared_mlp beside them; expected fused experts",
        ),
    ],
)
def test_what_is_not_served_is_one_line(family: str, more: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(HonesError, match=line):
        load_vlm(str(save_text(tmp_path, family, **more)))


def test_experts_that_are_quantised_or_not_fused_are_one_line(loaded: Callable[[str], VLM]) -> None:
    packed = copy.deepcopy(loaded("Mixtral").model)
    experts = blocks(packed)[1].experts
    experts.down_proj = nn.Parameter(experts.down_proj.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(HonesError, match=r"layer 1: mlp.experts .* quantised \(float8_e4m3fn \[4, 32, 24\]\)"):
        find_anatomy(packed)
    shared = copy.deepcopy(loaded("Qwen2-MoE").model)
    down = blocks(shared)[1].shared_expert.down_proj
    down.weight = nn.Parameter(down.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(
        HonesError, match=r"layer 1: mlp\.experts .*: the weights of the shared expert .* are quantised"
    ):
        find_anatomy(shared)
    apart = copy.deepcopy(loaded("Mixtral").model)
    blocks(apart)[0].experts = nn.ModuleList([nn.Linear(32, 32)])
    with pytest.raises(HonesError, match="experts is a ModuleList: not the weights of all experts in one; expected"):
        find_anatomy(apart)


@pytest.mark.parametrize("part", ["experts", "shared_expert"])
def test_a_mixture_that_does_something_else_is_found_out(part: str, loaded: Callable[[str], VLM]) -> None:
    other = copy.deepcopy(loaded("Qwen2-MoE").model)
    getattr(blocks(other)[2], part).register_forward_hook(lambda _, __, out: 1.5 * out)
    with (
        pytest.raises(HonesError, match="a mixture of Qwen2MoeExperts gives other than what its experts write"),
        mask_neurons(other, [(2, 0)]),
    ):
        other(torch.tensor([[5, 6, 7]]))


def test_a_head_changes_which_experts_are_chosen(loaded: Callable[[str], VLM]) -> None:
    """Its replacement reaches z through the router too."""
    vlm = loaded("Mixtral")
    encoded = asked(vlm)
    base = activations(vlm, encoded)
    switched = 0
    for head in range(4):
        with replace_heads(vlm.model, [(1, head)]):
            found = activations(vlm, encoded)
        assert torch.equal(found[:, 0], base[:, 0]) and not torch.equal(found[:, 1], base[:, 1])
        switched += int(((found[:, 1:] == 0) != (base[:, 1:] == 0)).any())
    assert switched > 0
