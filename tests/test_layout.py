"""Layouts of picture tokens, proven on every family's own files; and that a wrong one is not believed."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from by_hand_models import BY_HAND, load_family
from family_models import FAMILIES
from PIL import Image
from transformers import PreTrainedModel
from transformers.utils import is_torchvision_available

from hones import load_vlm
from hones.data.shapes.scene import draw, make_scene
from hones.models import layout as of_layout
from hones.models import layout_forms
from hones.models.layout import AGREEING, CERTAIN, Layout, NoLayout, codes, find_layout
from hones.models.view import View, cells_of
from hones.models.vlm import VLM

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's own processor
PICTURE = draw(make_scene("layout/0"))
WIDE = PICTURE.resize((96, 48))
EXPECTED = {
    "LLaVA-1.5": [(8, 8)],
    "LLaVA-NeXT": [(4, 4), (4, 8)],
    "LLaVA-OneVision": [(4, 4), (4, 8)],
    "Pixtral in LLaVA": [(2, 4)],
    "Mistral 3": [(2, 2)],
    "Qwen2-VL": [(5, 9)],
    "Qwen2.5-VL": [(5, 9)],
    "Qwen3-VL": [(5, 9)],
    "GLM-4V": [(3, 6)],
    "InternVL": [(2, 2), (4, 8)],
    "Idefics3": [(2, 2)],
    "SmolVLM": [(2, 2)],
    "Janus": [(4, 4)],
    "Aya Vision": [(2, 2), (4, 8)],
    "Gemma 3": [(2, 2)],
    "PaliGemma": [(4, 4)],
    "Mllama": None,
    "Qwen3-VL-MoE": [(5, 9)],
    "GLM-4V-MoE": [(3, 6)],
    "Molmo 2": [(2, 2), (2, 2)],
    "Phi-4 multimodal": [(2, 2), (2, 2)],
    "Llama 4": [(2, 2)],
}
"""The views of a picture twice as wide as high; of Mistral 3, which would make only two tokens of it, of a square."""
if is_torchvision_available():  # the families' own image processors cut more crops than their stand-ins
    EXPECTED |= {
        "Molmo 2": [(2, 2), (3, 5)],
        "Phi-4 multimodal": [(16, 16), (8, 16)],
        "Llama 4": [(2, 2), (4, 6)],
    }


def keep_places_apart(model: PreTrainedModel) -> None:
    """Let the vision part add little to each patch: a random one forgets where a patch stood, no trained one does."""
    for name, parameter in model.named_parameters():
        of_vision = any(word in name for word in ("vision", "visual", "image_embed"))
        writes = ("o_proj.weight", "out_proj.weight", "down_proj.weight", "fc2.weight")
        if of_vision and name.endswith(writes):
            parameter.data *= 0.1


def built(family: str, folder: Path) -> VLM:
    """A small random model of a family."""
    vlm = load_family(family, folder)
    keep_places_apart(vlm.model)
    return vlm


def moved_by(vlm: VLM, picture: Image.Image, view: View, row: int, column: int) -> np.ndarray:
    """How far each token moves when the pixels of one cell change to white or black."""
    pixels = np.asarray(picture).copy()
    left, top, right, bottom = view.box
    rows = cells_of(picture.height, top, bottom, view.tokens.shape[0]) == row
    columns = cells_of(picture.width, left, right, view.tokens.shape[1]) == column
    cell = rows[:, None] & columns
    pixels[cell] = np.where(pixels[cell] < 128, 255, 0)
    probe = of_layout._Probe(vlm, picture)
    return (probe.embeddings([pixels]) - probe.of_plain).norm(dim=-1)[0].numpy()


FAST = ("LLaVA-NeXT", "Pixtral in LLaVA", "InternVL", "Mllama", "Molmo 2", "Phi-4 multimodal")  # one of each form


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in EXPECTED]
)
def test_pixels_of_a_region_move_the_tokens_that_stand_for_it(family: str, tmp_path: Path) -> None:
    vlm = built(family, tmp_path / "model")
    expected = EXPECTED[family]
    picture = PICTURE if family == "Mistral 3" else WIDE
    if expected is None:
        with pytest.raises(NoLayout, match="picture tokens in its prompt: 1; expected 4 or more"):
            find_layout(vlm, picture)
        return
    found = find_layout(vlm, picture)
    assert [view.tokens.shape for view in found.views] == expected and found.agreeing >= CERTAIN
    used = np.concatenate([view.tokens.ravel() for view in found.views])
    assert len({*used.tolist()}) == len(used) <= len(found.positions), "a token stands in one place"
    view = found.views[-1]
    inside = np.argwhere(view.in_picture())
    for row, column in (inside[0], inside[len(inside) // 3], inside[-1]):
        moved = moved_by(vlm, picture, view, row, column)[view.tokens]
        assert np.unravel_index(moved.argmax(), moved.shape) == (row, column)


def test_every_family_is_looked_at() -> None:
    assert {*EXPECTED} == {*FAMILIES, *BY_HAND}


@pytest.mark.parametrize(
    ("rows", "columns", "size", "box"),
    [
        (2, 3, (96, 48), (0, 0, 1, 64 / 48)),  # as wide as three tiles
        (2, 3, (70, 40), (0, 0, 96 / 70, 64 / 40)),  # it fits, and is not made larger
        (2, 2, (200, 100), (0, 0, 1, 2)),  # too large
        (1, 1, (8, 4), (0, 0, 1, 2)),  # made as large as one tile
    ],
)
def test_tiles_may_be_padded_right_and_below(
    rows: int, columns: int, size: tuple[int, int], box: tuple[float, ...]
) -> None:
    """As Llama 4's image processor places a picture that keeps its shape."""
    vlm: Any = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(image_size=32)))
    )
    assert layout_forms._unstretched(vlm, rows, columns, size) == pytest.approx(box)


