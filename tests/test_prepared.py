"""Items are checked once for all stages, and again when a picture changes."""

from pathlib import Path

import pytest
from PIL import Image

import hones.runs.stage
from hones import HonesError, RunFolder, Study, load_items, make_task, write_shapes
from hones.models.vlm import VLM


def test_items_are_checked_once_until_a_picture_changes(
    vlms: dict[str, VLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = hones.runs.stage.prepare
    monkeypatch.setattr(hones.runs.stage, "prepare", lambda *given: (calls.append(given[-1]), real(*given))[1])
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
