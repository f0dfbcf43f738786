"""Mixtures of further kinds: experts with biases, with activations of their own, a factor behind the experts' sum.

What is expected is written here from the families' own weights, one expert at a time.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from census_models import build_text
from census_models import load as load_picture_model
from test_text_models import capitals, own_answers
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from hones import HonesError, load_items, load_vlm, mask_neurons, scale_neurons, verify
from hones.data.shapes.scene import draw, make_scene
from hones.models.capture import DOWN_PROJ, FFN, Z, collect
from hones.models.finding import find_anatomy
from hones.models.interventions import BASELINE, Intervention, keep_neurons
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, readout_of
from hones.sweep.forward import Forward
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.replay import Replay
from hones.tasks.log_probability import LogProbability

PROMPTS = ("What?", "What is the capital of Peru?", "Say where the river Nile ends, in one word.")
FAMILIES = ("gpt_oss", "minimax_m3_vl", "step3p7")
OF_ALL = pytest.mark.parametrize("family", FAMILIES)
SIZE = 24


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """Families by name, each built and loaded once."""
    folder, known = tmp_path_factory.mktemp("further"), {}

    def load(family: str) -> VLM:
        if family == "gpt_oss" and family not in known:
            known[family] = load_vlm(str(build_text(family, folder / family)))
        elif family not in known:
            known[family] = load_picture_model(family, folder / family)
        return known[family]

    return load


def asked(vlm: VLM) -> Encoded:
    pictures = [draw(make_scene(f"further/{i}")) if vlm.shows_pictures else None for i in range(len(PROMPTS))]
    return vlm.encode(pictures, PROMPTS)


def mixtures(vlm: VLM, model: Any) -> list[tuple[int, Any]]:
    """The layers that have experts, by their number, and their FFNs."""
    path = next(name for name, module in vlm.model.named_modules() if module is vlm.anatomy.layers[0].block)
    layers = model.get_submodule(path.rpartition(".")[0])
    return [(number, block.mlp) for number, block in enumerate(layers) if hasattr(block.mlp, "experts")]


def weights_of_router(family: str, mlp: Any, x: Tensor) -> Tensor:
    """w [positions, experts], 0 where an expert is not chosen, with every factor."""
    if family == "gpt_oss":
        best = linear(x, mlp.router.weight, mlp.router.bias).topk(2, -1)
        values = best.values.softmax(-1)
        return torch.zeros(len(x), 4).scatter(1, best.indices, values)
    p = linear(x, mlp.gate.weight).sigmoid()
    chosen = (p + mlp.gate.e_score_correction_bias).topk(2, -1).indices
    values = p.gather(1, chosen)
    factor = 2.0 if family == "minimax_m3_vl" else 3.0
    return torch.zeros_like(p).scatter(1, chosen, factor * values / values.sum(-1, keepdim=True))


def glu(gate: Tensor, up: Tensor, limit: float = 7.0) -> Tensor:
    """gpt-oss's, which MiniMax took over."""
    gate = gate.clamp(max=limit)
    return (up.clamp(-limit, limit) + 1) * gate * (1.702 * gate).sigmoid()


def z_by_hand(family: str, mlp: Any, x: Tensor, number: int) -> Tensor:
    """z [positions, neurons] of what enters an FFN."""
    w = weights_of_router(family, mlp, x)
    parts = []
    for e in range(4):
        if family == "gpt_oss":
            both = x @ mlp.experts.gate_up_proj[e] + mlp.experts.gate_up_proj_bias[e]
            z = glu(both[:, ::2], both[:, 1::2])
        else:
            gate, up = linear(x, mlp.experts.gate_up_proj[e]).chunk(2, -1)
            limit = 0.5 if number == 2 else float("inf")
            z = glu(gate, up) if family == "minimax_m3_vl" else silu(gate).clamp(max=limit) * up.clamp(-limit, limit)
        parts.append(w[:, e, None] * z)
    if family == "minimax_m3_vl":
        parts.append(glu(*mlp.shared_experts.gate_up_proj(x).chunk(2, -1)))
    elif family == "step3p7":
        parts.append(silu(mlp.shared_experts.gate_proj(x)) * mlp.shared_experts.up_proj(x))
    return torch.cat(parts, -1)


def biases_by_hand(family: str, mlp: Any, x: Tensor) -> Tensor:
    """What no neuron writes, [positions, d]."""
    if family != "gpt_oss":
        return torch.zeros_like(x)
    return weights_of_router(family, mlp, x) @ mlp.experts.down_proj_bias


