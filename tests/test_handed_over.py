"""Files as people hand them over: as other programs write them, with what systems leave beside them, or none at all."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli import call
from test_coco import SPLITS, official
from test_coco import write as write_coco

from hones import BadItem, HonesError, load_items, make_task
from hones.data.coco import build_coco
from hones.data.items import Items
from hones.data.names import place_of
from hones.data.pictures import open_picture
from hones.files import decoded, read_json, read_text
from hones.runs.config import read_config
from hones.tasks.custom import task_of_file

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café.png") for form in ("NFC", "NFD"))


def lines(*rows: Any) -> str:
    return "\n".join(map(json.dumps, rows))


def asked(items: Items) -> list[tuple[str, str, list[str]]]:
    return [(i.vqa.question, i.vqa.answer, i.vqa.all_answers) for i in items if i.vqa is not None]


def remarked(items: Items) -> list[tuple[str, str]]:
    return [(remark.id, remark.kind) for remark in items.remarks]


# --- quotes ---


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_a_quote_that_nothing_closes_is_a_character(read: Callable[..., Items], separator: str) -> None:
    rows = ['p1|"Stop" sign: what?|red', 'p2|"Go is where?|left', 'p3|Who says "hi"?|man', 'p4|"Who?"|dog', 'p5|5"|a']
    items = read("\n".join(["image|question|answer", *rows, ""]).replace("|", separator))
    assert [(q, a) for q, a, _ in asked(items)] == [
        ('"Stop" sign: what?', "red"),
        ('"Go is where?', "left"),
        ('Who says "hi"?', "man"),
        ("Who?", "dog"),
        ('5"', "a"),
    ]
    assert remarked(items) == [(f"line {n}", "quote that nothing closes") for n in (2, 3)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('image,question\na.png,"What\nb.png,Who"\n', ['"What', 'Who"']),  # the second line has a picture's name too
        ('image\tquestion\tanswer\na\t"What\tx\nb\tWho"\ty\n', ['"What', 'Who"']),
        ('image,question\na.png,"What\nelse, say"\n', ["What\nelse, say"]),
        ('image\tquestion\tanswer\na\t"What\nelse"\tx\n', ["What\nelse"]),
    ],
)
def test_two_stray_quotes_swallow_no_row(read: Callable[..., Items], content: str, expected: list[str]) -> None:
    items = read(content)
    assert [question for question, _, _ in asked(items)] == expected and not items.left_out
    assert remarked(items)[0] == (
        ("lines 2 to 3", "row over several lines") if len(expected) == 1 else ("line 2", "quote that nothing closes")
    )


def test_lost_lines_count_among_those_left_out(read: Callable[..., Items]) -> None:
    items = read("image,question,answer\na.png,Red, or blue?,red\nb.png,Who?,me\n")
    assert [(bad.id, bad.reason) for bad in items.left_out] == [("line 2", "has 4 cells, the header 3")]


def test_remarks_are_said_where_items_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text('question,answer\n"Go,left\nWho?,"a\nb"\n')
    assert call("data", "convert", tmp_path / "t.csv", "--to", tmp_path / "new.json") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "remark: quote that nothing closes: line 2" in said and "row over several lines: lines 3 to 4" in said


# --- columns ---


@pytest.mark.parametrize(
    ("query", "row", "task"),
    [
        ("?image=file_name&caption=text", {"file_name": "a.png", "text": "A cat."}, "caption"),
        ("?question=text&answer=label", {"image": "a.png", "text": "Is it?", "label": "yes"}, "vqa"),
        ("?captions=caption", {"image": "a.png", "caption": ["A cat.", "Cat."]}, "caption"),
        ("?answers=answer", {"image": "a.png", "question": "Is it?", "answer": ["yes", "no"]}, "vqa"),
        ("?id=image&image=id", {"id": "a.png", "image": 7, "question": "What?", "answer": "cat"}, "vqa"),
    ],
)
def test_a_column_that_an_option_claims_is_not_used_under_its_own_name(
    read: Callable[..., Items], query: str, row: dict[str, Any], task: str
) -> None:
    items = read(json.dumps([row]), query)
    examples, left_out = make_task(task).examples(items)
    assert [example.image for example in examples] == [items.images / "a.png"] and not left_out


def test_columns_are_known_in_any_case(read: Callable[..., Items]) -> None:
    items = read("Image , Question,ANSWER\na.png, What?, cat\n")
    assert asked(items) == [("What?", "cat", ["cat"])] and items.items[0].file_name == "a.png"
    with pytest.raises(
        HonesError, match=r"known format: its columns are picture, ask; .*name the columns, \?image=COL"
    ):
        read("picture,ask\na.png,What?\n")
    with pytest.raises(HonesError, match="two columns 'image'"):
        read("image,image,question\na,b,c\n")


# --- what programs write ---


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeffimage,question,answer,,\r\na.png,What?,cat,,\r\n,,,,\r\n", ["cat"]),  # Excel
        ("sep=;\r\nimage;question;answer\r\na.png;What?;cat\r\n", ["cat"]),
        ("sep=\t\r\nimage\tquestion\tanswer\r\na.png\tWhat?\tcat\r\n", ["cat"]),
        ("image,question,answer\ra.png,What?,cat\rb.png,Who?,dog\r", ["cat", "dog"]),
        ("image,question,answer\na.png,What?,cat,,\n", ["cat"]),
        (",image,question,answer\n0,a.png,What?,cat\n", ["cat"]),  # pandas with its index
        ("image,question,answer\na.png,What?,3.0\nb.png,Who?,\nc.png,How?,12.0\n", ["3", "", "12"]),
        ("image,question,answer\na.png,What?,3.0\nb.png,Who?,1.5\n", ["3.0", "1.5"]),
        ("image,question,answer\na.png,What?,None\nb.png,Who?,NaN\n", ["None", ""]),
        ('image, question, answer\na.png, "What, is it?" , cat\n', ["cat"]),
        ('"image"\t"question"\t"answer"\n"a.png"\t"What?"\t"the ""cat"""\n', ['the "cat"']),
        ("image,question,answer\n".encode("utf-16") + "a.png,What?,é\n".encode("utf-16-le"), ["é"]),
    ],
)
def test_tables_as_programs_write_them(read: Callable[..., Items], content: str | bytes, expected: list[str]) -> None:
    items = read(content)
    assert [answer for _, answer, _ in asked(items)] == expected and not items.left_out


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("""['a cat', "it's a cat"]""", ["a cat", "it's a cat"]),
        ("""['a cat' 'cat']""", ["a cat", "cat"]),  # numpy; Python would read one text
        ("['a cat'\n 'cat']", ["a cat", "cat"]),
        ('["a", NaN, 3]', ["a", "3"]),
        ("['a', nan, None]", ["a"]),
        ("[2. 3.5]", ["2", "3.5"]),
        ("[{'answer': 'cat', 'answer_id': 1}]", ["cat"]),
        ("['cat',]", ["cat"]),
    ],
)
def test_lists_in_cells(read: Callable[..., Items], cell: str, expected: list[str]) -> None:
    quoted = cell.replace('"', '""')
    items = read(f'image,question,answers\na.png,What?,"{quoted}"\n')
    assert asked(items) == [("What?", expected[0], expected)]


