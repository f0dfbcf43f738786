"""Gemma 4 with experts: they stand beside a dense FFN, a norm follows each of both, and one their sum.

What is expected is written here from the family's own weights.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_text_models import capitals, own_answers
from text_models import TEXT_FAMILIES
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from hones import HonesError, attach, load_items, load_vlm, mask_neurons, scale_neurons, verify
from hones.method.steering.settings import Scales
from hones.models.capture import FFN, Z, collect
from hones.models.interventions import BASELINE, Intervention, keep_neurons, scaling
from hones.models.mixtures import Experts
from hones.models.normed import NormedProjection
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, readout_of, written
from hones.runs.plan.shapes import shapes_of, weightless
from hones.sharing.export import export_scales
from hones.sweep.forward import Forward
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.replay import Replay
from hones.tasks.log_probability import LogProbability

PROMPTS = ("What?", "What is the capital of Peru?", "Say where the river Nile ends, in one word.")
LAYOUT = Experts(4, 12, 24)
SITES = [(0, 3), (0, 13), (0, 4 * 12), (1, 30), (2, 5), (2, 4 * 12 + 7), (2, LAYOUT.neurons - 1)]
SCALES = dict(zip(SITES, (0.5, -0.75, 2.0, -3.0, 1.5, 4.0, -1.0), strict=True))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load_vlm(str(TEXT_FAMILIES["Gemma 4 with experts"](tmp_path_factory.mktemp("normed") / "model")))


def asked(vlm: VLM) -> Encoded:
    return vlm.encode([None] * len(PROMPTS), PROMPTS)


def residuals(vlm: VLM, encoded: Encoded) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of every layer: the residual before the FFN, what enters the last norm, and what leaves the layer."""
    found = []
    for block in vlm.model.model.layers:  # pyright: ignore
        at: dict[str, Tensor] = {}
        hooks = [
            block.pre_feedforward_layernorm.register_forward_pre_hook(
                lambda _, x, at=at: at.update(before=x[0].clone())
            ),
            block.post_feedforward_layernorm.register_forward_pre_hook(lambda _, x, at=at: at.update(y=x[0].clone())),
            block.register_forward_hook(lambda _, __, out, at=at: at.update(left=out.clone())),
        ]
        with torch.no_grad():
            vlm.logits(encoded)
        for hook in hooks:
            hook.remove()
        found.append((at["before"], at["y"], at["left"]))
    return found


def z_by_hand(block: Any, before: Tensor) -> Tensor:
    """z of the experts, then of the dense FFN."""
    router, experts = block.router, block.experts
    p = linear(router.norm(before) * router.scale * 32**-0.5, router.proj.weight).softmax(-1)
    best = p.topk(2, -1)
    values = best.values / best.values.sum(-1, keepdim=True) * router.per_expert_scale[best.indices]
    w = torch.zeros_like(p).scatter(-1, best.indices, values)
    x = block.pre_feedforward_layernorm_2(before)
    parts = []
    for e in range(4):
        gate, up = linear(x, experts.gate_up_proj[e]).chunk(2, -1)
        parts.append(w[..., e, None] * gelu(gate, approximate="tanh") * up)
    x = block.pre_feedforward_layernorm(before)
    parts.append(gelu(block.mlp.gate_proj(x), approximate="tanh") * block.mlp.up_proj(x))
    return torch.cat(parts, -1)


def y_by_hand(block: Any, z: Tensor) -> Tensor:
    down = block.experts.down_proj
    of_experts: Any = sum(linear(z[..., 12 * e : 12 * e + 12], down[e]) for e in range(4))
    of_dense = block.mlp.down_proj(z[..., 48:])
    return block.post_feedforward_layernorm_2(of_experts) + block.post_feedforward_layernorm_1(of_dense)


