"""Every reader on a small file in its published form; told apart by content; whatever is wrong is one line."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_cli import call

from hones import BadItem, HonesError, load_items, make_task
from hones.data.convert import convert
from hones.data.disjoint import check_disjoint
from hones.data.items import Items
from hones.data.readers import READERS, source_sha256

CAPTION = {"caption": "A cat."}
UNIFIED = {"data": [{"image_id": 7, "image_info": {"file_name": "7.jpg"}, "captions": [CAPTION]}]}
QUESTIONS = {
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 9, "question": "What is it?", "question_id": 9000},
        {"image_id": 9, "question": "Is it red?", "question_id": 9001},
        {"image_id": 25, "question": "Where?", "question_id": 25000},
    ],
}
ANNOTATIONS = {
    "annotations": [
        {
            "question_id": 9001,
            "image_id": 9,
            "answer_type": "yes/no",
            "multiple_choice_answer": "yes",
            "answers": [{"answer": "no", "answer_id": 1}, {"answer": "yes", "answer_id": 2}],
        },
        {"question_id": 9000, "image_id": 9, "multiple_choice_answer": "cat", "answers": [{"answer": "cat"}]},
    ]
}
GQA = {"201": {"imageId": "2370799", "question": "Is it overcast?", "answer": "no", "isBalanced": True}}
TEXTVQA = {
    "dataset_name": "textvqa",
    "data": [
        {
            "question": "what brand?",
            "image_id": "003a",
            "image_width": 1024,
            "image_height": 664,
            "answers": ["dakota", "nikon", "dakota"],
            "question_id": 34602,
        },
        {"question": "what?", "image_id": "003a", "question_id": 34603},
    ],
}
DOCVQA = {
    "dataset_name": "docvqa",
    "data": [
        {
            "questionId": 4,
            "question": "How much?",
            "image": "documents/x_1.png",
            "docId": 1,
            "answers": ["0.28", "0,28"],
        },
    ],
}
COCO_CAPTIONS = {
    "images": [{"id": 9, "file_name": "9.jpg", "height": 4, "width": 4}],
    "annotations": [{"id": 90, "image_id": 9, "caption": "A cat."}, {"id": 91, "image_id": 9, "caption": "Cat."}],
}
CONVERSATIONS = [
    {
        "id": "a",
        "image": "coco/a.jpg",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}],
    }
]
KARPATHY = {
    "dataset": "flickr30k",
    "images": [
        {"filename": "1.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "A man."}, {"raw": "A hat."}]},
        {"filename": "2.jpg", "imgid": 1, "split": "test", "sentences": [{"raw": "Two dogs."}]},
    ],
}
RESULTS = """image_name| comment_number| comment
1.jpg| 0| A man, in a "hat" .
1.jpg| 1| A man .
2.jpg| 0| Two dogs .
2.jpg| 4   A dog runs .
"""
TABLE = """image,question,answers,caption,text,bbox
a.png,What is it?,"[""cat"", ""a cat"", ""cat""]",A cat.,,
a.png,Is it red?,"[""no""]",,STOP,"1 2, 30 40"
b.png,,,A dog.,,
"""
JSON_FILES: dict[str, Any] = {
    "unified": UNIFIED,
    "vqav2": QUESTIONS,
    "gqa": GQA,
    "textvqa": TEXTVQA,
    "docvqa": DOCVQA,
    "coco": COCO_CAPTIONS,
    "flickr30k": KARPATHY,
    "llava": CONVERSATIONS,
    "table": [{"image": "a.png", "question": "What?", "answer": "cat", "captions": ["A cat."]}],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, name: str = "file.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def named(items: Items) -> list[tuple[str, str]]:
    return [(bad.id, bad.reason) for bad in items.left_out]


def vqa_of(items: Items) -> list[tuple[str, str, str, str, list[str]]]:
    found = [(i.id, str(i.file_name), i.vqa) for i in items.items]
    return [(one, file, vqa.question, vqa.answer, vqa.all_answers) for one, file, vqa in found if vqa is not None]


# --- one test for each format ---


def test_vqav2_joins_questions_and_annotations(write: Callable[..., Path]) -> None:
    questions, _ = write(QUESTIONS, "q.json"), write(ANNOTATIONS, "a.json")
    items = load_items(f"{questions}?annotations=a.json")
    assert items.format == "vqav2" and named(items) == [("25000", "no annotation of this question")]
    assert vqa_of(items) == [
        ("9000", "COCO_val2014_000000000009.jpg", "What is it?", "cat", ["cat"]),
        ("9001", "COCO_val2014_000000000009.jpg", "Is it red?", "yes", ["no", "yes"]),
    ]
    before = items.sha256
    write({"annotations": ANNOTATIONS["annotations"][1:]}, "a.json")
    assert load_items(f"{questions}?annotations=a.json").sha256 != before


def test_vqav2_says_which_file_is_missing(write: Callable[..., Path]) -> None:
    with pytest.raises(
        HonesError, match=r"questions without answers; expected the annotations file too; write q.json\?"
    ):
        load_items(write(QUESTIONS, "q.json"))
    with pytest.raises(HonesError, match="no list under 'questions'; expected the questions file"):
        load_items(write(ANNOTATIONS, "a.json"))
    with pytest.raises(HonesError, match=r"no file .*absent.json"):
        load_items(f"{write(QUESTIONS, 'q.json')}?annotations=absent.json")
    with pytest.raises(HonesError, match="has no data_subtype"):
        load_items(f"{write({'questions': QUESTIONS['questions']}, 'r.json')}?annotations=a.json")
    items = load_items(
        f"{write({'questions': QUESTIONS['questions']}, 'r.json')}?annotations=a.json&subtype=test-dev2015"
    )
    assert items.items[0].file_name == "COCO_test2015_000000000009.jpg"


def test_gqa(write: Callable[..., Path]) -> None:
    items = load_items(write({**GQA, "202": {"imageId": "5", "question": "Who?"}, "203": 4}))
    assert vqa_of(items) == [("201", "2370799.jpg", "Is it overcast?", "no", ["no"])]
    assert items.format == "gqa" and named(items) == [("202", "no answer"), ("203", "no imageId")]


def test_textvqa_serves_vqa_and_ocr_by_question(write: Callable[..., Path]) -> None:
    items = load_items(write(TEXTVQA))
    assert vqa_of(items) == [("34602", "003a.jpg", "what brand?", "dakota", ["dakota", "nikon", "dakota"])]
    ocr = make_task("ocr").examples(items)[0][0]
    assert ocr.box is None and ocr.prompts == ("Question: what brand?\nAnswer the question with a short phrase.",)
    assert make_task("ocr").statistics(ocr, "NIKONS").tolist() == pytest.approx([5 / 6, 1])
    info = items.items[0].image_info
    assert info is not None and info.width == 1024 and named(items) == [("34603", "no answers")]


def test_flickr30k_with_bars_commas_and_as_json(write: Callable[..., Path]) -> None:
    items = load_items(write(RESULTS, "results.csv"))
    said = {item.id: [c.caption for c in item.captions] for item in items.items}
    assert said == {"1": ['A man, in a "hat" .', "A man ."], "2": ["Two dogs ."]}
    assert items.format == "flickr30k" and named(items) == [("line 5", "has 2 cells, the header 3")]
    commas = 'image_name,comment_number,comment\n1.jpg,0,"A man, in a ""hat"" ."\n1.jpg,1,A man .\n2.jpg,0,Two dogs .\n'
    again = load_items(write(commas, "commas.csv"))
    assert {item.id: [c.caption for c in item.captions] for item in again.items} == said
    file = write(KARPATHY, "dataset_flickr30k.json")
    assert [item.id for item in load_items(file).items] == ["1", "2"]
    assert [item.id for item in load_items(f"{file}?split=test").items] == ["2"]
    with pytest.raises(HonesError, match="no split 'val'; expected one of test, train"):
        load_items(f"{file}?split=val")


def test_a_table_of_pictures(write: Callable[..., Path], tmp_path: Path) -> None:
    items = load_items(write(TABLE, "table.csv"))
    assert items.format == "table" and [item.id for item in items.items] == ["a.png", "a.png#2", "b.png"]
    first, second, third = items.items
    assert first.vqa is not None and (first.vqa.answer, first.vqa.all_answers) == ("cat", ["cat", "a cat", "cat"])
    assert first.ocr is None and third.vqa is None and [c.caption for c in third.captions] == ["A dog."]
    assert second.ocr is not None and second.ocr.bbox == (1, 2, 30, 40)
    rows = [
        {"image": "a.png", "id": 3, "query": "What?", "answer": "cat", "captions": ["A cat.", {"caption": "Cat."}]},
        {"image": "b.png", "id": 4, "text": "STOP"},
        {"id": 5},
    ]
    lines = write("\n".join(map(json.dumps, rows)), "rows.jsonl")
    items = load_items(f"{lines}?question=query")
    assert vqa_of(items) == [("3", "a.png", "What?", "cat", ["cat"])]
    assert [c.caption for c in items.items[0].captions] == ["A cat.", "Cat."]
    assert named(items) == [("4", "text without bbox"), ("5", "no picture")]
    with pytest.raises(HonesError, match="has no column 'ask'; expected a column for question; it has 'image', 'id'"):
        load_items(f"{lines}?question=ask")


def test_a_folder_of_pictures_with_its_table(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("image,caption\na.png,Black.\n")
    items = load_items(tmp_path)
    assert items.images == tmp_path and len(items) == 1 and load_items(items.file or "").sha256 == items.sha256
    (tmp_path / "other.jsonl").write_text("{}")
    with pytest.raises(HonesError, match=r"2 annotation files: metadata.csv, other.jsonl"):
        load_items(tmp_path)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "cache"))
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    rows = {
        "image": [Image.new("RGB", (8, 6), colour) for colour in colours],
        "query": ["What colour?"] * 3,
        "answers": [["red"], ["green", "lime"], []],
    }
    made = datasets.Dataset.from_dict(rows)
    return made.cast_column("image", datasets.Image())


def test_a_saved_dataset_is_unpacked_as_far_as_items_are_chosen(dataset, tmp_path: Path) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    items = load_items(f"{tmp_path / 'saved'}?question=query", limit=2)
    assert items.format == "hf" and vqa_of(items)[1][2:] == ("What colour?", "green", ["green", "lime"])
    assert len([*items.images.iterdir()]) == 2, "no picture of an item that was not chosen"
    picture = make_task("vqa").examples(items)[0][1].open_picture()
    assert picture is not None and picture.size == (8, 6) and picture.getpixel((0, 0)) == (0, 200, 0)
    again = load_items(items.file or "", ids=["row-00000001"])
    assert again.sha256 == items.sha256 and again.images == items.images and again.items == items.items[1:]
    with pytest.raises(HonesError, match=r"no column with annotations; .*it has 'image', 'query', 'answers'"):
        load_items(tmp_path / "saved")


def test_parquet_and_several_splits(dataset, tmp_path: Path) -> None:
    import datasets

    dataset.to_parquet(tmp_path / "rows.parquet")
    items = load_items(f"{tmp_path / 'rows.parquet'}?question=query")
    assert items.format == "hf" and len(items) == 3 and make_task("vqa").examples(items)[1][0].reason == "empty answer"
    datasets.DatasetDict({"a": dataset, "b": dataset.select([0])}).save_to_disk(tmp_path / "saved")
    with pytest.raises(HonesError, match=r"has the splits a, b; expected one of them; add \?split=NAME"):
        load_items(f"{tmp_path / 'saved'}?question=query")
    assert len(load_items(f"{tmp_path / 'saved'}?question=query&split=b")) == 1
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(HonesError, match="cannot load the dataset"):
        load_items(tmp_path / "broken.parquet")


def test_a_dataset_of_text_alone_holds_items_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "cache"))
    rows = {"query": ["Is it far?", None, "Who?"], "answer": ["yes", "no", "me"], "topic": ["road", "sea", "door"]}
    dataset = datasets.Dataset.from_dict(rows)
    dataset.save_to_disk(tmp_path / "saved")
    dataset.to_parquet(tmp_path / "there" / "rows.parquet")
    for place in (tmp_path / "saved", tmp_path / "there" / "rows.parquet", f"hf:{tmp_path / 'there'}"):
        items = load_items(f"{place}?question=query{'&split=train' if 'hf:' in str(place) else ''}")
        assert [(i.id, i.file_name, (i.model_extra or {})["topic"]) for i in items.items] == [
            ("#0", None, "road"),
            ("#1", None, "sea"),
            ("#2", None, "door"),
        ]
        assert len(items.sha256) == 64 and load_items(items.file or "").sha256 == items.sha256
        examples, left_out = make_task("vqa").examples(items)
        assert not examples and left_out[0].reason == "it has no picture, which the task shows"
    pictures = datasets.Dataset.from_dict({"photo": [Image.new("RGB", (8, 6))], "question": ["Who?"]})
    pictures.cast_column("photo", datasets.Image()).save_to_disk(tmp_path / "photos")
    with pytest.raises(HonesError, match=r"holds pictures in .photo., .*; write \?image=photo"):
        load_items(tmp_path / "photos")


# --- which reader ---


@pytest.mark.parametrize("name", JSON_FILES)
def test_a_file_is_recognised_by_its_content_alone(write: Callable[..., Path], name: str) -> None:
    write(ANNOTATIONS, "a.json")
    file = write(JSON_FILES[name], "no_suffix")
    items = load_items(f"{file}?annotations=a.json" if name == "vqav2" else file)
    assert items.format == name and items.file is not None
    assert source_sha256(items.file) == items.sha256 == load_items(items.file).sha256


def test_a_file_that_two_readers_recognise_is_not_guessed(write: Callable[..., Path]) -> None:
    file = write({**UNIFIED, "questions": QUESTIONS["questions"]})
    with pytest.raises(HonesError, match=r"can be read as unified and vqav2; choose: add \?format=unified") as caught:
        load_items(file)
    assert "\n" not in str(caught.value)
    items = load_items(f"{file}?format=unified")
    assert items.format == "unified" and load_items(items.file or "").format == "unified"


def test_captions_of_pictures_that_repeat_are_one_item_a_picture(write: Callable[..., Path]) -> None:
    rows = [{"image": "a.png", "caption": "A cat."}, {"image": "a.png", "caption": "Cat."}]
    for file in (
        write("image,caption\na.png,A cat.\na.png,Cat.\n", "captions.csv"),
        write("Image\tCaption\na.png\tA cat.\na.png\tCat.\n", "captions.tsv"),
        write("\n".join(map(json.dumps, rows)), "captions.jsonl"),
    ):
        items = load_items(file)
        assert [[c.caption for c in item.captions] for item in items] == [["A cat.", "Cat."]]
        assert items.format == "flickr30k" and len(load_items(file, format="table")) == 2


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*JSON_FILES, "csv"])
def test_the_wrong_format_is_one_line(write: Callable[..., Path], reader: str, name: str) -> None:
    file = write(TABLE if name == "csv" else JSON_FILES[name])
    try:
        assert load_items(file, format=reader).items
    except HonesError as error:
        assert "\n" not in str(error)
        assert name != reader or "annotations" in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("?splits=x", "gqa has no option 'splits'; expected one of none"),
        ("?split", "cannot read the options of"),
        ("?split=a&split=b", "is given twice"),
        ("?format=cvs", "no format 'cvs'; expected auto, unified"),
    ],
)
def test_mistakes_in_options_are_one_line(write: Callable[..., Path], text: str, message: str) -> None:
    with pytest.raises(HonesError, match=message):
        load_items(f"{write(GQA)}{text}")


def test_a_file_with_a_question_mark_in_its_name_is_that_file(write: Callable[..., Path]) -> None:
    assert len(load_items(write(GQA, "who?.json"))) == 1


def test_a_hub_id_without_its_mark_is_hinted_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HonesError, match="write hf:lmms-lab/textvqa for a dataset of the hub"):
        load_items("lmms-lab/textvqa")


# --- pictures stay inside ---


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/etc/passwd", "C:\\a.png", "..\\a.png", "a\x00.png", "a\n.png"]
)
def test_a_name_that_leaves_the_folder_is_refused(write: Callable[..., Path], name: str) -> None:
    file = write({"data": [*UNIFIED["data"], {"image_id": 1, "image_info": {"file_name": name}}]})
    items = load_items(file)
    assert [bad.id for bad in items.left_out] == ["1"] and "image_info.file_name" in items.left_out[0].reason


def test_a_name_longer_than_the_file_system_takes_is_a_bad_item(write: Callable[..., Path]) -> None:
    items = load_items(
        write({"data": [{"image_id": 1, "image_info": {"file_name": "x" * 300}, "captions": [CAPTION]}]})
    )
    with pytest.raises(BadItem, match="cannot read picture"):
        make_task("caption").examples(items)[0][0].open_picture()
    check_disjoint({"discovery": items})


def test_symbolic_links_out_of_the_folder_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    inside, outside = tmp_path / "images", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    for folder in (inside, outside):
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    (inside / "in.png").symlink_to("a.png")
    (inside / "out.png").symlink_to(outside / "a.png")
    (inside / "folder").symlink_to(outside)
    names = ["a.png", "in.png", "out.png", "folder/a.png"]
    file = write({"data": [{"image_id": name, "image_info": {"file_name": name}} for name in names]})
    items = load_items(file, images=inside)
    assert [item.id for item in items.items] == names[:2]
    assert [(bad.id, "symbolic link out of" in bad.reason) for bad in items.left_out] == [(n, True) for n in names[2:]]
    (tmp_path / "link").symlink_to(inside)
    assert len(load_items(file, images=tmp_path / "link")) == 2, "the folder itself may be a link"


# --- convert ---


@pytest.mark.parametrize("name", ["gqa", "textvqa", "docvqa", "coco", "flickr30k", "llava", "table"])
def test_converted_items_are_the_same(write: Callable[..., Path], tmp_path: Path, name: str) -> None:
    file, to = write(JSON_FILES[name]), tmp_path / "new" / "unified.json"
    assert call("data", "convert", file, "--to", to) == 0
    read, written = load_items(file), load_items(to, images=tmp_path)
    assert written.items == read.items and written.format == "unified"
    assert call("data", "convert", to, "--images", tmp_path, "--to", to) == 2


@pytest.mark.parametrize("to", ["q.json", "a.json", "folder/table.jsonl"])
def test_nothing_is_written_over_what_it_is_read_from(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    write(QUESTIONS, "q.json")
    write(ANNOTATIONS, "a.json")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/table.jsonl").write_text(json.dumps(JSON_FILES["table"][0]))
    source = tmp_path / "folder" if to.startswith("folder") else f"{tmp_path / 'q.json'}?annotations=a.json"
    before = (tmp_path / to).read_bytes()
    for command in (("convert", source, "--to"), ("check", source, "--no-pictures", "--json")):
        assert call("data", *command, tmp_path / to) == 2 and "is read by" in capsys.readouterr().err
    assert (tmp_path / to).read_bytes() == before


def test_a_dataset_whose_pictures_are_missing_is_converted_to_one_line(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": ["a.png"], "question": ["What?"], "answer": ["cat"]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(HonesError, match=r"cannot read .*a\.png \(No such file"):
        convert(load_items(tmp_path / "saved"), tmp_path / "new" / "unified.json")


def test_a_converted_dataset_brings_its_pictures(dataset, tmp_path: Path) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    to = tmp_path / "new" / "unified.json"
    assert call("data", "convert", f"{tmp_path / 'saved'}?question=query", "--to", to) == 0
    examples, _ = make_task("vqa").examples(load_items(to))
    pictures = [picture for e in examples if (picture := e.open_picture()) is not None]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(200, 0, 0), (0, 200, 0)]


# --- nothing but one line ---

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["data", "question"]), x, max_size=3)
    ),
    max_leaves=8,
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(spot for key, one in inner for spot in spots(one, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value = copy.copy(value)
    value[path[0]] = replaced(value[path[0]], path[1:], new)
    return value


def read_or_one_line(folder: str, raw: bytes, query: str = "", format: str = "auto") -> None:
    path = Path(folder) / "x"
    path.write_bytes(raw)
    try:
        items = load_items(f"{path}{query}", format=format)
        for task in ("vqa", "ocr", "caption"):
            make_task(task).examples(items)
    except HonesError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize("name", JSON_FILES)
@given(data=st.data())
def test_any_value_anywhere_is_read_or_one_line(name: str, data: st.DataObject) -> None:
    content = JSON_FILES[name]
    spot = data.draw(st.sampled_from(spots(content)))
    changed = replaced(content, spot, data.draw(JSON))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.json").write_text(json.dumps(replaced(ANNOTATIONS, *data.draw(annotation_edits))))
        query = "?annotations=a.json" if name == "vqav2" else ""
        for format in ("auto", name):
            read_or_one_line(folder, json.dumps(changed).encode(), query, format)


annotation_edits = st.tuples(st.sampled_from(spots(ANNOTATIONS)), JSON)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_one_line(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read_or_one_line(folder, raw)
        for head in (b"image,question,answer,text,bbox\n", b"image_name|comment\n", b'{"image": "a"}\n'):
            read_or_one_line(folder, head + raw)


@given(
    st.lists(
        st.lists(st.text(max_size=6) | st.sampled_from(['["a"]', "[1,2,3,4]", "a.png", '"']), max_size=6), max_size=5
    )
)
def test_any_table_is_read_or_one_line(rows: list[list[str]]) -> None:
    lines = ["image,question,answers,captions,text,bbox", *map(",".join, rows)]
    with tempfile.TemporaryDirectory() as folder:
        for format in ("auto", "table", "flickr30k"):
            read_or_one_line(folder, "\n".join(lines).encode("utf-8", "replace"), format=format)