@pytest.mark.parametrize("cell", ["['a' 'b', 'c']", "cat", "['a", "['x'] * 9", "__import__('os')", "[" * 5000])
def test_what_is_no_list_is_named(read: Callable[..., Items], cell: str) -> None:
    items = read(f'image,question,answers\na.png,What?,"{cell}"\nb.png,Who?,"[""me""]"\n')
    assert [bad.reason for bad in items.left_out] == ['answers is no list: write it as JSON, ["a cat", "cat"]']


def test_numbers_and_truth_values_as_answers(read: Callable[..., Items]) -> None:
    given: list[Any] = [3, True, False, 1.5, 3.0, -0.0, 10**20]
    rows = [{"image": f"{n}.png", "question": "How many?", "answer": answer} for n, answer in enumerate(given)]
    items = read(lines(*rows, {"image": "x.png", "question": "Which?", "answers": [2, 2, 3, None]}))
    found = [answer for _, answer, _ in asked(items)]
    assert found == ["3", "yes", "no", "1.5", "3", "0", "1" + 20 * "0", "2"]
    wrong = [{"question": ["?"], "answer": "a"}, {"question": "?", "answer": ["a"]}, {"question": "?", "answer": 1e400}]
    named = read(lines(rows[0], *({"image": "a.png", **row} for row in wrong))).left_out
    assert [bad.reason for bad in named] == [
        "question is a list",
        "answer is a list: ?answers=COLUMN reads lists",
        "answer is no text or number",
    ]
    squad = {"image": "a.png", "question": "?", "answers": {"text": ["a", "b"], "answer_start": [1, 2]}}
    assert asked(read(json.dumps(squad))) == [("?", "a", ["a", "b"])]