def fold(model: Any, factors: dict[tuple[int, int], float]) -> Any:
    """A copy with multiplied columns of each expert's and of the dense down projection."""
    folded = copy.deepcopy(model)
    for (layer, neuron), factor in factors.items():
        block = folded.model.layers[layer]
        if neuron < 48:
            block.experts.down_proj.data[neuron // 12, :, neuron % 12] *= factor
        else:
            block.mlp.down_proj.weight.data[:, neuron - 48] *= factor
    return folded


def test_z_and_the_sum_behind_two_norms(vlm: VLM) -> None:
    encoded = asked(vlm)
    assert {layer.experts for layer in vlm.anatomy.layers} == {LAYOUT} and verify(vlm).failed == []
    with collect(vlm.anatomy, Z) as z, collect(vlm.anatomy, FFN) as added, torch.no_grad():
        vlm.logits(encoded)
    for number, (before, y, _) in enumerate(residuals(vlm, encoded)):
        block = vlm.anatomy.layers[number].block
        with torch.no_grad():
            expected = z_by_hand(block, before)
            torch.testing.assert_close(y_by_hand(block, expected), y, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(z[number], expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(added[number], y), "who only looks changes no bit"


def test_neuron_edits_equal_folded_columns(vlm: VLM) -> None:
    encoded = asked(vlm)
    mask = encoded.inputs["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    kept = [(0, 1), (1, 50), (2, 3)]
    others = {(layer, i) for layer in range(3) for i in range(LAYOUT.neurons)} - {*kept}
    edits: dict[str, Any] = {"mask": (mask_neurons(vlm.model, SITES), dict.fromkeys(SITES, 0.0))}
    edits["scale"] = (scale_neurons(vlm.model, SCALES), {site: 1 + s for site, s in SCALES.items()})
    edits["keep"] = (keep_neurons(vlm.model, kept), dict.fromkeys(others, 0.0))
    with torch.no_grad():
        base = vlm.model(**encoded.inputs, position_ids=positions).logits[mask.bool()]
        for name, (edit, factors) in edits.items():
            folded = fold(vlm.model, factors)
            expected = folded(**encoded.inputs, position_ids=positions).logits[mask.bool()]
            ids = folded.generate(**encoded.inputs, max_new_tokens=6, do_sample=False)
            with edit:
                found = vlm.model(**encoded.inputs, position_ids=positions).logits[mask.bool()]
                answers: Any = vlm.model.generate(**encoded.inputs, max_new_tokens=6, do_sample=False)  # pyright: ignore
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=name)
            assert answers.tolist() == ids.tolist() and (found - base).abs().max() > 1e-2
        assert torch.equal(vlm.model(**encoded.inputs, position_ids=positions).logits[mask.bool()], base)
    projections: Any = [layer.down_proj for layer in vlm.anatomy.layers]
    assert all(down._seen.given == {} and down._seen.shared is None for down in projections), "what was seen is let go"
    assert not any("forward" in vars(module) or module._forward_pre_hooks for module in vlm.model.modules())


def test_contributions_sum_to_what_the_layer_adds(vlm: VLM) -> None:
    """Of all neurons, and of either part: what its norm gives, through the norm behind the sum."""
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    found = contributions(vlm, encoded, readout_of(vlm, u))
    z = activations(vlm, encoded)
    for number, (before, y, left) in enumerate(residuals(vlm, encoded)):
        layer = vlm.anatomy.layers[number]
        block: Any = layer.block
        scalar = float(block.layer_scalar)
        expected = ((left - scalar * before)[:, -1] * u).sum(-1)
        torch.testing.assert_close(found[:, number].sum(-1), expected, atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            of_dense = block.post_feedforward_layernorm_1(block.mlp.down_proj(z[:, number, 48:]))
            rms = (y[:, -1].square().mean(-1, keepdim=True) + block.post_feedforward_layernorm.eps).sqrt()
            through = scalar * of_dense / rms * block.post_feedforward_layernorm.weight
        torch.testing.assert_close(found[:, number, 48:].sum(-1), (through * u).sum(-1), atol=1e-5, rtol=1e-4)
        assert ((z[:, number] == 0) == (written(layer, z[:, number]) == 0)).all() and (z[:, number, :48] == 0).any()


def test_all_engines_give_the_same_cells(vlm: VLM, tmp_path: Path) -> None:
    task = capitals()
    examples = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))[0][:3]
    edits = [BASELINE, *(Intervention(heads=frozenset({(layer, h)})) for layer in range(3) for h in (0, 3))]
    edits += [Intervention(masked=frozenset({site})) for site in SITES] + [Intervention(scales=SCALES)]
    edits += [Intervention(scales={(layer, i): -6.0 for i in range(LAYOUT.neurons)}) for layer in range(3)]
    log_p = LogProbability(task)
    members = [(log_p, log_p.with_gold(example)) for example in examples]
    naive = np.stack(Naive(vlm, 4, 4).statistics(members, edits))
    for engine in (Replay(vlm, max_new_tokens=4, plan=make_plan(vlm, 64, 4)), Forward(vlm, 4, 4)):
        found = np.stack(engine.statistics(members, edits))
        np.testing.assert_allclose(found, naive, rtol=0, atol=1e-4, err_msg=type(engine).__name__)
    assert (np.abs(naive[:, 1:] - naive[:, :1]) > 1e-3).any((0, 2)).sum() >= 12


def test_a_learned_scale_has_the_gradient_of_its_column(vlm: VLM) -> None:
    encoded = asked(vlm)
    sites = {2: torch.tensor([5, 17, 48, 60])}
    scales = {2: torch.zeros(4, requires_grad=True)}
    with scaling(vlm.anatomy, sites, scales):
        vlm.logits(encoded, 1).square().sum().backward()
    down: Any = copy.deepcopy(vlm.model)
    down(
        **encoded.inputs, logits_to_keep=1, position_ids=(encoded.inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    )
    down.requires_grad_(True)
    positions = (encoded.inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    down(**encoded.inputs, logits_to_keep=1, position_ids=positions).logits.square().sum().backward()
    block = down.model.layers[2]
    of_experts = (block.experts.down_proj * block.experts.down_proj.grad).sum(1).flatten()
    of_dense = (block.mlp.down_proj.weight * block.mlp.down_proj.weight.grad).sum(0)
    expected = torch.cat([of_experts, of_dense])[sites[2]].detach()
    assert scales[2].grad is not None and (expected != 0).any()
    torch.testing.assert_close(scales[2].grad, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_a_merged_export_gives_what_scaling_does(vlm: VLM, tmp_path: Path) -> None:
    done = export_scales(vlm, Scales(SCALES), tmp_path / "out", format="merged")
    assert done.manifest.check is not None and done.manifest.check.effect > 1e-3


@pytest.mark.parametrize("part", ["experts", "post_feedforward_layernorm"])
def test_what_does_something_else_is_found_out(part: str, vlm: VLM) -> None:
    other: Any = copy.deepcopy(vlm.model)
    block = other.model.layers[1]
    if part == "experts":
        block.experts.register_forward_hook(lambda _, __, out: nn.functional.relu(out))
    else:
        block.post_feedforward_layernorm.register_forward_pre_hook(lambda _, args: (args[0] + 1,))
    with (
        pytest.raises(HonesError, match="a mixture of Gemma4TextExperts gives other than what its experts write"),
        mask_neurons(other, [(1, 0)]),
        torch.no_grad(),
    ):
        other(torch.tensor([[5, 6, 7]]))


def test_half_precision_is_served(vlm: VLM) -> None:
    model = copy.deepcopy(vlm.model).bfloat16()
    model.set_experts_implementation("eager")  # others want widths that are multiples of 8
    assert verify(attach("half", model, vlm.tokenizer)).failed == []


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_implementation_of_experts_is_edited_alike(implementation: str, vlm: VLM) -> None:
    encoded = asked(vlm)
    with mask_neurons(vlm.model, SITES), torch.no_grad():
        expected = vlm.logits(encoded, 1)
    model = copy.deepcopy(vlm.model)
    model.set_experts_implementation(implementation)
    positions = (encoded.inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with mask_neurons(model, SITES), torch.no_grad():
        found = model(**encoded.inputs, position_ids=positions, logits_to_keep=1).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_plan_counts_the_dense_ffn_and_the_experts_that_are_chosen(vlm: VLM) -> None:
    ffn = shapes_of(weightless(vlm.name), "float32").ffn
    assert ffn.weights == 3 * 32 * 24 + 4 * 32 + 2 * 3 * 32 * 12, "the router reads all"


def test_each_layer_has_the_projection_of_both(vlm: VLM) -> None:
    assert all(isinstance(layer.down_proj, NormedProjection) and layer.ffn_enters for layer in vlm.anatomy.layers)
    with pytest.raises(HonesError, match=r"no neuron \(0, 72\)"), mask_neurons(vlm.model, [(0, 72)]):
        pass
