"""Files from other machines and programs than those of the published formats: names, layouts, parts, spellings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli import call
from test_handed_over import asked, lines, remarked

from hones import HonesError, load_items, make_task
from hones.data.convert import convert
from hones.data.disjoint import check_disjoint
from hones.data.items import Items


def test_names_of_windows_and_in_other_case_are_found_and_remarked(read: Callable[..., Items], tmp_path: Path) -> None:
    (tmp_path / "images" / "Train").mkdir(parents=True)
    for name in ("Train/a.jpg", "Train/b.jpg"):
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / name)
    items = read("image,question,answer\nTrain\\a.jpg,Is it?,yes\ntrain/B.JPG,Is it?,no\nTrain/a.jpg,Is?,no\n")
    assert [item.file_name for item in items] == ["Train/a.jpg", "Train/b.jpg", "Train/a.jpg"]
    assert [kind for _, kind in remarked(items)] == ["picture under its name in another spelling"] * 2
    (tmp_path / "images" / "Train" / "B.jpg").touch()
    assert [bad.kind for bad in read("image,question,answer\nTrain/b.JPG,Q?,a\nTrain/a.jpg,Q?,a\n").left_out] == [
        "picture that could be either of two"
    ]


def test_a_whole_path_of_windows_before_the_names_is_dropped(read: Callable[..., Items], tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg")
    items = read("image,question,answer\nphotos\\2024\\a.jpg,Is it?,yes\n")
    assert [item.file_name for item in items] == ["a.jpg"]
    assert [kind for _, kind in remarked(items)] == ["picture without its folder"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('image,question,answer\np1,Size?,"5\np2,Size?,7"\np3,q,z\n', ['"5', '7"', "z"]),
        ('id,question,answer\n07,"Stop where?,left\n08,which?",right\n', ["left", "right"]),
        ('question,answer\n"Two\nlines, or 2",yes\n', ["yes"]),
        ("image,question,answer\t\np1,Who?,red\n", ["red"]),
        ("image\tquestion, asked\tanswer\np1\tWho, then?\tred\n", ["red"]),
        ("question,answer|label\nWho?,red\n", None),
        ("\ufeff\ufeffquestion,answer\nWho?,red\n", ["red"]),
        ("image;question;answer;a, b\np1;Who, you?;red;\n", ["red"]),
    ],
)
def test_separators_and_strays_without_suffixes(
    read: Callable[..., Items], content: str, expected: list[str] | None
) -> None:
    """None: its names of columns hold a mark that separates nothing."""
    query = "?answer=answer|label" if expected is None else ("?question=question, asked" if "asked" in content else "")
    assert [answer for _, answer, _ in asked(read(content, query))] == (expected or ["red"])


@pytest.mark.parametrize(
    ("content", "query", "message"),
    [
        ('{"columns": ["image", "question"], "index": [0], "data": [["a.png", "?"]]}', "", "orient='split'"),
        ('{"7": {"image": "a.png", "question": "?"}, "9": {"image": "b.png", "question": "?"}}', "", "orient='index'"),
        ('{"image": {"7": "a.png"}, "question": {"7": "?"}, "answer": {"7": "x"}}', "", "orient='columns'"),
        ('[["a.png", "?", "x"]]', "", "orient='values'"),
        ("{'question': 'Q?', 'answer': 'x'}\n", "", "json.dumps"),
        ('{"question": "Q?", "answer": "x"},\n{"question": "Q?", "answer": "y"},\n', "", "lines end with commas"),
        ('[{"question": "Q?", "answer": "x"},]', "", "no comma belongs before the last bracket"),
        ("question,answer\nQ?,x\n", "?question=frage", "no column 'frage'; expected a column for question"),
        ("image question answer\na.png Q? x\n", "", "the first line names the columns"),
        ("photo,question,answer\na.png,Q?,x\nb.jpg,Q?,x\n", "", "holds pictures in 'photo', .*[?]image=photo"),
        (
            "question,answer\nWas f\xfcr?,x\n".encode("latin-1"),
            "",
            r"is not utf-8; write the text in UTF-8\); expected",
        ),
    ],
)
def test_what_is_laid_out_otherwise_is_one_line(
    read: Callable[..., Items], content: str | bytes, query: str, message: str
) -> None:
    with pytest.raises(HonesError, match=message):
        read(content, query)
    assert len(read("photo,question,answer\na.png,Q?,x\n", "?format=table")) == 1


def test_pictures_in_lists_of_one(read: Callable[..., Items], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"images": ["a.png"], "question": "?", "answer": "x"}
    assert [item.file_name for item in read(lines(row), "?image=images")] == ["a.png"]
    with pytest.raises(HonesError, match=r"[?]image=images"):
        read(lines(row))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    pictures = [[{"bytes": (tmp_path / "a.png").read_bytes(), "path": None}]]
    features = {"images": datasets.Sequence(datasets.Image()), "question": datasets.Value("string")}
    dataset = datasets.Dataset.from_dict({"images": pictures, "question": ["?"]}, features=datasets.Features(features))
    dataset.to_parquet(str(tmp_path / "rows.parquet"))
    items = load_items(f"{tmp_path}/rows.parquet?image=images")
    with Image.open(items.images / str(items[0].file_name)) as picture:
        assert picture.size == (5, 4)
    with pytest.raises(HonesError, match=r"[?]image=images"):
        load_items(tmp_path / "rows.parquet")


def test_files_put_together_have_marks_within(read: Callable[..., Items]) -> None:
    row = lines({"question": "Q?", "answer": "x"})
    assert len(read(f"{row}\n\ufeff{row}\n", name="rows.jsonl")) == 2


def test_truth_values_of_a_csv_file_are_words_and_remarked(read: Callable[..., Items]) -> None:
    items = read("question,answer\nIs it?,TRUE\nIs it?,FALSE\n")
    assert [answer for _, answer, _ in asked(items)] == ["TRUE", "FALSE"]
    assert remarked(items) == [("column answer", "truth values")]


def test_numbers_as_answers_of_published_formats(read: Callable[..., Items], tmp_path: Path) -> None:
    of_text = [{"question_id": n, "image_id": "p", "question": "?", "answers": [n, n]} for n in (1, 2)]
    assert [answers for _, _, answers in asked(read(json.dumps({"data": of_text})))] == [["1", "1"], ["2", "2"]]
    gqa = {"1": {"imageId": "p", "question": "?", "answer": 3}, "2": {"imageId": "p", "question": "?", "answer": True}}
    assert [answer for _, answer, _ in asked(read(json.dumps(gqa)))] == ["3", "yes"]
    questions = [{"question_id": n, "image_id": 1, "question": "?"} for n in (1, 2, 3)]
    answers = [
        {"question_id": 1, "multiple_choice_answer": 4, "answers": [{"answer": 4}]},
        {"question_id": 2, "multiple_choice_answer": None, "answers": [{"answer": "b"}, {"answer": True}]},
        {"question_id": 3, "answers": ["c"]},
        {"question_id": 3, "answers": ["d"]},
    ]
    (tmp_path / "also.json").write_text(json.dumps({"annotations": answers}))
    of_vqa = read(json.dumps({"data_subtype": "val2014", "questions": questions}), "?annotations=also.json")
    assert [(a, all_of) for _, a, all_of in asked(of_vqa)] == [("4", ["4"]), ("b", ["b", "yes"]), ("d", ["d"])]
    assert remarked(of_vqa) == [("also.json", "second annotation of a question")]
    documents = [{"questionId": 1, "image": "p", "question": "?", "answers": "x"}, *({"questionId": 2},)]
    named = read(json.dumps({"data": [*documents, {"questionId": 3, "image": "p", "question": "?", "answers": [7]}]}))
    assert [bad.reason for bad in named.left_out] == ["its answers are no list of texts", "no image"]


def test_no_object_in_a_list_of_answers_is_passed_over(read: Callable[..., Items]) -> None:
    good, bad = [{"text": "cat"}, "a cat"], [{"label": "cat"}, "a cat"]
    items = read(lines({"question": "?", "answers": good}, {"question": "?", "answers": bad}))
    assert asked(items) == [("?", "cat", ["cat", "a cat"])]
    assert [left.reason for left in items.left_out] == ["an object among its answers has no 'answer'"]


def test_captions_of_pictures_of_one_stem_and_marks_for_nothing(read: Callable[..., Items]) -> None:
    items = read("image,caption\na/1.jpg,A cat.\na/1.jpg,NaN\nb/1.jpg,A dog.\nc.jpg,None\n")
    assert [(item.id, item.captions[0].caption) for item in items] == [
        ("a/1.jpg", "A cat."),
        ("b/1.jpg", "A dog."),
        ("c", "None"),
    ]
    assert [bad.reason for bad in items.left_out] == ["no picture with a caption"]
    strings = {"images": [{"filename": "a.jpg", "sentences": ["A cat.", {"raw": "One cat."}]}]}
    assert [c.caption for c in read(json.dumps(strings))[0].captions] == ["A cat.", "One cat."]


def test_messages_in_parts(read: Callable[..., Items]) -> None:
    def said(picture: Any, answer: Any = "A cat.") -> dict[str, Any]:
        asks = [picture, {"type": "text", "text": "What"}, {"type": "text", "text": "is it?"}]
        return {"messages": [{"role": "user", "content": asks}, {"role": "assistant", "content": answer}]}

    place = {"type": "image"}
    rows = [
        said({"type": "image", "image": "a.jpg"}, [{"type": "text", "text": "A cat."}]),
        said({"type": "image_url", "image_url": {"url": "b.jpg"}}),
        said(place) | {"images": ["c.jpg"]},
        said({"type": "image_url", "image_url": {"url": "https://x.org/d.jpg"}}),
        said({"type": "audio"}),
    ]
    items = read(lines(*rows))
    assert [item.file_name for item in items] == ["a.jpg", "b.jpg", "c.jpg"]
    assert {(question, answer) for question, answer, _ in asked(items)} == {("What\nis it?", "A cat.")}
    assert ["address" in items.left_out[0].reason, items.left_out[1].reason] == [True, "a turn is no text"]
    assert read(lines(rows[0])).format == "llava"  # a file of one line


def test_half_a_character_is_converted_as_it_is(read: Callable[..., Items], tmp_path: Path) -> None:
    items = read('[{"question": "\\ud83d?", "answer": "x"}]')
    convert(items, tmp_path / "again.json")
    assert asked(load_items(tmp_path / "again.json")) == asked(items)
    with pytest.raises(HonesError, match="the text item #0 of dev is in discovery too"):
        check_disjoint({"discovery": items, "dev": items})


def test_no_caption_of_another_row_about_the_picture_is_a_negative(read: Callable[..., Items], tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (9, 9), (name == "a" and "red") or "blue").save(tmp_path / f"{name}.png")
    rows = ["a.png,A cat on a mat.", "b.png,A dog.", "a.png,A cat on a red mat.", "b.png,A dog on a bed."]
    items = read("\n".join(["image,caption", *rows]), "?format=table", limit=3)
    examples, left_out = make_task("retrieval", candidates=3).examples(items)
    assert [example.references[0] for example in examples] == ["A cat on a mat.", "A dog.", "A cat on a red mat."]
    assert [{*example.references[1:]} for example in examples] == [
        {"A dog on a bed.", "A dog."},
        {"A cat on a mat.", "A cat on a red mat."},
        {"A dog on a bed.", "A dog."},
    ]
    assert not left_out


def test_a_run_says_what_is_remarked_about_each_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("discovery", "dev", "test"):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{split}.png")
        (tmp_path / f"{split}.csv").write_text(f"image,question,answer\n{split}.PNG,Is it?,yes\n")
    config = {"model": "none/at-all", "out": "out", "tasks": ["vqa"], "data": {"images": "."}}
    config["data"] |= {split: f"{split}.csv" for split in ("discovery", "dev", "test")}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    Image.new("RGB", (8, 8)).save(tmp_path / "dev.png")
    Image.new("RGB", (7, 7)).save(tmp_path / "test.png")
    assert call("run", tmp_path / "run.yaml") == 2
    said = capsys.readouterr().err
    for split in ("discovery", "dev", "test"):
        assert said.count(f"remark on {split}: picture under its name in another spelling: {split}.PNG") == 1


def test_one_item_is_said_as_one(
    read: Callable[..., Items], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = read("question,answer\nWho?,me\n")
    assert call("data", "check", items.file) == 0
    assert f"{items.file}: 1 item (table)\n" in capsys.readouterr().out