@pytest.mark.parametrize("name", ["one.jsonl", "one.json", "one"])
def test_one_object_is_a_table_of_one_row(read: Callable[..., Items], name: str) -> None:
    assert asked(read('{"image":"a.png","question":"What?","answer":"cat"}\n', name=name)) == [
        ("What?", "cat", ["cat"])
    ]


def test_json_lines_with_any_line_end(read: Callable[..., Items]) -> None:
    rows = [{"question": f"{n}\u2028?", "answer": "a"} for n in range(2)]
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    for end in ("\n", "\r\n", "\r", "\n\n"):
        assert [q for q, _, _ in asked(read("\ufeff" + end.join(texts) + end))] == ["0\u2028?", "1\u2028?"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n "question": "a"\n}\n{\n "question": "b"\n}\n', "several JSON values one after another; .*jq -c"),
        ("[1]\n[2]\n", "several JSON values one after another"),
        ('{"image": {"0": "a.png"}, "question": {"0": "What?"}}', "write rows, not columns"),
        ('{"image": ["a.png"], "question": ["What?"]}', "write rows, not columns"),
        (
            '{"schema": {}, "data": [{"image": "a.png", "question": "?"}]}',
            "under 'data' have image, question; .* alone",
        ),
        ("a,b\n\0\n", "NUL bytes, the first in line 2"),
        ("image,question\na.png,é\n".encode("latin-1"), "byte 0xe9 at 21 is not utf-8; write the text in UTF-8"),
        (b"PK\x03\x04 and so on", "is an Excel workbook or a zip archive; .*save the sheet as CSV"),
        (b"\x1f\x8b\x08\x00", r"is compressed \(gzip\)"),
        ("", "is in no known format: it is empty"),
        (POINTER, "is a git-lfs pointer, not the file that it stands for; .*git lfs pull"),
    ],
)
def test_what_is_no_table_is_one_line_that_says_what_to_do(
    read: Callable[..., Items], content: str | bytes, message: str
) -> None:
    with pytest.raises(HonesError, match=message) as stop:
        read(content)
    assert "\n" not in str(stop.value)


# --- formats ---


