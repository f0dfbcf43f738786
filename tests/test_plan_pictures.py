"""What a picture costs a family whose patches no convolution cuts, and families whose vision part is not known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from census_models import load
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hones import HonesError, load_vlm
from hones.models.vlm import VLM
from hones.runs.plan.pictures import picture_token, picture_work, vision_work
from hones.runs.plan.shapes import shapes_of


@pytest.mark.parametrize("family", ["gemma4", "lfm2_vl"])
def test_the_work_of_patches_that_come_cut_is_what_is_done(family: str, tmp_path: Path) -> None:
    vlm = load(family, tmp_path / "model")
    vlm.model.set_attn_implementation("eager")  # no other attention is counted on a CPU
    planned, positions = picture_work(vlm, shapes_of(vlm, "float32"), 64, 48)
    make: Any = vlm.processor
    encoded = make(images=[[Image.new("RGB", (64, 48))]], text=[vlm.wrap("?")], return_tensors="pt")
    text = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    model: Any = vlm.model
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_image_features(**{key: value for key, value in encoded.items() if key not in text})
    assert planned.flop == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert 1 < positions < encoded["input_ids"].shape[1]


def test_a_patch_sees_those_of_its_own_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = load("lfm2_vl", tmp_path / "model")
    shapes, make = shapes_of(vlm, "float32"), type(vlm.processor).__call__

    def twice(self: Any, *given: Any, **more: Any) -> Any:
        encoded: Any = make(self, *given, **more)
        encoded["pixel_values"] = encoded["pixel_values"].repeat(2, 1, 1)
        return encoded

    one, _ = picture_work(vlm, shapes, 64, 48)
    monkeypatch.setattr(type(vlm.processor), "__call__", twice)
    two, _ = picture_work(vlm, shapes, 64, 48)
    assert one.flop < two.flop <= 2 * one.flop


def test_a_family_that_calls_its_parts_otherwise_stops_in_one_line(tmp_path: Path) -> None:
    """Kosmos-2's processor names no token of a picture."""
    vlm = load("kosmos-2", tmp_path / "model")
    with pytest.raises(HonesError, match=r"cannot count what \S+ makes of a picture \(.*image_token.*\); `hones plan`"):
        picture_work(vlm, shapes_of(vlm, "float32"), 64, 48)


def test_a_vision_part_that_reads_no_patches_is_named() -> None:
    vlm = load_vlm("tiny-llava")
    model = nn.ModuleDict({"tower": nn.Linear(5, 4)})
    object.__setattr__(model, "config", SimpleNamespace(vision_config=SimpleNamespace()))
    anatomy = SimpleNamespace(decoder=nn.Identity(), lm_head=nn.Identity())
    other: Any = SimpleNamespace(model=model, anatomy=anatomy)
    with pytest.raises(HonesError, match="no layer of its vision part reads patches"):
        vision_work(other, shapes_of(vlm, "float32"), torch.zeros(1, 2, 6), 1, 2)


def test_a_picture_token_may_be_an_added_token() -> None:
    vlm: VLM = load_vlm("tiny-llava")
    known = picture_token(vlm)
    held: Any = SimpleNamespace(
        tokenizer=vlm.tokenizer, processor=SimpleNamespace(image_token=vlm.tokenizer.added_tokens_decoder[known])
    )
    assert picture_token(held) == known
