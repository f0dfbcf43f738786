"""Items, pictures and the built-in scenes; bad ones are named."""

import hashlib
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from hones import HonesError, load_items, make_task, write_shapes
from hones.data.disjoint import check_disjoint
from hones.data.items import Items, LeftOut, check_left_out
from hones.data.pictures import BOX_COLOUR, HUGE, TRUNCATED, draw_box, open_picture
from hones.data.shapes.files import annotate
from hones.data.shapes.language import Statement, captions, describe, holds, perturb, questions
from hones.data.shapes.scene import COLOURS, SIZE, draw, make_scene
from hones.data.shapes.signs import draw_sign, make_sign
from hones.errors import NOT_ANNOTATED, BadItem
from hones.tasks import TASKS

REAL_DATA = os.environ.get("HONES_REAL_DATA")


def item(image_id: int = 1, **fields: Any) -> dict[str, Any]:
    return {"image_id": image_id, "image_info": {"file_name": f"{image_id}.png"}, **fields}


def file_with(folder: Path, *items: Any) -> Path:
    path = folder / "items.json"
    path.write_text(json.dumps({"data": list(items)}))
    return path


# --- files ---


def test_items_are_a_sequence(discovery: Items) -> None:
    assert [*discovery] == [*discovery.items]
    assert discovery[0] is discovery.items[0] and discovery[-1] is discovery.items[-1]
    some = discovery[1:3]
    assert isinstance(some, Items) and some.items == discovery.items[1:3] and len(some) == 2
    assert (some.sha256, some.captions_of) == (discovery.sha256, discovery.captions_of), "as a limit leaves them"
    with pytest.raises(IndexError):
        discovery[len(discovery)]
    assert repr(some) == f"Items(2 of {discovery.file}, unified, pictures in {discovery.images})"
    bad = Items(some.items, some.images, "", (LeftOut("7", "no picture"),))
    assert repr(bad) == f"Items(2 of memory, unified, 1 left out, pictures in {discovery.images})"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1, 2]", "in no known format: it holds no objects with keys"),
        (b'{"data": {}}', "in no known format: it has the keys data; expected one of unified"),
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
    with pytest.raises(HonesError, match=r"limit 0 of .*; expected at least 1"):
        load_items(path, limit=0)
    with pytest.raises(HonesError, match=r"1 of 2 ids are not in .*the first is 9"):
        load_items(path, ids=["3", "9"])


