"""Items are checked once for all stages, and again when a picture changes."""

from pathlib import Path

import pytest
from PIL import Image

import hones.runs.stage
from hones import HonesError, RunFolder, Study, ask, explain, load_items, make_task, write_shapes
from hones.models.context import TOO_LONG, context_of
from hones.models.prompting import REFUSED
from hones.models.vlm import VLM
from hones.runs.prepared import prepare


def test_items_are_checked_once_until_a_picture_changes(
    vlms: dict[str, VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = hones.runs.stage.prepare
    monkeypatch.setattr(hones.runs.stage, "prepare", lambda *given: (calls.append(given[3]), real(*given))[1])
    items = load_items(write_shapes(tmp_path, {"test": 3}, seed=5)["test"])
    study, task = Study(vlms["llava"], RunFolder(tmp_path / "run"), max_left_out=0.4), make_task("vqa")
    first = study.prepare(task, items, "test")
    assert study.prepare(task, items, "test") is first and calls == ["test"]
    assert study.prepare(make_task("ocr"), items, "test") is not first and len(calls) == 2
    picture = items.images / str(items.items[1].file_name)
    Image.new("RGB", (50, 60), "green").save(picture)
    again = study.prepare(task, items, "test")
    assert len(calls) == 3 and again.fingerprint["asked"] != first.fingerprint["asked"]
    picture.unlink()
    assert [item.id for item in study.prepare(task, items, "test").left_out] == [items.items[1].id]
    study.max_left_out = 0.1
    for _ in range(2):
        with pytest.raises(HonesError, match="1 of 3 items cannot be used"):
            study.prepare(task, items, "test")
    assert len(calls) == 4


class Unheard(BaseException):
    """Of no list of types."""


def test_what_the_model_does_not_take_is_the_items_matter_and_one_line_for_a_question(
    vlms: dict[str, VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that its processor refuses with whatever it may raise, a question longer than its context."""
    vlm, task = vlms["llava"], make_task("vqa")
    items = load_items(write_shapes(tmp_path, {"test": 4}, seed=5)["test"])
    banner = items.images / str(items.items[1].file_name)
    Image.new("RGB", (2500, 12)).save(banner)
    long = "Why? " * (context_of(vlm) or 0)
    assert items.items[2].vqa is not None
    vars(items.items[2].vqa)["question"] = long
    prepares = type(vlm.processor.image_processor).preprocess  # pyright: ignore[reportAttributeAccessIssue]

    def preprocess(self: object, images: list[list[Image.Image]], *more: object, **options: object) -> object:
        if any(picture.width == 2500 for of_prompt in images for picture in of_prompt):
            raise Unheard("too wide a picture")
        return prepares(self, images, *more, **options)

    monkeypatch.setattr(type(vlm.processor.image_processor), "preprocess", preprocess)  # pyright: ignore
    found = prepare(vlm, task, items, "test", 24)
    assert [(one.id, one.kind) for one in found.left_out] == [("2", REFUSED), ("3", TOO_LONG)]
    assert "cannot prepare the picture for the model (too wide a picture)" in found.left_out[0].reason
    for asks in (ask, explain):
        with pytest.raises(
            HonesError, match=r"for the model \(too wide a picture\); expected a question and a picture"
        ):
            asks(vlm, banner, "What?")
        with pytest.raises(
            HonesError, match=r"its prompt has [\d,]+ tokens, the model takes [\d,]+ with an answer of 24"
        ):
            asks(vlm, items.images / str(items.items[0].file_name), long)
