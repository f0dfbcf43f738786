"""Where in the picture: maps against explicit runs, and on the object that decides the answer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand_models import load_family
from helpers import double_inputs, in_double

from hones import HonesError, load_vlm
from hones.data.shapes.scene import Scene, Text, Thing, draw
from hones.errors import HonesWarning
from hones.method.analysis import where_drop
from hones.method.analysis.where import (
    PictureMap,
    activation_map,
    attention_map,
    drop_map,
    layout_of,
    lens_map,
    picture_maps,
)
from hones.method.analysis.where_drop import forward_drops, mean_patch, place_drops, replayed_drops, slow_drops
from hones.models.capture import ENTERING, HEADS, LEAVING, Z, capture, collect
from hones.models.layout import Layout
from hones.models.layout_forms import picture_token
from hones.models.vlm import VLM
from hones.sweep.prompts import Unserved
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example
from hones.tasks.vqa import PROMPT

QUESTION = PROMPT.format(question="What colour is the star?")


@pytest.fixture
def example(shapes: dict[str, Path]) -> Example:
    picture = shapes["test"].parent / "images" / "test_00001.png"
    return Example("x", picture, (QUESTION,), "red star", ("red star",))


@pytest.fixture(scope="module")
def layouts(vlms: dict[str, VLM], shapes: dict[str, Path]) -> dict[str, Layout]:
    picture = shapes["test"].parent / "images" / "test_00001.png"
    return {name: layout_of(vlm, Example("x", picture, (QUESTION,), "", ())) for name, vlm in vlms.items()}


@pytest.fixture
def layout(vlm: VLM, vlms: dict[str, VLM], layouts: dict[str, Layout]) -> Layout:
    return next(layouts[name] for name, one in vlms.items() if one is vlm)


# --- one object in a known cell ---------------------------------------------------------------------------------------

CELLS = ((0, 2, "blue", "square"), (1, 0, "green", "star"))


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen2.5-vl"])
def test_the_answer_hangs_on_the_patches_of_the_only_object(name: str, tmp_path: Path) -> None:
    """The cells of the scene's 2 x 3 grid, 32 pixels a side, tell a transposed or mirrored map from the right one."""
    vlm = load_vlm(name)
    layout = None
    for row, column, colour, shape in CELLS:
        thing = Thing(colour, shape, row, column, 32 * column + 16, 32 * row + 17, 12.5)
        scene = Scene("one", (thing,), Text("AB", 30, 69), None, (0, 0, 0), 235, 225, ((0, 0, 0),), 20)
        picture = tmp_path / f"{shape}.png"
        draw(scene).save(picture)
        prompt = PROMPT.format(question=f"What colour is the {shape}?")
        example = Example("x", picture, (prompt,), colour, (colour,))
        layout = layout or layout_of(vlm, example)
        found = drop_map(vlm, example, layout=layout)
        rows, columns = found.values.shape
        at = divmod(int(np.argmax(found.values)), columns)
        middle = (at[1] + 0.5) * 96 / columns, (at[0] + 0.5) * 96 / rows
        assert abs(middle[0] - thing.x) <= 16 and abs(middle[1] - thing.y) <= 16, f"{shape}: patch {at} of the cell"
        assert found.values.max() > 0


# --- the drop ---------------------------------------------------------------------------------------------------------


