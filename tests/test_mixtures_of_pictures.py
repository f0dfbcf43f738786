"""ERNIE 4.5 VL: experts for text and others for a picture's tokens, beside a shared one.

z by hand is made from the family's own weights, a token at a time by its type.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from census_models import load
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from hones import HonesError, mask_neurons, scale_neurons, verify
from hones.data.shapes.scene import draw, make_scene
from hones.models.capture import FFN, Z, collect
from hones.models.finding import find_anatomy
from hones.models.interventions import Intervention
from hones.models.mixtures import Experts
from hones.models.vlm import VLM, Encoded
from hones.models.writing import activations, contributions, readout_of
from hones.sharing.formats import merged_weights
from hones.sweep.engines import last_logits
from hones.sweep.forward import Forward
from hones.tasks.base import Example

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own processor
PROMPTS = ("What?", "Describe the image in one sentence, with the colour and the place of every thing.")
LAYOUT = Experts(4, 24, 24, (4, 12))
SEEING = range(4 * 24, 4 * 36)
SITES = [(1, 3), (1, 25), (1, 4 * 24 + 1), (2, 4 * 24 + 13), (2, 4 * 36 - 1), (2, 4 * 36), (2, LAYOUT.neurons - 1)]
SCALES = dict(zip(SITES, (0.5, -0.75, 2.0, -3.0, 1.5, 4.0, -1.0), strict=True))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load("ernie4_5_vl_moe", tmp_path_factory.mktemp("pictures") / "model")


def asked(vlm: VLM) -> Encoded:
    return vlm.encode([draw(make_scene(f"pictures/{i}")) for i in range(len(PROMPTS))], PROMPTS)


def sparse(model: Any) -> list[tuple[int, Any]]:
    """The layers that are mixtures."""
    layers = model.model.language_model.layers
    return [(number, block.mlp) for number, block in enumerate(layers) if hasattr(block.mlp, "vision_moe")]


def inputs_of(vlm: VLM, encoded: Encoded) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """What enters every mixture, whose tokens are a picture's, and what it gives; positions of all rows in one."""
    found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def keep(number: int) -> Any:
        return lambda _, args, out: found.__setitem__(
            number, (args[0].flatten(0, 1).clone(), args[1].flatten() > 0, out[0].flatten(0, 1).clone())
        )

    hooks = [mlp.register_forward_hook(keep(number)) for number, mlp in sparse(vlm.model)]
    with torch.no_grad():
        vlm.logits(encoded)
    for hook in hooks:
        hook.remove()
    return found


def z_by_hand(mlp: Any, x: Tensor, seeing: Tensor) -> Tensor:
    parts = []
    for part, here in ((mlp.text_moe, ~seeing), (mlp.vision_moe, seeing)):
        p = linear(x, part.gate.weight).softmax(-1)
        best = (p + part.gate.moe_statics.e_score_correction_bias).topk(2, -1).indices
        values = p.gather(1, best)
        w = torch.zeros_like(p).scatter(1, best, values / values.sum(-1, keepdim=True)) * here[:, None]
        for e in range(4):
            gate, up = linear(x, part.experts.gate_up_proj[e]).chunk(2, -1)
            parts.append(w[:, e, None] * silu(gate) * up)
    shared = mlp.shared_experts
    parts.append(silu(shared.gate_proj(x)) * shared.up_proj(x))
    return torch.cat(parts, -1)


