"""Items, pictures and the built-in scenes; bad ones are named."""

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hones import HonesError, load_items, make_task, write_shapes
from hones.data.items import LeftOut, check_left_out
from hones.data.pictures import BOX_COLOUR, draw_box, open_picture
from hones.data.shapes import (
    COLOURS,
    SIZE,
    Statement,
    annotate,
    captions,
    describe,
    draw,
    draw_sign,
    holds,
    make_scene,
    make_sign,
    perturb,
    questions,
)
from hones.errors import BadItem
from hones.tasks import TASKS
from hones.tasks.base import with_readable_pictures

REAL_DATA = os.environ.get("HONES_REAL_DATA")


def item(image_id: int = 1, **fields: Any) -> dict[str, Any]:
    return {"image_id": image_id, "image_info": {"file_name": f"{image_id}.png"}, **fields}


def file_with(folder: Path, *items: Any) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps({"data": list(items)}))
    return path


# --- files ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1, 2]", "no list under 'data'"),
        (b'{"data": {}}', "no list under 'data'"),
        (b'{"data": []}', "no usable item"),
        (b'{"data": [3, null]}', "no usable item; expected at least one; first problem: item #0"),
    ],
)
def test_a_file_that_is_not_unified_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(HonesError, match=message) as caught:
        load_items(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HonesError, match=r"no file .*absent\.json"):
        load_items(tmp_path / "absent.json")
    with pytest.raises(HonesError, match=r"no picture folder .*nowhere"):
        load_items(file_with(tmp_path, item()), images=tmp_path / "nowhere")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_row_is_read_or_named(row: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        items = load_items(file_with(Path(folder), item(7), row))
        assert [i.id for i in items.items] == ["7"] and len(items.left_out) == 1 and items.left_out[0].reason


def test_bad_items_are_left_out_by_name(tmp_path: Path) -> None:
    path = file_with(tmp_path, item(1), item(2, ocr={"text": "A", "bbox": [1, 2]}), item(1), {"image_id": 3})
    items = load_items(path)
    assert [i.id for i in items.items] == ["1"]
    assert [(b.id, b.reason.split(":")[0].removesuffix(".2")) for b in items.left_out] == [
        ("2", "ocr.bbox"),
        ("1", "duplicate image_id"),
        ("3", "image_info"),
    ]


def test_ids_and_limit_select(tmp_path: Path) -> None:
    path = file_with(tmp_path, *(item(i) for i in range(5)))
    assert [i.id for i in load_items(path, ids=["3", "1"]).items] == ["1", "3"]
    assert [i.id for i in load_items(path, limit=2).items] == ["0", "1"]
    with pytest.raises(HonesError, match=r"1 of 2 ids are not in .*the first is 9"):
        load_items(path, ids=["3", "9"])


def test_too_many_bad_items_stop_and_are_named() -> None:
    bad = [LeftOut("42", "no captions")]
    check_left_out(bad, 19, "caption")
    with pytest.raises(HonesError, match=r"1 of 19 items cannot be used: 42 \(no captions\); expected at most 5%"):
        check_left_out(bad, 18, "caption")
    check_left_out(bad, 1, "caption", most=0.5)
    with pytest.raises(HonesError, match="0 of 0 items"):
        check_left_out([], 0, "caption")


def test_a_limit_does_not_change_the_candidates(tmp_path: Path) -> None:
    rows = [item(i, captions=[{"caption": f"a picture of thing {i}"}, {"caption": f"thing {i}"}]) for i in range(6)]
    path, task = file_with(tmp_path, *rows), make_task("retrieval", candidates=8)
    whole, limited = (task.examples(load_items(path, limit=n))[0] for n in (None, 2))
    assert limited == whole[:2]


@pytest.mark.skipif(REAL_DATA is None, reason="HONES_REAL_DATA does not point to the real samples")
def test_the_published_sample_is_read_whole() -> None:
    items = load_items(Path(str(REAL_DATA)) / "coco_dev.json")
    assert len(items) == 1333 and not items.left_out
    counts = {name: len(make_task(name).examples(items)[0]) for name in ("vqa", "ocr", "caption", "retrieval")}
    assert counts == {"vqa": 1333, "ocr": 1332, "caption": 1333, "retrieval": 1333}


# --- pictures ---


def test_missing_truncated_and_false_pictures_are_left_out_by_name(shapes: dict[str, Path], tmp_path: Path) -> None:
    examples, _ = make_task("vqa").examples(load_items(shapes["dev"]))
    whole = examples[0].image.read_bytes()
    for example, content in zip(examples, [whole, whole[: len(whole) // 2], b"not a picture", b"", None], strict=True):
        if content is not None:
            (tmp_path / example.image.name).write_bytes(content)
    from dataclasses import replace

    moved = [replace(e, image=tmp_path / e.image.name) for e in examples]
    good, bad = with_readable_pictures(moved)
    assert [e.id for e in good] == [examples[0].id]
    assert [b.id for b in bad] == [e.id for e in examples[1:]]
    assert "no picture" in bad[-1].reason and all("cannot read picture" in b.reason for b in bad[:-1])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (20, 40)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (8, 8)).save(tmp_path / f"x.{suffix}")
    assert open_picture(tmp_path / f"x.{suffix}").mode == "RGB"


def test_the_box_is_an_outline_and_nothing_else() -> None:
    picture = Image.new("RGB", (640, 480), (200, 200, 200))
    boxed = np.asarray(draw_box(picture, (100, 50, 80, 40)))
    changed = (boxed != np.asarray(picture)).any(-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 90, 100, 180)
    assert not changed[53:88, 103:178].any(), "the inside, where the text is, is untouched"
    assert (boxed[changed] == BOX_COLOUR).all() and changed.sum() > 2 * 3 * (80 + 30)
    assert np.asarray(picture).min() == 200, "the original is not drawn on"


def test_a_box_that_does_not_fit_the_picture_is_a_bad_item(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (320, 240)).save(path)
    assert open_picture(path, (10, 10, 20, 20), (322, 238)).size == (320, 240)
    with pytest.raises(BadItem, match=r"annotated for 640x480 pixels, .* has 320x240"):
        open_picture(path, (10, 10, 20, 20), (640, 480))
    with pytest.raises(BadItem, match="lies outside"):
        open_picture(path, (400, 10, 20, 20))


def test_a_limit_counts_only_the_bad_rows_before_its_last_item(tmp_path: Path) -> None:
    path = file_with(tmp_path, item(1), {"image_id": 2}, item(3), {"image_id": 4}, item(5))
    limited = load_items(path, limit=2)
    assert [i.id for i in limited.items] == ["1", "3"] and [b.id for b in limited.left_out] == ["2"]


def test_only_ocr_draws_the_box(discovery) -> None:
    for name in ("vqa", "caption", "retrieval"):
        assert all(e.box is None for e in make_task(name).examples(discovery)[0])
    for e in make_task("ocr").examples(discovery)[0]:
        assert e.box is not None
        pixels = np.asarray(e.open_picture())
        assert (pixels[int(e.box[1]), int(e.box[0])] == BOX_COLOUR).all()


# --- built-in scenes ---


def test_the_same_seed_gives_the_same_pictures_and_annotations(tmp_path: Path) -> None:
    first, second = (write_shapes(tmp_path / name, {"a": 3}, seed=4)["a"] for name in "xy")
    assert first.read_text() == second.read_text()
    for name in ("a_00000.png", "a_00002.png"):
        assert (tmp_path / "x/images" / name).read_bytes() == (tmp_path / "y/images" / name).read_bytes()
    assert write_shapes(tmp_path / "z", {"a": 3}, seed=5)["a"].read_text() != first.read_text()


@given(st.integers(0, 10_000))
def test_annotations_agree_with_the_scene(seed: int) -> None:
    scene = make_scene(f"property/{seed}")
    made = annotate(scene, seed, "x.png")
    rng = random.Random(seed)
    assert len(made["captions"]) == 5 and len(made["retrieval"]["negatives"]) == 49
    assert holds(describe(scene, rng), scene)
    assert not {c["caption"] for c in made["captions"]} & set(made["retrieval"]["negatives"])
    x, y, width, height = made["ocr"]["bbox"]
    assert x >= 0 and y >= 0 and x + width < SIZE and y + height < SIZE
    for kind, question, answer in questions(scene, rng):
        if kind == "colour":
            shape = question.removeprefix("What colour is the ").removesuffix("?")
            assert [t.colour for t in scene.things if t.shape == shape] == [answer]
        if kind == "existence":
            name = question.removeprefix("Is there a ").removesuffix("?")
            assert (answer == "yes") == any(t.name == name for t in scene.things)


@given(st.integers(0, 10_000))
def test_negatives_are_false_of_the_scene(seed: int) -> None:
    """Every negative, parsed back from its text, does not hold."""
    scene = make_scene(f"property/{seed}")
    for text in annotate(scene, seed, "x.png")["retrieval"]["negatives"]:
        relation = next((r for r in ("left of", "right of", "above", "below") if f" {r} " in text), None)
        separators = [f" {relation} "] if relation else [" and ", ", "]
        parts = [text]
        for separator in separators:
            parts = [piece for part in parts for piece in part.split(separator)]
        looks = tuple((words[1], words[2]) for words in (part.split() for part in parts))
        assert not holds(Statement(looks, relation), scene)


def test_holds_needs_distinct_objects_and_the_relation() -> None:
    scene = next(
        s for s in map(make_scene, range(1000)) if len(s.things) == 2 and s.things[0].column < s.things[1].column
    )
    a, b = ((t.colour, t.shape) for t in scene.things)
    assert holds(Statement((a, b), "left of"), scene) and not holds(Statement((a, b), "right of"), scene)
    assert holds(Statement((b, a), "right of"), scene)
    assert holds(Statement((a,)), scene)
    assert not holds(Statement((a, a)), scene) or a == b
    rng = random.Random(0)
    changed = [perturb(Statement((a, b), "left of"), rng) for _ in range(50)]
    assert Statement((a, b), "left of") not in changed or a == b


def test_a_picture_shows_its_scene() -> None:
    """The pixel at an object's centre has its colour (a ring is hollow), the strip holds dark text."""
    from hones.data.shapes import COLOURS

    for seed in range(40):
        scene = make_scene(seed)
        pixels = np.asarray(draw(scene)).astype(int)
        for thing in scene.things:
            offset = 0.75 * thing.radius if thing.shape == "ring" else 0
            seen = pixels[round(thing.y), round(thing.x - offset)]
            assert np.abs(seen - COLOURS[thing.colour]).max() < 60, (seed, thing)
        x, y, width, height = scene.label.box
        assert (np.abs(pixels[y : y + height, x : x + width] - scene.ink).max(-1) <= 2).sum() > 10


def test_five_captions_differ() -> None:
    assert len(set(captions(Statement((("red", "star"), ("blue", "ring")), "above")))) == 5


def test_a_bad_item_error_is_not_a_stop() -> None:
    assert not issubclass(BadItem, HonesError)


def test_the_first_source_is_what_it_always_was(tmp_path: Path) -> None:
    """The annotations by their digest; the pixels, which depend on Pillow's font, as the scene is drawn."""
    file = write_shapes(tmp_path, {"dev": 5}, seed=1)["dev"]
    named = write_shapes(tmp_path / "named", {"dev": 5}, seed=1, source="shapes")["dev"]
    assert named.read_bytes() == file.read_bytes()
    items = json.loads(file.read_text())["data"]
    assert hashlib.sha256(json.dumps(items).encode()).hexdigest()[:16] == "7b38d7019590a2e4"
    for i, row in enumerate(items):
        picture = Image.open(tmp_path / "images" / row["image_info"]["file_name"])
        assert np.array_equal(np.asarray(picture), np.asarray(draw(make_scene(f"1/dev/{i}"))))


def test_signs_look_otherwise_and_say_the_same_things(tmp_path: Path) -> None:
    first, second = (write_shapes(tmp_path / name, {"a": 4}, seed=4, source="signs")["a"] for name in "xy")
    assert first.read_bytes() == second.read_bytes()
    for picture in (tmp_path / "x/images").iterdir():
        assert picture.read_bytes() == (tmp_path / "y/images" / picture.name).read_bytes()
    items, others = load_items(first), load_items(write_shapes(tmp_path / "z", {"a": 4}, seed=4)["a"])
    for name in TASKS:
        task = make_task(name, candidates=20)
        assert len(task.examples(items)[0]) == len(task.examples(others)[0]) == 4
    assert {type(x).__name__ for x in (items.items[0].vqa, items.items[0].ocr)} == {"VqaFields", "OcrFields"}
    with pytest.raises(HonesError, match="no source 'photos'; expected one of shapes, signs"):
        write_shapes(tmp_path / "w", {"a": 1}, source="photos")


def test_a_sign_shows_its_things_and_its_label() -> None:
    above = 0
    for seed in range(30):
        sign = make_sign(seed)
        pixels = np.asarray(draw_sign(sign)).astype(int)
        for thing, tone in zip(sign.things, sign.tones, strict=True):
            distance = 0.75 * thing.radius if thing.shape == "ring" else 0
            seen = pixels[round(thing.y), round(thing.x + distance)]
            assert np.abs(seen - tone).max() < 30, (seed, thing)
            nearest = min(COLOURS, key=lambda c, tone=tone: np.abs(np.subtract(COLOURS[c], tone)).sum())
            assert nearest == thing.colour, "a tone keeps its name"
        x, y, width, height = sign.label.box
        assert x >= 0 and x + width <= SIZE and y >= 0 and y + height <= SIZE
        inside = pixels[y : y + height, x : x + width]
        assert (np.abs(inside - sign.ink).max(-1) < 60).sum() > 15 * len(sign.label.string), "letters are drawn"
        place = "below" if sign.strip_above else "above"
        if seed < 5:
            assert annotate(sign, 1, "x.png")["captions"][4]["caption"].endswith(f"{place} a sign")
        assert all(thing.y > y + height if sign.strip_above else thing.y < y for thing in sign.things)
        above += sign.strip_above
    assert 5 < above < 25