def by_hand(vlm: VLM, example: Example, place: list[int], patches: list[int]) -> float:
    """log p with embeddings replaced before they enter the first layer; the answer's tokens added up one by one."""
    encoded = vlm.encode_with_answers([example.open_picture()], [QUESTION], [example.target])
    answer = vlm.gold_ids(QUESTION, example.target)

    def replaced(_: int, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[0, place] = torch.stack([x[0, p] for p in patches]).mean(0)
        return x

    with torch.no_grad(), capture(vlm.anatomy, ENTERING, replaced, [0]):
        logits = vlm.logits(encoded)[0]
    first = len(logits) - len(answer) - 1
    return sum(float(logits[first + k].log_softmax(-1)[token]) for k, token in enumerate(answer))


def test_the_drop_is_that_of_the_model_with_one_patch_replaced(vlm: VLM, layout: Layout, example: Example) -> None:
    places = layout.tokens_at()
    found = drop_map(vlm, example, layout=layout)
    patches = [p for place in places for p in place]
    base = by_hand(vlm, example, [], patches)
    assert found.values.size == len(places) and np.abs(found.values).max() > 0.01
    for number in (0, 7, len(places) - 1):
        expected = base - by_hand(vlm, example, places[number], patches)
        assert found.values.flat[number] == pytest.approx(expected, abs=1e-4)


def test_replay_and_whole_passes_are_the_definition(vlm: VLM, layout: Layout, example: Example) -> None:
    places = layout.tokens_at()
    slow = slow_drops(vlm, example, places)
    np.testing.assert_allclose(replayed_drops(vlm, example, places), slow, atol=1e-5)
    np.testing.assert_allclose(replayed_drops(vlm, example, places, batch_size=5), slow, atol=1e-5)
    np.testing.assert_allclose(forward_drops(vlm, example, places), slow, atol=1e-5)
    joined = [places[3] + places[20], places[1]]  # places of several tokens, out of order
    np.testing.assert_allclose(replayed_drops(vlm, example, joined), slow_drops(vlm, example, joined), atol=1e-5)


@pytest.mark.parametrize("family", ["Gemma 3", "PaliGemma", "Molmo 2", "Phi-4 multimodal"])
def test_families_that_replay_cannot_enter_take_passes_of_their_decoder(
    family: str, tmp_path: Path, example: Example
) -> None:
    vlm = load_family(family, tmp_path / "model")
    ids = vlm.encode([example.open_picture()], [QUESTION]).inputs["input_ids"][0]
    places = [[position] for position in (ids == picture_token(vlm)).nonzero()[:3, 0].tolist()]
    slow = slow_drops(vlm, example, places)
    assert len(places) == 3 and min(map(abs, slow)) > 1e-4
    np.testing.assert_allclose(forward_drops(vlm, example, places), slow, atol=1e-5)
    with pytest.warns(HonesWarning, match=r"no patches by replay \(its decoder is not given embeddings"):
        np.testing.assert_allclose(place_drops(vlm, example, places), slow, atol=1e-5)


def test_in_float64_replay_differs_by_rounding_alone(
    vlms: dict[str, VLM], layouts: dict[str, Layout], example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = in_double(vlms["llava"])
    encode = VLM.encode_with_answers
    monkeypatch.setattr(VLM, "encode_with_answers", lambda *args: double_inputs(encode(*args)))
    plain = VLM.encode
    monkeypatch.setattr(VLM, "encode", lambda *args: double_inputs(plain(*args)))
    places = layouts["llava"].tokens_at()[::9]
    np.testing.assert_allclose(replayed_drops(double, example, places), slow_drops(double, example, places), atol=1e-12)


def test_features_that_are_added_between_layers_are_replaced_too(tmp_path: Path, example: Example) -> None:
    from random_models import save_random_qwen3_vl

    vlm = load_vlm(str(save_random_qwen3_vl(tmp_path / "qwen3")))
    places = [[6], [20], [33]]
    slow = slow_drops(vlm, example, places)
    np.testing.assert_allclose(replayed_drops(vlm, example, places), slow, atol=1e-5)
    encoded = vlm.encode_with_answers([example.open_picture()], [QUESTION], [example.target])
    assert sorted(where_drop._between(vlm, encoded)) == [0, 1]
    entering_alone = by_hand(vlm, example, [], [6, 20, 33]) - by_hand(vlm, example, [20], [6, 20, 33])
    assert abs(entering_alone - slow[1]) > 1e-3


def test_what_is_not_proven_is_not_used(
    vlms: dict[str, VLM], layouts: dict[str, Layout], example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, layout = vlms["llava"], layouts["llava"]
    places = layout.tokens_at()[::13]
    slow = slow_drops(vlm, example, places)

    def wrong(*args: Any, **kwargs: Any) -> list[float]:
        return [0.0] * len(places)

    def unserved(*args: Any, **kwargs: Any) -> list[float]:
        raise Unserved("no embeddings")

    monkeypatch.setattr(where_drop, "replayed_drops", unserved)
    with pytest.warns(HonesWarning, match=r"no patches by replay \(no embeddings\); whole passes of the decoder"):
        assert place_drops(vlm, example, places) == pytest.approx(slow, abs=1e-5)
    monkeypatch.setattr(where_drop, "forward_drops", wrong)
    by_replay = pytest.warns(HonesWarning, match="no patches by replay")
    with by_replay, pytest.warns(HonesWarning, match="its drops differ by .* nats from the model's"):
        assert place_drops(vlm, example, places) == slow
    naive = SweepSettings("naive")
    assert place_drops(vlm, example, places, naive) == slow


def test_the_mean_patch_is_the_mean_over_patches_alone() -> None:
    x = torch.arange(12.0).view(1, 4, 3)
    assert mean_patch(x, [1, 3])[0, 0].tolist() == [6, 7, 8]
    assert mean_patch(x.bfloat16(), [1, 3]).dtype == torch.bfloat16


# --- what is read -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_attention_weights_rebuild_what_the_head_gives(vlm: VLM, layout: Layout, example: Example) -> None:
    """sum over all positions of A(q, s) v(s) is the head's slice of what enters o_proj."""
    layer, head, token = 1, 2, 1
    answer = len(vlm.gold_ids(QUESTION, example.target))
    encoded = vlm.encode_with_answers([example.open_picture()], [QUESTION], [example.target])
    at = encoded.inputs["input_ids"].shape[1] - answer - 1 + token
    anatomy = vlm.anatomy
    values: list[torch.Tensor] = []
    projection = anatomy.layers[layer].attention.get_submodule("v_proj")
    with projection.register_forward_hook(lambda _, __, v: values.append(v[0])), collect(anatomy, HEADS) as heads:
        vlm.logits(encoded, keep=1)
    every = replace(
        layout, views=(replace(layout.views[0], tokens=np.arange(at + 1)[None]),), positions=np.arange(at + 1)
    )
    weights = attention_map(vlm, example, (layer, head), token=token, layout=every).values.ravel()
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    width = anatomy.head_dim
    group = anatomy.heads // (values[0].shape[-1] // width)
    v = values[0][: at + 1, head // group * width : (head // group + 1) * width]
    given = heads[layer][0, at, head * width : (head + 1) * width]
    np.testing.assert_allclose(torch.tensor(weights, dtype=torch.float32) @ v, given, atol=1e-4)


def test_the_models_own_attention_is_back(vlm: VLM, layout: Layout, example: Example) -> None:
    own = vlm.attention
    assert own != "eager"
    found = attention_map(vlm, example, (0, 0), layout=layout)
    assert vlm.attention == own and 0 < found.values.sum() < 1 and (found.values >= 0).all()


@torch.no_grad()
def test_activations_and_lens_are_what_stands_there(vlm: VLM, layout: Layout, example: Example) -> None:
    encoded = vlm.encode_with_answers([example.open_picture()], [QUESTION], [example.target])
    with collect(vlm.anatomy, Z) as z, collect(vlm.anatomy, LEAVING) as residual:
        logits = vlm.logits(encoded)
    answer = vlm.gold_ids(QUESTION, example.target)
    positions = layout.positions
    found = activation_map(vlm, example, (1, 3), layout=layout)
    np.testing.assert_allclose(found.values.ravel(), z[1][0, positions, 3], atol=1e-6)
    last = len(vlm.anatomy.layers) - 1
    found = lens_map(vlm, example, last, token=1, layout=layout)
    of_model = logits[0, positions]  # the lens of the last layer is the model's logits
    np.testing.assert_allclose(found.values.ravel(), of_model[:, answer[1]] - of_model.mean(-1), atol=1e-4)
    first = lens_map(vlm, example, 0, token=1, layout=layout)
    norm: Any = vlm.anatomy.decoder.norm
    of_first = vlm.head(norm(residual[0][0, positions]))
    np.testing.assert_allclose(first.values.ravel(), of_first[:, answer[1]] - of_first.mean(-1), atol=1e-4)


def test_one_call_makes_all_kinds(vlm: VLM, layout: Layout, example: Example) -> None:
    maps = picture_maps(vlm, example, head=(1, 2), neuron=(2, 5), layout=layout)
    assert [one.kind for one in maps] == ["drop", "attention", "lens", "activation"]
    assert {one.values.shape for one in maps} == {layout.places.tokens.shape}
    assert maps[2].title.endswith("after layer 0") and "head 1, 2" in maps[1].title
    assert [one.kind for one in picture_maps(vlm, example, layout=layout)] == ["drop"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v, e, m: attention_map(v, e, (9, 0), layout=m), r"no head \(9, 0\)"),
        (lambda v, e, m: activation_map(v, e, (0, 99), layout=m), r"no neuron \(0, 99\)"),
        (lambda v, e, m: lens_map(v, e, 9, layout=m), r"no layer 9; expected 0 to 2"),
        (lambda v, e, m: lens_map(v, e, 0, token=9, layout=m), "token 9 of the answer 'red star'; expected 0 to"),
        (lambda v, e, m: drop_map(v, replace(e, image=None)), "item x has no picture"),
    ],
)
def test_mistakes_are_one_line(
    vlms: dict[str, VLM], layouts: dict[str, Layout], example: Example, make: Any, message: str
) -> None:
    with pytest.raises(HonesError, match=message):
        make(vlms["llava"], example, layouts["llava"])


# --- in words ---------------------------------------------------------------------------------------------------------


def test_the_strongest_patches_in_words() -> None:
    values = np.array([[0.0, -3.0, np.nan], [1.5, 0.0, 2.0]])
    found = PictureMap("drop", "t", values, "nats")
    assert found.strongest(9) == [(0, 1, -3.0), (1, 2, 2.0), (1, 0, 1.5)]
    assert found.words(1) == "row 0, column 1: -3 (2 x 3 patches, nats)"
    assert PictureMap("drop", "t", values * 0, "nats").words() == "0 everywhere (2 x 3 patches, nats)"