def test_docvqa_and_its_kin(read: Callable[..., Items], tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pages/x_1.png")
    row = {
        "questionId": 7,
        "question": "How much?",
        "image": "documents/x_1.png",
        "docId": 1,
        "answers": ["0.28", "0,28"],
    }
    test = {"questionId": 8, "question": "Who?", "image": "documents/x_2.png", "docId": 2}
    content = {"dataset_name": "docvqa", "dataset_split": "val", "data": [row, test]}
    items = read(json.dumps(content), images=tmp_path / "pages")
    assert items.format == "docvqa" and [(bad.id, bad.reason) for bad in items.left_out] == [("8", "no answers")]
    assert asked(items) == [("How much?", "0.28", ["0.28", "0,28"])]
    example = make_task("ocr").examples(items)[0][0]
    assert example.references == ("0.28", "0,28") and example.image == tmp_path / "pages/x_1.png"
    assert remarked(items) == [("7", "picture without its folder")]
    for names in ({"questionId": 7, "image_local_name": "1.jpeg"}, {"question_id": 7, "file_path": "a/1.jpg"}):
        kin = read(json.dumps({"data": [{**names, "question": "How much?", "answers": ["1"]}]}))
        assert kin.format == "docvqa" and kin.items[0].id == "7"


def test_llava_conversations(read: Callable[..., Items]) -> None:
    def said(*texts: str) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]

    rows = [
        {"id": "a", "image": "coco/a.jpg", "conversations": said("<image>\nWhat?", "A cat.", "Its colour?", "Red.")},
        {"id": "b", "image": "coco/b.jpg", "conversations": said("Who?\n<image>", "Me.")},
        {"id": "b", "conversations": said("2 + 2?", "4")},
        {"id": "c", "image": ["1.jpg", "2.jpg"], "conversations": said("Which?", "Both.")},
        {"id": "d", "image": "d.jpg", "conversations": said("Who?")},
        {
            "id": "e",
            "image": "e.jpg",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}],
        },
    ]
    for text in (json.dumps(rows), lines(*rows)):
        items = read(text)
        assert items.format == "llava" and [item.id for item in items] == ["a", "b", "b#2", "e"]
        assert [(q, a) for q, a, _ in asked(items)] == [
            ("What?", "A cat."),
            ("Who?", "Me."),
            ("2 + 2?", "4"),
            ("Hi", "x"),
        ]
        assert items.items[2].file_name is None and remarked(items) == [("a", "later questions not asked")]
        assert [(bad.id, bad.reason) for bad in items.left_out] == [
            ("c", "it is about 2 pictures"),
            ("d", "its turns are not question and answer by turns"),
        ]
    every = read(json.dumps(rows), "?turns=all")
    assert [item.id for item in every] == ["a", "a#2", "b", "b#2", "e"] and not every.remarks


def test_coco_captions_alone(read: Callable[..., Items]) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 8, "height": 6} for n in (1, 2)]
    captions = [{"id": 10 + n, "image_id": i, "caption": f"Cat {n}."} for n, i in enumerate([1, 3, 1])]
    items = read(json.dumps({"images": images, "annotations": [*captions, {"id": 13, "image_id": 1}]}))
    assert items.format == "coco" and [[c.caption for c in i.captions] for i in items] == [["Cat 0.", "Cat 2."]]
    assert [bad.id for bad in items.left_out] == ["annotation 11", "annotation 13", "2"]


def test_other_formats_are_named_by_their_keys(read: Callable[..., Items]) -> None:
    row = {"image_id": 9, "question_id": "x", "question": "What?", "choices": ["a"], "direct_answers": ["a"]}
    with pytest.raises(
        HonesError, match=r"keys image_id, question_id, question, choices, direct_answers; .*image=COLUMN"
    ):
        read(json.dumps([row]))
    with pytest.raises(HonesError, match="the keys imgs, anns; expected"):
        read(json.dumps({"imgs": {}, "anns": {}}))
    base64 = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2" * 3
    with pytest.raises(HonesError, match="holds its pictures itself, in base64 under 'image'; expected file names"):
        read(f"index\timage\tquestion\tanswer\n0\t{base64}\tWhat?\tA\n")


def test_boxes_in_several_spellings(read: Callable[..., Items]) -> None:
    cells = ("[1, 2, 3, 4]", "1 2 3 4", "(1,2,3,4)", "1;2;3;4", "[1 2 3 4]")
    items = read("image,text,bbox\n" + "".join(f'{n}.png,STOP,"{cell}"\n' for n, cell in enumerate(cells)))
    assert [item.ocr.bbox for item in items if item.ocr is not None] == [(1, 2, 3, 4)] * len(cells)