def test_too_many_bad_items_stop_and_are_named() -> None:
    bad = [LeftOut("42", "no captions")]
    check_left_out(bad, 19, "caption")
    with pytest.raises(HonesError, match=r"1 of 19 items cannot be used: 42 \(no captions\); expected at most 5%"):
        check_left_out(bad, 18, "caption")
    check_left_out(bad, 1, "caption", most=0.5)
    with pytest.raises(HonesError, match=r"none of \d+ items can be used.*; expected items that are annotated"):
        check_left_out([], 0, "caption")
    others = [LeftOut(str(i), "no captions", NOT_ANNOTATED) for i in range(50)]
    check_left_out([*others, *bad], 19, "caption")
    with pytest.raises(HonesError, match=r"1 of 19 items cannot be used: 42 \("):
        check_left_out([*others, *bad], 18, "caption")
    with pytest.raises(HonesError, match=r"none of \d+ items can be used.*; expected items that are annotated"):
        check_left_out(others, 0, "caption")


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
    pictures = [e.image for e in examples if e.image is not None]
    whole = pictures[0].read_bytes()
    for picture, content in zip(pictures, [whole, whole[: len(whole) // 2], b"not a picture", b"", None], strict=True):
        if content is not None:
            (tmp_path / picture.name).write_bytes(content)
    from dataclasses import replace

    moved = [replace(e, image=tmp_path / picture.name) for e, picture in zip(examples, pictures, strict=True)]
    assert moved[0].open_picture() is not None
    for example in moved[1:]:
        with pytest.raises(BadItem, match="no picture" if example is moved[-1] else "cannot read picture"):
            example.open_picture()


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(tmp_path: Path, orientation: int) -> None:
    """The definition: paint the box on the stored picture, turn the painted picture, look where the paint is."""
    path, (x, y, width, height) = tmp_path / "turned.png", (10, 6, 30, 12)
    painted = Image.new("L", (80, 60))
    painted.paste(255, (x, y, x + width, y + height))
    painted.getexif()[ExifTags.Base.Orientation] = orientation
    left, top, right, bottom = ImageOps.exif_transpose(painted).getbbox() or (0, 0, 0, 0)
    Image.new("RGB", (80, 60)).save(path, exif=painted.getexif())
    for size in (None, (80, 60)):
        pixels = np.asarray(open_picture(path, (x, y, width, height), size))
        rows, columns = np.nonzero((pixels == BOX_COLOUR).all(-1))
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == (left, top, right, bottom)


def test_a_box_measured_on_the_upright_picture_stays(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("turned.jpg", "turned.tif"):
        Image.new("RGB", (40, 20)).save(tmp_path / name, exif=exif, quality=95)
        upright = open_picture(tmp_path / name, (2, 20, 10, 10), (20, 40))
        assert upright.size == (20, 40)
        rows, columns = np.nonzero(np.asarray(upright)[..., 2] > 128)
        assert (columns.min(), rows.min()) == (2, 20)
        with pytest.raises(BadItem, match="annotated for 100x40 pixels"):
            open_picture(tmp_path / name, (2, 20, 10, 10), (100, 40))


def test_sixteen_bits_and_the_first_frame(tmp_path: Path) -> None:
    grey = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.asarray(open_picture(tmp_path / "grey.png"))[0, :, 0].tolist() == [0, 1, 128, 255]
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert open_picture(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    with pytest.raises(BadItem, match="mode F: brightness of no known range"):
        open_picture(tmp_path / "float.tif")


def test_transparent_palettes_do_not_warn(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8))
    picture.putpalette([10, 20, 30] * 256)
    picture.save(tmp_path / "x.png", transparency=bytes([0] * 256))
    assert open_picture(tmp_path / "x.png").getpixel((0, 0)) == (10, 20, 30)


def test_decompression_bombs_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (100, 100)).save(tmp_path / "bomb.png")
    for limit in (9_000, 4_000):  # Pillow's warning, and its error at twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(BadItem, match=f"too large .more than {limit} pixels") as caught:
            open_picture(tmp_path / "bomb.png")
        assert caught.value.kind == HUGE


def test_a_truncated_jpeg_is_named_as_such(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.jpg")
    whole = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadItem, match="truncated") as caught:
        open_picture(tmp_path / "x.jpg")
    assert caught.value.kind == TRUNCATED


def test_only_picture_formats_are_opened(tmp_path: Path) -> None:
    """EPS would start Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    with pytest.raises(BadItem, match="it is PostScript; expected JPEG, PNG"):
        open_picture(tmp_path / "x.eps")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "ppm"])
@given(data=st.data())
def test_damaged_pictures_are_opened_or_bad_items(suffix: str, data: st.DataObject) -> None:
    import io

    file = io.BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(
        file, suffix.replace("jpg", "jpeg").replace("tif", "tiff"), exif=exif
    )
    raw = bytearray(file.getvalue()[: data.draw(st.integers(0, len(file.getvalue())))])
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6)):
        if raw:
            raw[place % min(len(raw), 200)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(raw)
        try:
            assert open_picture(path, (1, 1, 4, 4)).mode == "RGB"
        except BadItem as error:
            assert str(error)


# --- splits ---


def split_of(folder: Path, name: str, *contents: bytes) -> Items:
    (folder / name).mkdir()
    for number, content in enumerate(contents):
        (folder / name / f"{name}{number}.png").write_bytes(content)
    rows = [item(n, image_info={"file_name": f"{name}{n}.png"}) for n in range(len(contents))]
    return load_items(file_with(folder / name, *rows), images=folder / name)


def test_a_copied_picture_under_another_name_is_found(tmp_path: Path) -> None:
    dev, test = split_of(tmp_path, "dev", b"aa", b"bb", b"ccc", b"bb"), split_of(tmp_path, "test", b"dd", b"eee")
    check_disjoint({"dev": dev, "test": test})
    ood = split_of(tmp_path, "ood", b"gg", b"bb")
    with pytest.raises(HonesError, match=r"the picture ood1.png is in both dev as dev1.png and ood; expected splits"):
        check_disjoint({"dev": dev, "test": test, "ood": ood})
    with pytest.raises(HonesError, match=r"the picture dev0.png is in both dev and again"):
        check_disjoint({"dev": dev, "again": dev})
    (tmp_path / "dev" / "dev1.png").unlink()
    (tmp_path / "dev" / "dev3.png").write_bytes(b"xx")
    check_disjoint({"dev": dev, "test": test, "ood": ood})


def test_only_pictures_of_a_size_that_two_splits_have_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr("hones.data.disjoint.content_hash", lambda file: read.append(file.name) or file.name)
    check_disjoint(
        {"dev": split_of(tmp_path, "dev", b"1", b"22", b"22"), "test": split_of(tmp_path, "test", b"333", b"4")}
    )
    assert sorted(read) == ["dev0.png", "test1.png"]


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
    from hones.data.shapes.scene import COLOURS

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
    """The annotations, without a later task's, by their digest; the pixels, which depend on Pillow's font, as drawn."""
    file = write_shapes(tmp_path, {"dev": 5}, seed=1)["dev"]
    named = write_shapes(tmp_path / "named", {"dev": 5}, seed=1, source="shapes")["dev"]
    assert named.read_bytes() == file.read_bytes()
    items = json.loads(file.read_text())["data"]
    for item in items:
        del item["pope"]
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
