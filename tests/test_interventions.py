"""Edits do what their formula says, everywhere they should and nowhere else, and leave no trace."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from helpers import encoded_probe, replaced_by_hand, with_column_factors, with_model, without_head
from torch import Tensor, nn

from hones import HonesError, mask_neurons, replace_heads, scale_neurons
from hones.models.vlm import VLM, Encoded

MASKED = [(0, 3), (0, 7), (2, 19)]
SCALES = {(0, 3): 0.5, (1, 7): -0.75, (2, 19): 1.5}
EDITS: dict[str, Callable[[nn.Module], AbstractContextManager[None]]] = {
    "replace_heads": lambda model: replace_heads(model, [(1, 2), (2, 0)]),  # pyright: ignore[reportArgumentType]
    "mask_neurons": lambda model: mask_neurons(model, MASKED),  # pyright: ignore[reportArgumentType]
    "scale_neurons": lambda model: scale_neurons(model, SCALES),  # pyright: ignore[reportArgumentType]
}


def logits_of(vlm: VLM, encoded: Encoded) -> Tensor:
    with torch.no_grad():
        return vlm.logits(encoded)


def inputs_of(module: nn.Module, vlm: VLM, encoded: Encoded) -> Tensor:
    """The input that `module` really computes with, edits included."""
    seen: list[Tensor] = []
    with_edit = module.register_forward_hook(lambda _, args, out: seen.append(args[0].clone()))
    logits_of(vlm, encoded)
    with_edit.remove()
    return seen[0]


def real(encoded: Encoded) -> Tensor:
    return encoded.inputs["attention_mask"].bool()


@pytest.mark.parametrize("head", [0, 3])
def test_replaced_head_is_the_mean_of_the_others(vlm: VLM, head: int) -> None:
    encoded = encoded_probe(vlm)
    o_proj = vlm.anatomy.layers[1].o_proj
    expected = replaced_by_hand(inputs_of(o_proj, vlm, encoded), vlm.anatomy.heads, head)
    with replace_heads(vlm.model, [(1, head)]):
        found = inputs_of(o_proj, vlm, encoded)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    kept = torch.ones(expected.shape[-1], dtype=torch.bool)
    kept[head * vlm.anatomy.head_dim : (head + 1) * vlm.anatomy.head_dim] = False
    assert torch.equal(found[..., kept], expected[..., kept])


def test_two_heads_are_replaced_by_the_means_before_the_edit(vlm: VLM) -> None:
    encoded = encoded_probe(vlm)
    o_proj, width = vlm.anatomy.layers[1].o_proj, vlm.anatomy.head_dim
    before = inputs_of(o_proj, vlm, encoded)
    with replace_heads(vlm.model, [(1, 0), (1, 2)]):
        found = inputs_of(o_proj, vlm, encoded)
    for head in (0, 2):
        part = slice(head * width, (head + 1) * width)
        expected = replaced_by_hand(before, vlm.anatomy.heads, head)[..., part]
        torch.testing.assert_close(found[..., part], expected, atol=1e-6, rtol=1e-5)


def test_replacement_equals_folded_weights(vlm: VLM) -> None:
    encoded = encoded_probe(vlm)
    folded = with_model(vlm, without_head(vlm.model, 1, 2))
    with replace_heads(vlm.model, [(1, 2)]):
        hooked, text = logits_of(vlm, encoded), vlm.generate(encoded, 8)
    where = real(encoded)
    torch.testing.assert_close(hooked[where], logits_of(folded, encoded)[where], atol=1e-4, rtol=1e-4)
    assert text == folded.generate(encoded, 8)
    assert text != vlm.generate(encoded, 8)


def test_masking_equals_zeroed_columns(vlm: VLM) -> None:
    encoded = encoded_probe(vlm)
    folded = with_model(vlm, with_column_factors(vlm.model, dict.fromkeys(MASKED, 0.0)))
    with mask_neurons(vlm.model, MASKED):
        hooked, text = logits_of(vlm, encoded), vlm.generate(encoded, 8)
    where = real(encoded)
    torch.testing.assert_close(hooked[where], logits_of(folded, encoded)[where], atol=1e-4, rtol=1e-4)
    assert text == folded.generate(encoded, 8)


def test_scaling_equals_scaled_columns(vlm: VLM) -> None:
    encoded = encoded_probe(vlm)
    folded = with_model(vlm, with_column_factors(vlm.model, {k: 1 + s for k, s in SCALES.items()}))
    with scale_neurons(vlm.model, SCALES):
        hooked, text = logits_of(vlm, encoded), vlm.generate(encoded, 8)
    where = real(encoded)
    torch.testing.assert_close(hooked[where], logits_of(folded, encoded)[where], atol=1e-4, rtol=1e-4)
    assert text == folded.generate(encoded, 8)


def test_layers_before_the_edit_are_bit_equal(vlm: VLM) -> None:
    encoded = encoded_probe(vlm)
    down = [layer.down_proj for layer in vlm.anatomy.layers]
    before = [inputs_of(module, vlm, encoded) for module in down]
    with replace_heads(vlm.model, [(1, 0)]):
        after = [inputs_of(module, vlm, encoded) for module in down]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_restored_exactly(vlm: VLM, name: str, fails: bool) -> None:
    encoded = encoded_probe(vlm)
    weights = {k: v.clone() for k, v in vlm.model.state_dict().items()}
    before = logits_of(vlm, encoded)
    try:
        with EDITS[name](vlm.model):
            assert not torch.equal(logits_of(vlm, encoded), before)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert torch.equal(logits_of(vlm, encoded), before)
    assert all(torch.equal(v, weights[k]) for k, v in vlm.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in vlm.model.modules())


@pytest.mark.parametrize("site", [(3, 0), (-1, 0), (0, 4), (0, -1)])
def test_a_head_that_is_not_there_is_an_error_and_places_no_hook(vlm: VLM, site: tuple[int, int]) -> None:
    with (
        pytest.raises(HonesError, match=r"no head .*expected layer < 3 and head < 4"),
        replace_heads(vlm.model, [(0, 0), site]),
    ):
        pass
    assert not any(module._forward_pre_hooks for module in vlm.model.modules())


def test_a_neuron_that_is_not_there_is_an_error(vlm: VLM) -> None:
    with pytest.raises(HonesError, match="no neuron"), mask_neurons(vlm.model, [(0, vlm.anatomy.neurons)]):
        pass
    with pytest.raises(HonesError, match="no neuron"), scale_neurons(vlm.model, {(5, 0): 1.0}):
        pass


def test_small_scales_take_effect_in_bfloat16(vlm: VLM) -> None:
    """1 + 0.003 rounds to 1 in bfloat16; the product of the activation and the factor must not."""
    model = copy.deepcopy(vlm.model).bfloat16()
    half, encoded = with_model(vlm, model), encoded_probe(vlm)
    down = half.anatomy.layers[0].down_proj
    scales = {(0, i): 0.003 for i in range(half.anatomy.neurons)}
    before = inputs_of(down, half, encoded)
    with scale_neurons(model, scales):
        after = inputs_of(down, half, encoded)
    assert torch.equal(after, (before.float() * 1.003).bfloat16())
    assert not torch.equal(after, before)
