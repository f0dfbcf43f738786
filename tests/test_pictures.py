"""Pictures as programs write them: garbage beside good pixels is remarked, what is no picture is named."""

import io
import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from hones.data.decoding import BAD_EXIF, FIRST_FRAME, NO_ORIENTATION, TRANSPARENT
from hones.data.items import load_items
from hones.data.pictures import BAD_EXTRAS, TRUNCATED, UNREADABLE, open_picture, remarks_of, stored_size
from hones.errors import BadItem
from hones.tasks.check import check_items

GOOD = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
GARBAGE = (b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")


def encoded(form: str, **more: object) -> bytes:
    file = io.BytesIO()
    GOOD.save(file, form, **more)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def kinds(path: Path) -> list[str]:
    return [remark.kind for remark in remarks_of(open_picture(path))]


@pytest.mark.parametrize("exif", GARBAGE)
@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_garbage_exif_is_remarked_and_the_pixels_used_as_stored(form: str, exif: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(encoded(form, exif=exif))
    opened = open_picture(path)
    assert opened.size == GOOD.size and opened.mode == "RGB"
    assert form == "webp" or opened.tobytes() == Image.open(io.BytesIO(encoded(form))).convert("RGB").tobytes()
    if exif.startswith(b"Exif") or form != "jpeg":  # else it is no EXIF for a JPEG
        assert [remark.kind for remark in remarks_of(opened)] == [BAD_EXIF]
        assert "used as stored" in remarks_of(opened)[0].reason


def test_exif_behind_the_pixels_and_a_broken_profile(tmp_path: Path) -> None:
    raw = encoded("png")
    end, data = raw.index(b"IEND") - 4, raw.index(b"IDAT") - 4
    (tmp_path / "late").write_bytes(raw[:end] + chunk(b"eXIf", b"garbage") + raw[end:])
    (tmp_path / "profile").write_bytes(raw[:data] + chunk(b"iCCP", b"name\0\0no zlib") + raw[data:])
    assert kinds(tmp_path / "late") == [BAD_EXIF] and kinds(tmp_path / "profile") == []
    (tmp_path / "tif").write_bytes(encoded("tiff", exif=GARBAGE[2], tiffinfo={34665: 99999}))
    assert open_picture(tmp_path / "tif").size == GOOD.size


@pytest.mark.parametrize(("value", "turned", "remarked"), [(1, False, []), (6, True, []), (0, False, [NO_ORIENTATION])])
@pytest.mark.parametrize("form", ["png", "webp", "jpeg", "tiff"])
def test_valid_orientations_are_honoured_and_others_remarked(
    form: str, value: int, turned: bool, remarked: list[str], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "x"
    path.write_bytes(encoded(form, exif=exif))
    assert (open_picture(path).size == GOOD.size) is not turned
    assert kinds(path) == remarked


def test_extras_of_a_png_that_pillow_refuses_cost_no_pixels(tmp_path: Path) -> None:
    raw = encoded("png")
    size, data = 33, raw.index(b"IDAT") - 4
    texts = (chunk(b"tEXt", b"a\0b"), chunk(b"eXIf", b"MM\0*"), chunk(b"gAMA", bytes(4)))
    damaged = [text[:-1] + bytes([text[-1] ^ 1]) for text in texts]
    for extra in (*damaged, chunk(b"gAMA", b""), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)))):
        (tmp_path / "x").write_bytes(raw[:size] + extra + raw[size:])
        assert open_picture(tmp_path / "x").tobytes() == GOOD.tobytes() and kinds(tmp_path / "x") == [BAD_EXTRAS]
        assert stored_size(tmp_path / "x") == GOOD.size
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded("png", exif=exif)
    (tmp_path / "x").write_bytes(turned[:size] + damaged[0] + turned[size:])
    assert open_picture(tmp_path / "x").size == GOOD.size[::-1], "an EXIF that is whole still counts"
    for place in (20, data + 9):  # the header, how the pixels are packed
        broken = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        (tmp_path / "x").write_bytes(broken[:size] + damaged[0] + broken[size:])
        with pytest.raises(BadItem):
            open_picture(tmp_path / "x")