def fold(model: Any, factors: dict[tuple[int, int], float]) -> Any:
    """A copy with multiplied columns of each expert's own down projection."""
    folded = copy.deepcopy(model)
    by_number = dict(sparse(folded))
    for (layer, neuron), factor in factors.items():
        mlp = by_number[layer]
        if neuron < 4 * 24:
            mlp.text_moe.experts.down_proj.data[neuron // 24, :, neuron % 24] *= factor
        elif neuron < 4 * 36:
            mlp.vision_moe.experts.down_proj.data[(neuron - 96) // 12, :, (neuron - 96) % 12] *= factor
        else:
            mlp.shared_experts.down_proj.weight.data[:, neuron - 144] *= factor
    return folded


def test_every_neuron_is_of_one_expert() -> None:
    assert LAYOUT.neurons == 4 * 24 + 4 * 12 + 24
    of = [LAYOUT.of(neuron) for neuron in range(LAYOUT.neurons)]
    assert [of.count(expert) for expert in range(9)] == [24] * 4 + [12] * 4 + [24] and of == sorted(of)
    for expert in range(9):
        assert [*LAYOUT.neurons_of(expert)] == [neuron for neuron, found in enumerate(of) if found == expert]


def test_z_is_that_of_the_experts_of_a_tokens_type(vlm: VLM) -> None:
    encoded = asked(vlm)
    assert [layer.experts for layer in vlm.anatomy.layers] == [None, LAYOUT, LAYOUT]
    inputs = inputs_of(vlm, encoded)
    with collect(vlm.anatomy, Z) as z, collect(vlm.anatomy, FFN) as added, torch.no_grad():
        vlm.logits(encoded)
    for number, mlp in sparse(vlm.model):
        x, seeing, own = inputs[number]
        assert seeing.any() and not seeing.all()
        with torch.no_grad():
            expected = z_by_hand(mlp, x, seeing)
        found = z[number].flatten(0, 1)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
        of_pictures = found[:, SEEING.start : SEEING.stop]
        assert (of_pictures[~seeing] == 0).all() and (found[:, : SEEING.start][seeing] == 0).all()
        assert (of_pictures[seeing] != 0).any(1).all()
        torch.testing.assert_close(found @ vlm.anatomy.layers[number].down_proj.weight.T, own, atol=1e-5, rtol=1e-4)
        assert torch.equal(added[number].flatten(0, 1), own), "who only looks changes no bit"


def test_neuron_edits_equal_folded_columns(vlm: VLM) -> None:
    """In logits and in answers, whose tokens are all text."""
    encoded = asked(vlm)
    real = encoded.inputs["attention_mask"].bool()
    edits: dict[str, Any] = {"mask": (mask_neurons(vlm.model, SITES), dict.fromkeys(SITES, 0.0))}
    edits["scale"] = (scale_neurons(vlm.model, SCALES), {site: 1 + s for site, s in SCALES.items()})
    of_pictures = {(2, i): 0.0 for i in SEEING}
    edits["a picture's alone"] = (mask_neurons(vlm.model, [*of_pictures]), of_pictures)
    with torch.no_grad():
        base = vlm.model(**encoded.inputs).logits[real]
        for name, (edit, factors) in edits.items():
            folded = fold(vlm.model, factors)
            expected = folded(**encoded.inputs).logits[real]
            ids = folded.generate(**encoded.inputs, max_new_tokens=4, do_sample=False)
            with edit:
                found = vlm.model(**encoded.inputs).logits[real]
                answers: Any = vlm.model.generate(**encoded.inputs, max_new_tokens=4, do_sample=False)  # pyright: ignore
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=name)
            assert answers.tolist() == ids.tolist() and (found - base).abs().max() > 1e-2
        assert torch.equal(vlm.model(**encoded.inputs).logits[real], base)


def test_contributions_sum_to_what_the_ffn_adds(vlm: VLM) -> None:
    encoded = asked(vlm)
    u = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 32), dim=-1)
    found = contributions(vlm, encoded, readout_of(vlm, u)).sum(-1)
    for number, (_, _, own) in inputs_of(vlm, encoded).items():
        last = own.unflatten(0, (len(PROMPTS), -1))[:, -1]
        torch.testing.assert_close(found[:, number], (last * u).sum(-1), atol=1e-5, rtol=1e-4)
    assert (activations(vlm, encoded)[:, 1:, SEEING.start : SEEING.stop] == 0).all(), "a prompt ends in text"


def test_passes_of_the_decoder_give_the_edited_models_logits(vlm: VLM, tmp_path: Path) -> None:
    assert verify(vlm).failed == []
    examples = []
    for number, prompt in enumerate(PROMPTS):
        draw(make_scene(f"pictures/{number}")).save(tmp_path / f"{number}.png")
        examples.append(Example(str(number), tmp_path / f"{number}.png", (prompt,), "red", ("red",)))
    edits = [Intervention(masked=frozenset({site})) for site in SITES] + [Intervention(scales=SCALES)]
    edits += [Intervention(heads=frozenset({(layer, 1)})) for layer in range(3)]
    expected = last_logits(vlm, examples, edits)
    found = Forward(vlm, 4, 2).last_logits(examples, edits)
    torch.testing.assert_close(found.to(expected), expected, atol=1e-4, rtol=1e-4)
    base = vlm.logits(asked(vlm), 1)[:, 0]
    assert ((expected - base).abs().amax((1, 2)) > 1e-3).sum() >= 9


def test_a_merged_export_scales_the_columns_of_each_part(vlm: VLM) -> None:
    expected = fold(vlm.model, {site: 1 + s for site, s in SCALES.items()}).state_dict()
    written = merged_weights(vlm, SCALES)
    assert len(written) == 6, "three parts of two layers"
    for name, weight in written.items():
        torch.testing.assert_close(weight, expected[name])


def test_a_part_that_gives_something_else_is_found_out(vlm: VLM) -> None:
    other: Any = copy.deepcopy(vlm.model)
    sparse(other)[-1][1].vision_moe.experts.register_forward_hook(lambda _, __, out: 1.5 * out)
    with (
        pytest.raises(
            HonesError, match="a mixture of Ernie4_5_VLMoeMoeExperts gives other than what its experts write"
        ),
        mask_neurons(other, [(2, 0)]),
        torch.no_grad(),
    ):
        other(**asked(vlm).inputs)
    sparse(other)[0][1].vision_moe.experts = nn.ModuleList([nn.Linear(32, 32)])
    with pytest.raises(
        HonesError, match=r"layer 1: mlp\.experts is a ModuleList: not the weights of all experts in one"
    ):
        find_anatomy(other)