def columns_of(family: str, mlp: Any, neuron: int) -> Tensor:
    """The column of one neuron in its expert's own down projection, a view."""
    expert, i = divmod(neuron, SIZE)
    if expert == 4:
        return mlp.shared_experts.down_proj.weight.data[:, i]
    down = mlp.experts.down_proj.data[expert]
    return down[i] if family == "gpt_oss" else down[:, i]


def entering(vlm: VLM, encoded: Encoded) -> dict[int, Tensor]:
    """What enters every mixture, [positions, d]."""
    found: dict[int, Tensor] = {}
    hooks = [
        mlp.register_forward_pre_hook(lambda _, args, n=n: found.__setitem__(n, args[0].flatten(0, 1).clone()))
        for n, mlp in mixtures(vlm, vlm.model)
    ]
    with torch.no_grad():
        vlm.logits(encoded)
    for hook in hooks:
        hook.remove()
    return found


@OF_ALL
def test_z_is_the_experts_times_all_that_weighs_them(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    inputs = entering(vlm, encoded)
    with collect(vlm.anatomy, Z) as z, collect(vlm.anatomy, DOWN_PROJ) as projected, torch.no_grad():
        vlm.logits(encoded)
    with collect(vlm.anatomy, FFN) as added, torch.no_grad():
        vlm.logits(encoded)
    assert inputs
    for number, mlp in mixtures(vlm, vlm.model):
        layer = vlm.anatomy.layers[number]
        with torch.no_grad():
            expected = z_by_hand(family, mlp, inputs[number], number)
            biases = biases_by_hand(family, mlp, inputs[number])
            own = mlp(inputs[number][None])
        own = (own[0] if isinstance(own, tuple) else own)[0]
        found = z[number].flatten(0, 1)[:, : layer.neurons]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert layer.down_proj.in_features == expected.shape[1]
        torch.testing.assert_close(found @ layer.down_proj.weight.T + biases, own, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(projected[number].flatten(0, 1), own, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(added[number].flatten(0, 1), own, atol=1e-5, rtol=1e-4)


@OF_ALL
def test_neuron_edits_equal_folded_columns(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    encoded = asked(vlm)
    base = vlm.logits(encoded)
    of_mixtures = [number for number, _ in mixtures(vlm, vlm.model)]
    first, last = of_mixtures[0], of_mixtures[-1]
    width = vlm.anatomy.layers[last].neurons
    sites = [(first, 3), (first, 5), (first, SIZE + 1), (last, 3 * SIZE + 2), (last, 2), (last, width - 1)]
    scales = dict(zip(sites, (0.5, -0.75, 2.0, -3.0, 1.5, 4.0), strict=True))
    edits: dict[str, Any] = {"mask": (mask_neurons(vlm.model, sites), dict.fromkeys(sites, 0.0))}
    edits["scale"] = (scale_neurons(vlm.model, scales), {site: 1 + s for site, s in scales.items()})
    exists = {(n, i) for n, layer in enumerate(vlm.anatomy.layers) for i in range(layer.neurons)}
    others = {(last, i) for i in range(width) if i != 7}
    edits["keep"] = (keep_neurons(vlm.model, exists - others), dict.fromkeys(others, 0.0))
    for name, (edit, factors) in edits.items():
        folded = copy.deepcopy(vlm.model)
        by_number = dict(mixtures(vlm, folded))
        for (layer, neuron), factor in factors.items():
            columns_of(family, by_number[layer], neuron).mul_(factor)
        with torch.no_grad():
            expected = folded(**encoded.inputs, **positions(encoded), use_cache=False).logits
            with edit:
                found = vlm.model(**encoded.inputs, **positions(encoded), use_cache=False).logits
        real = encoded.inputs["attention_mask"].bool()
        torch.testing.assert_close(found[real], expected[real], atol=1e-4, rtol=1e-4, msg=name)
        assert (found - base)[real].abs().max() > 1e-2
    assert torch.equal(vlm.logits(encoded), base)


def positions(encoded: Encoded) -> dict[str, Tensor]:
    """As the library counts them, padding left out."""
    return {"position_ids": (encoded.inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}


@OF_ALL
def test_contributions_sum_to_what_the_ffn_adds_less_its_biases(family: str, loaded: Callable[[str], VLM]) -> None:
    """Measured at the residual: what leaves a layer, less what leaves it with its FFN's output taken away."""
    vlm = loaded(family)
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    found = contributions(vlm, encoded, readout_of(vlm, u))
    inputs = entering(vlm, encoded)
    for number, mlp in mixtures(vlm, vlm.model):
        left: list[Tensor] = []
        block = vlm.anatomy.layers[number].block
        hooks = [block.register_forward_hook(lambda _, __, out, left=left: left.append(last_of(out)))]
        with torch.no_grad():
            vlm.logits(encoded, 1)
            hooks.append(mlp.register_forward_hook(nothing))
            vlm.logits(encoded, 1)
            biases = biases_by_hand(family, mlp, inputs[number]).unflatten(0, (len(PROMPTS), -1))[:, -1]
        for hook in hooks:
            hook.remove()
        expected = ((left[0] - left[1] - biases) * u).sum(-1)
        torch.testing.assert_close(found[:, number].sum(-1), expected, atol=1e-5, rtol=1e-4)
        assert family != "gpt_oss" or (biases * u).sum(-1).abs().min() > 1e-3
    z = activations(vlm, encoded)
    assert (z == 0).any() and (z != 0).any()


def last_of(output: Any) -> Tensor:
    return (output[0] if isinstance(output, tuple) else output)[:, -1].clone()


def nothing(_: nn.Module, __: Any, out: Any) -> Any:
    return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)


def test_all_engines_give_the_same_cells_where_experts_have_biases(
    loaded: Callable[[str], VLM], tmp_path: Path
) -> None:
    vlm = loaded("gpt_oss")
    assert verify(vlm).engine == "replay"
    task = capitals()
    examples = task.examples(load_items(own_answers(vlm, tmp_path, "discovery")))[0][:3]
    sites = [(0, 3), (0, SIZE + 1), (2, 2 * SIZE + 7), (2, 4 * SIZE - 1)]
    edits = [BASELINE, *(Intervention(heads=frozenset({(layer, h)})) for layer in range(3) for h in (0, 3))]
    edits += [Intervention(masked=frozenset({site})) for site in sites]
    edits += [Intervention(masked=frozenset((1, i) for i in range(4 * SIZE))), Intervention(scales={(2, 5): 3.0})]
    edits += [Intervention(scales={(layer, i): -6.0 for i in range(4 * SIZE)}) for layer in range(3)]
    log_p = LogProbability(task)
    members = [(log_p, log_p.with_gold(example)) for example in examples]
    naive = np.stack(Naive(vlm, 4, 4).statistics(members, edits))
    for engine in (Replay(vlm, max_new_tokens=4, plan=make_plan(vlm, 64, 4)), Forward(vlm, 4, 4)):
        found = np.stack(engine.statistics(members, edits))
        np.testing.assert_allclose(found, naive, rtol=0, atol=1e-4, err_msg=type(engine).__name__)
    assert (np.abs(naive[:, 1:] - naive[:, :1]) > 1e-3).any((0, 2)).sum() >= 12


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_implementation_of_experts_with_biases_is_edited_alike(
    implementation: str, loaded: Callable[[str], VLM]
) -> None:
    vlm = loaded("gpt_oss")
    encoded = asked(vlm)
    sites = [(0, 3), (1, SIZE + 1), (2, 2 * SIZE + 7)]
    with mask_neurons(vlm.model, sites), torch.no_grad():
        expected = vlm.logits(encoded, 1)
    model = copy.deepcopy(vlm.model)
    model.set_experts_implementation(implementation)
    with mask_neurons(model, sites), torch.no_grad():
        found = model(**encoded.inputs, **positions(encoded), logits_to_keep=1).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_factor_that_is_not_the_familys_is_found_out(loaded: Callable[[str], VLM]) -> None:
    other: Any = copy.deepcopy(loaded("minimax_m3_vl").model)
    number, mlp = mixtures(loaded("minimax_m3_vl"), other)[-1]
    mlp.experts.register_forward_hook(lambda _, __, out: 1.5 * out)
    with (
        pytest.raises(HonesError, match="a mixture of MiniMaxM3VLExperts gives other than what its experts write"),
        mask_neurons(other, [(number, 0)]),
    ):
        mlp(torch.randn(1, 3, 32))


def test_experts_of_which_no_z_can_be_made_are_one_line(loaded: Callable[[str], VLM]) -> None:
    """An activation that is not to be had, and a forward that is given something else."""

    class Other(nn.Module):
        def __init__(self, of: Any) -> None:
            super().__init__()
            self.up_proj, self.down_proj = of.gate_up_proj, of.down_proj

        def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor, more: Tensor) -> Tensor:
            return hidden

    other: Any = copy.deepcopy(loaded("minimax_m3_vl").model)
    _, mlp = mixtures(loaded("minimax_m3_vl"), other)[-1]
    mlp.experts = Other(mlp.experts)
    with pytest.raises(
        HonesError, match=r"experts is a Other: its activation is no part of it that could be run alone"
    ):
        find_anatomy(other)
    mlp.experts.act_fn = nn.SiLU()
    with pytest.raises(HonesError, match=r"experts is a Other: its forward takes 4 inputs"):
        find_anatomy(other)