def test_a_text_as_orientation(tmp_path: Path) -> None:
    text = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02" + b"6\0\0\0" + b"\0\0\0\0"
    (tmp_path / "x").write_bytes(encoded("png", exif=text))
    assert open_picture(tmp_path / "x").size == GOOD.size and kinds(tmp_path / "x") == [NO_ORIENTATION]


def red_of(picture: Image.Image) -> int:
    """Of the pixel (12, 0)."""
    return picture.convert("RGB").tobytes()[3 * 12]


@pytest.mark.parametrize("form", ["gif", "webp", "png", "tiff"])
def test_the_first_of_several_frames(form: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(encoded(form, save_all=True, append_images=[GOOD.rotate(180), GOOD.rotate(90)]))
    assert kinds(tmp_path / "x") == [FIRST_FRAME]
    opened = open_picture(tmp_path / "x")
    assert opened.size == GOOD.size and abs(red_of(opened) - red_of(GOOD)) < 8


def test_other_modes(tmp_path: Path) -> None:
    modes = {"CMYK": "tiff", "1": "png", "L": "png", "LA": "png", "P": "gif", "YCbCr": "jpeg", "I;16": "png"}
    for mode, form in modes.items():
        made = Image.new("I;16", GOOD.size, 30000) if mode == "I;16" else GOOD.convert(mode)
        made.save(tmp_path / "x", form)
        assert open_picture(tmp_path / "x").mode == "RGB" and kinds(tmp_path / "x") == [], mode
    GOOD.resize((1, 1)).save(tmp_path / "x", "png")
    assert open_picture(tmp_path / "x").size == (1, 1)
    GOOD.convert("P").save(tmp_path / "x", "png", transparency=bytes([0, 128] * 128))
    assert kinds(tmp_path / "x") == [TRANSPARENT]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "an empty file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41", "a video"),
        (b"%PDF-1.4", "a PDF"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\n<!DOCTYPE html><html><body>404", "a web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"PK\x03\x04abc", "a zip archive"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13))[:-1] + b"x" + bytes(30), "a damaged PNG"),
    ],
)
def test_what_is_no_picture_is_named_as_what_it_is(head: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(head)
    with pytest.raises(BadItem, match=f"it is {name}; expected JPEG, PNG") as caught:
        open_picture(tmp_path / "x.jpg")
    assert caught.value.kind == UNREADABLE


def test_whatever_pillow_raises_is_the_items_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(encoded("png"))

    class Unheard(BaseException):
        """Of no list."""

    def fail(*_: object, **__: object) -> None:
        raise Unheard("never heard of")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BadItem, match=r"cannot read picture .*x \(never heard of\)"):
        open_picture(tmp_path / "x")


def test_half_a_picture_stays_refused(tmp_path: Path) -> None:
    raw = encoded("jpeg", exif=GARBAGE[1])
    (tmp_path / "x").write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(BadItem) as caught:
        open_picture(tmp_path / "x")
    assert caught.value.kind == TRUNCATED


def test_a_remark_is_counted_and_keeps_no_item_from_a_task(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}.png").write_bytes(encoded("png", exif=GARBAGE[0], compress_level=ord(name) % 9))
    asked = {"vqa": {"question": "What?", "answer": "x"}}
    rows = [{"image_id": n, "image_info": {"file_name": f"{'ab'[n % 2]}.png"}, **asked} for n in range(3)]
    (tmp_path / "x.json").write_text(json.dumps({"data": rows}))
    report = check_items(load_items(tmp_path / "x.json"))
    assert report.problems == () and report.tasks[0].usable == 3
    (remark,) = [one for one in report.remarks if one.kind == BAD_EXIF]
    assert (remark.count, remark.first) == (2, ("a.png", "b.png")), "once for each file"