def test_the_whole_of_phi_4_covers_what_its_crops_were_padded_with() -> None:
    assert layout_forms._padded(8, 16, 16) == (0, 0, 1, 2)
    assert layout_forms._padded(16, 24, 16) == (0, 0, 32 / 24, 1)


def wrong(layout: Layout) -> Iterator[tuple[str, View]]:
    tokens = layout.places.tokens
    rows, columns = tokens.shape
    yield "upside down", View(tokens[::-1])
    yield "mirrored", View(tokens[:, ::-1])
    yield "transposed", View(tokens.reshape(columns, rows).T)
    yield "shifted by a column", View(np.roll(tokens, 1, 1))
    yield "in windows", View(tokens[: rows // 2 * 2].reshape(-1, columns, 2).transpose(0, 2, 1).reshape(-1, columns))
    yield "at random", View(np.random.default_rng(0).permutation(tokens.ravel()).reshape(rows, columns))


def test_no_wrong_layout_is_believed(vlm: VLM) -> None:
    check_no_wrong_layout(vlm)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-llava", "tiny-qwen2.5-vl"])
def test_no_wrong_layout_of_a_trained_model_is_believed(name: str) -> None:
    check_no_wrong_layout(load_vlm(name))


def check_no_wrong_layout(vlm: VLM) -> None:
    found = find_layout(vlm, PICTURE)
    assert found.agreeing >= CERTAIN
    probe = of_layout._Probe(vlm, PICTURE)
    for kind, view in wrong(found):
        assert probe.agreement(view) < AGREEING / 2, kind


def test_a_vision_part_that_forgets_places_is_refused(vlms: dict[str, VLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens as one: no map, and one line that says what was tried."""
    embeddings = of_layout._Probe.embeddings
    monkeypatch.setattr(
        of_layout._Probe, "embeddings", lambda *args: embeddings(*args).mean(1, keepdim=True).expand(-1, 64, -1)
    )
    with pytest.raises(NoLayout, match=r"not known where in the picture its 64 tokens stand; .*found 8 x 8: \d+%"):
        find_layout(vlms["llava"], PICTURE)


def test_what_the_processor_cuts_off_has_no_place(vlms: dict[str, VLM]) -> None:
    found = find_layout(vlms["llava"], WIDE)
    assert found.box == (0.25, 0.0, 0.75, 1.0), "the middle, as CLIP's processor crops it"
    assert find_layout(vlms["llava"], WIDE.rotate(90, expand=True)).box == (0.0, 0.25, 1.0, 0.75)


def test_tokens_of_tiles_stand_at_the_places_of_the_whole() -> None:
    whole = View(np.arange(4).reshape(2, 2))
    tiles = View(4 + np.arange(8).reshape(2, 4))
    padded = View(np.arange(4).reshape(4, 1), (0.0, -0.5, 1.0, 1.5))
    found = Layout((whole, tiles), np.arange(10, 23), 1.0)  # one of 13 tokens is a line break
    assert found.places is whole and found.tokens_at() == [[10, 14, 15], [11, 16, 17], [12, 18, 19], [13, 20, 21]]
    assert found.grid([1.0, 2.0, 3.0, 4.0]).tolist() == [[1, 2], [3, 4]] and str(found) == "2 x 2 and 2 x 4"
    of_padded = Layout((padded,), np.arange(4), 1.0)
    assert of_padded.tokens_at() == [[1], [2]], "what stands for borders has no place"
    np.testing.assert_array_equal(of_padded.grid([5.0, 6.0]), [[np.nan], [5], [6], [np.nan]])


@pytest.mark.parametrize(("copies", "cells"), [(4, 4), (96, 97), (96, 576)])
def test_every_cell_is_changed_about_equally_often_and_in_copies_of_its_own(copies: int, cells: int) -> None:
    code = codes(copies, cells)
    often = code.sum(0)
    assert code.shape == (copies, cells) and often.min() >= max(1, often.max() - 2)
    assert len({column.tobytes() for column in code.T}) == cells, "no two cells are told apart otherwise"


def test_a_picture_of_one_colour_will_do(vlms: dict[str, VLM]) -> None:
    for vlm in vlms.values():
        assert find_layout(vlm, Image.new("RGB", (96, 96), (127, 127, 127))).agreeing >= CERTAIN