def test_a_picture_of_one_word_is_its_own_box(read: Callable[..., Items], tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "white").save(tmp_path / "a.png")
    items = read("image,text\na.png,STOP\ngone.png,GO\n")
    assert [(bad.id, bad.kind) for bad in items.left_out] == [("gone.png", "missing picture")]
    assert remarked(items) == [("a.png", "box: whole picture")]
    example = make_task("ocr").examples(items)[0][0]
    assert example.box == (0, 0, 40, 20) and example.target == "STOP"
    shown = example.open_picture()
    assert shown is not None
    assert [shown.getpixel(at) for at in ((0, 9), (39, 9), (9, 0), (9, 19))] == [(0, 0, 255)] * 4, "on all four sides"


# --- data sets ---


def test_a_data_set_made_by_a_script_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/own.py").write_text("import datasets\n")
    assert call("data", "check", f"hf:{tmp_path / 'own'}") == 2
    said = capsys.readouterr().err
    assert "is made by the script own.py, and no code of a data set is run" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("raised", [RuntimeError("scripts are not supported"), AssertionError(), KeyError("x")])
def test_whatever_datasets_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    datasets = pytest.importorskip("datasets")

    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(HonesError, match=r"cannot load the dataset hf:a/b \(.+\); check its name"):
        load_items("hf:a/b")


def test_classes_of_a_data_set_are_read_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "cache"))
    label = datasets.ClassLabel(names=["cat", "dog"])
    features = {"image": datasets.Value("string"), "question": datasets.Value("string"), "label": label}
    features |= {"labels": datasets.Sequence(label), "count": datasets.Value("float64")}
    rows = {
        "image": ["a.png", "b.png"],
        "question": ["What?", "Who?"],
        "label": [1, -1],
        "labels": [[0, 1, 1], [0]],
        "count": [2.0, None],
    }
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    made.to_parquet(tmp_path / "rows.parquet")
    file = tmp_path / "rows.parquet"
    assert [answer for _, answer, _ in asked(load_items(f"{file}?answer=label"))] == ["dog", ""]
    assert [answers for *_, answers in asked(load_items(f"{file}?answers=labels"))] == [["cat", "dog", "dog"], ["cat"]]
    assert [answer for _, answer, _ in asked(load_items(f"{file}?answer=count"))] == ["2", ""]


# --- what lies in folders ---


