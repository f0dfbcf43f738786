"""Places are where they are said to be, replacements count, and no hook is left."""

from collections.abc import Callable

import pytest
import torch
from helpers import encoded_probe
from torch import Tensor, nn

from hones.models.anatomy import Anatomy
from hones.models.capture import (
    ATTENTION,
    DOWN_PROJ,
    ENTERING,
    FFN,
    GATE,
    HEADS,
    LEAVING,
    O_PROJ,
    Place,
    Z,
    capture,
    collect,
    forward_is,
)
from hones.models.vlm import VLM

PLACES = (ENTERING, HEADS, O_PROJ, ATTENTION, GATE, Z, DOWN_PROJ, FFN, LEAVING)


def hooks(vlm: VLM) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.model.modules())


@torch.no_grad()
def run(vlm: VLM) -> Tensor:
    return vlm.logits(encoded_probe(vlm))


def all_places(vlm: VLM) -> dict[int, dict[int, Tensor]]:
    """By the place's number and the layer's."""
    seen: dict[int, dict[int, Tensor]] = {}
    for number, place in enumerate(PLACES):
        with collect(vlm.anatomy, place) as seen[number]:
            run(vlm)
    return seen


def test_every_place_holds_what_its_name_says(vlm: VLM) -> None:
    entering, heads, projected, attention, gate, z, written, ffn, leaving = all_places(vlm).values()
    for number, layer in enumerate(vlm.anatomy.layers):
        assert torch.equal(projected[number], layer.o_proj(heads[number])) and torch.equal(
            projected[number], attention[number]
        )
        assert torch.equal(written[number], layer.down_proj(z[number])) and torch.equal(written[number], ffn[number])
        assert gate[number].shape == z[number].shape
        torch.testing.assert_close(leaving[number], entering[number] + attention[number] + ffn[number])
        if number:
            assert torch.equal(entering[number], leaving[number - 1])


@pytest.mark.parametrize("place", [ENTERING, HEADS, Z, LEAVING], ids=["entering", "heads", "z", "leaving"])
def test_what_is_returned_takes_its_place_in_these_layers_alone(vlm: VLM, place: Place) -> None:
    plain = run(vlm)
    with collect(vlm.anatomy, LEAVING) as before:
        run(vlm)
    with capture(vlm.anatomy, place, lambda _, x: 2 * x, [1]), collect(vlm.anatomy, LEAVING) as after:
        assert not torch.equal(run(vlm), plain)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    assert torch.equal(run(vlm), plain)


def fails(_: int, x: Tensor) -> Tensor:
    raise ArithmeticError


def test_no_hook_is_left_after_an_error(vlm: VLM) -> None:
    run(vlm)  # transformers places some of its own with the first pass
    others = hooks(vlm)
    for place in PLACES:
        with pytest.raises(ArithmeticError), capture(vlm.anatomy, place, fails):
            run(vlm)
    assert hooks(vlm) == others


def test_a_place_that_a_later_layer_lacks_leaves_no_hook(vlm: VLM) -> None:
    def last_is_missing(layer: object) -> nn.Module:
        if layer is vlm.anatomy.layers[-1]:
            raise AttributeError
        return vlm.anatomy.layers[0].block

    others = hooks(vlm)
    with pytest.raises(AttributeError), collect(vlm.anatomy, Place(last_is_missing, enters=True)):
        pass
    assert hooks(vlm) == others


def test_a_forward_is_put_back(vlm: VLM) -> None:
    anatomy: Anatomy = vlm.anatomy
    mlp = anatomy.layers[0].mlp
    nothing: Callable[[Tensor], Tensor] = torch.zeros_like
    with collect(anatomy, FFN) as ffn, forward_is(mlp, nothing):
        run(vlm)
    assert not ffn[0].any() and ffn[1].any()
    assert "forward" not in vars(mlp)
