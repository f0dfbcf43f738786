"""HunYuan-VL counts pictures through a batch; here each row is placed as it is alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from census_models import load
from packaging.version import Version

from hones import attach
from hones.data.shapes.scene import draw, make_scene
from hones.models.rows import PLACES, by_row, placed_by_row
from hones.models.vlm import VLM

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # GLM's own processor
    pytest.mark.skipif(
        Version(transformers.__version__) < Version("5.23"), reason="its image processor needs torchvision before 5.23"
    ),
]
PROMPTS = ("What?", "Describe the image in one sentence.", "Is it red?")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    folder, known = tmp_path_factory.mktemp("rows"), {}

    def of(model_type: str) -> VLM:
        if model_type not in known:
            known[model_type] = load(model_type, folder / model_type)
        return known[model_type]

    return of


def inputs_of(vlm: VLM) -> dict[str, torch.Tensor]:
    pictures = [draw(make_scene(f"rows/{n}")) for n in range(len(PROMPTS))]
    return vlm.encode(pictures, PROMPTS).inputs


def places(vlm: VLM, place: Callable[..., Any], inputs: dict[str, torch.Tensor]) -> Any:
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    return place(**{name: inputs[name] for name in names})


def test_each_row_is_placed_and_answered_as_alone(loaded: Callable[[str], VLM]) -> None:
    vlm = loaded("hunyuan_vl")
    inputs = inputs_of(vlm)
    owner: Any = vlm.model.base_model
    found, ahead = places(vlm, owner.get_rope_index, inputs)
    of_family, of_family_ahead = places(vlm, type(owner).get_rope_index.__get__(owner), inputs)
    numbers = [found[2, row][inputs["mm_token_type_ids"][row] == 1] for row in range(len(PROMPTS))]
    assert all((number[1:-1] == 0).all() for number in numbers), "the first picture of its row"
    assert torch.equal(found[:, 0], of_family[:, 0]) and torch.equal(ahead, of_family_ahead)
    assert (of_family[2, 2][inputs["mm_token_type_ids"][2] == 1][1:-1] == 2).all(), "the family: the third of the batch"
    assert torch.equal(found[:2], of_family[:2]) and found.shape == of_family.shape
    together = vlm.logits(vlm.encode([draw(make_scene(f"rows/{n}")) for n in range(3)], PROMPTS), 1)
    for row, prompt in enumerate(PROMPTS):
        alone = vlm.logits(vlm.encode([draw(make_scene(f"rows/{row}"))], [prompt]), 1)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


def test_a_model_is_changed_once_and_only_where_rows_differ(loaded: Callable[[str], VLM]) -> None:
    vlm = loaded("hunyuan_vl")
    again = attach("again", vlm.model, vlm.processor)
    first, ahead = places(again, again.model.base_model.get_rope_index, inputs_of(again))  # pyright: ignore
    second, ahead_too = places(vlm, by_row(again.model.base_model.get_rope_index), inputs_of(vlm))  # pyright: ignore
    assert torch.equal(first, second) and torch.equal(ahead, ahead_too)
    other: Any = loaded("glm46v").model
    assert not any(PLACES in vars(module) for module in (other, other.base_model))


def test_a_pass_that_fails_leaves_the_model_as_it_was(loaded: Callable[[str], VLM]) -> None:
    other: Any = loaded("glm46v").model
    with pytest.raises(ValueError, match="stopped"), placed_by_row(other) as changed:
        raise ValueError("stopped")
    assert changed == [] and not any(PLACES in vars(module) for module in (other, other.base_model))