def test_hidden_files_and_what_systems_leave_are_no_annotations(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image,question,answer\na.png,What?,cat\n")
    for name in ("._table.csv", ".table.csv.swp.csv", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.csv").write_text("image,question\n")
    assert len(load_items(tmp_path)) == 1
    (tmp_path / "other.csv").touch()
    with pytest.raises(HonesError, match=r"has 2 annotation files: other.csv, table.csv;"):
        load_items(tmp_path)


def test_a_picture_is_found_in_any_unicode_form(read: Callable[..., Items], tmp_path: Path) -> None:
    colours = {"composed": (200, 0, 0), "decomposed": (0, 200, 0)}
    rows = [{"image": f"{COMPOSED}", "question": "What?", "answer": "cat"}]
    assert COMPOSED != DECOMPOSED
    Image.new("RGB", (4, 4), colours["decomposed"]).save(tmp_path / DECOMPOSED)
    items = read(json.dumps(rows), name="x.json")
    picture = make_task("vqa").examples(items)[0][0].open_picture()
    assert picture is not None and picture.getpixel((0, 0)) == colours["decomposed"] and not items.remarks
    assert place_of(tmp_path / COMPOSED) == tmp_path / DECOMPOSED
    (tmp_path / COMPOSED.removesuffix(".png")).mkdir()
    items = load_items(tmp_path / "x.json", images=tmp_path / DECOMPOSED.removesuffix(".png"))
    assert items.images == tmp_path / COMPOSED.removesuffix(".png")
    Image.new("RGB", (4, 4), colours["composed"]).save(tmp_path / COMPOSED)
    assert load_items(tmp_path / "x.json").items[0].file_name == COMPOSED, "the name as it is comes first"
    (tmp_path / "\ufb01g.png").touch()
    (tmp_path / "\uff46ig.png").touch()
    items = read(lines({**rows[0], "image": "fig.png"}, rows[0]), name="x.json")
    assert [bad.reason.split(" in ")[0] for bad in items.left_out] == [
        "fig.png could be '\\ufb01g.png' and '\\uff46ig.png'"
    ]


def test_folders_before_names_are_dropped_only_where_no_two_meet(read: Callable[..., Items], tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "1.jpg")
    rows = [{"image": f"{folder}/1.jpg", "question": "What?", "answer": "cat"} for folder in ("vg", "ocr")]
    assert read(lines(rows[0])).items[0].file_name == "1.jpg"
    assert [item.file_name for item in read(lines(*rows))] == ["vg/1.jpg", "ocr/1.jpg"]


# --- what is no file here ---


def test_git_lfs_pointers_are_named(read: Callable[..., Items], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text(POINTER)
    with pytest.raises(BadItem, match=r"a\.png is a git-lfs pointer, git lfs pull"):
        open_picture(tmp_path / "a.png")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/state.json").write_text("{}")
    (tmp_path / "saved/data.arrow").write_text(POINTER)
    with pytest.raises(HonesError, match=r"data\.arrow is a git-lfs pointer"):
        load_items(tmp_path / "saved")


@pytest.mark.parametrize("name", ["https://a.org/x.json", "s3://a/x.csv?format=table", "hf://datasets/a/b", "data:,a"])
def test_an_address_is_no_source(name: str) -> None:
    for given in (name, Path(name)) if not name.startswith("hf") else (name,):
        with pytest.raises(HonesError, match="is an address, and nothing is downloaded; download it"):
            load_items(given)


def test_an_address_is_no_picture(read: Callable[..., Items]) -> None:
    names = ["https://a.org/x.png", "s3://a/x.png", "data:image/png;base64,iVBORw0KGgo", "ok.png"]
    items = read(lines(*({"image": name, "question": "What?", "answer": "cat"} for name in names)))
    assert len(items) == 1 and all("is an address: download the picture" in bad.reason for bad in items.left_out)
    for place in ("https://a.org/x.png", Path("https://a.org/x.png")):
        with pytest.raises(HonesError, match=r"^https://a.org/x.png is an address"):
            place_of(place)
    with pytest.raises(HonesError, match="is an address"):
        read("question,answer\na,b\n", images="https://a.org/images")


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (Path("/dev/zero"), pipe):
        for read in (load_items, read_text, read_json, read_config, lambda place: task_of_file(str(place))):
            with pytest.raises(HonesError, match="is a device, a pipe or a socket; expected a file"):
                read(file)
        with pytest.raises(BadItem, match=r"cannot read picture .* \(a device, a pipe or a socket\)"):
            open_picture(file)


# --- marks of an encoding ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_a_text(encoding: str, tmp_path: Path) -> None:
    assert decoded("é".encode(encoding)) == "é" and decoded("".encode(encoding)) == ""
    file = tmp_path / "task.yaml"
    file.write_bytes("name: capitals\nprompt: '{q}?'\ntarget: a\nmetric: exact_match\npicture: none\n".encode(encoding))
    assert task_of_file(str(file)).name == "capitals"
    file.write_bytes('{"a": 1}'.encode(encoding))
    assert read_json(file) == {"a": 1}


def test_the_files_of_coco_may_begin_with_a_mark(tmp_path: Path) -> None:
    files = write_coco(tmp_path, official())
    plain = build_coco(files, tmp_path / "plain", SPLITS)
    for file in (files.captions, files.questions, files.annotations, files.text):
        file.write_text(file.read_text(), encoding="utf-8-sig")
    marked = build_coco(files, tmp_path / "marked", SPLITS)
    assert marked.files["all"].read_bytes() == plain.files["all"].read_bytes()
