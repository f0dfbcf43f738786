"""Every line of a file is read or named, in every format; and what the format's own writer wrote is read as it was."""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hones import load_items
from hones.data.delimited import SPANS_LINES, Delimited, read_delimited
from hones.data.items import Items
from hones.data.unified import LeftOut

NASTY = "\",;\t|\n\r\u2028\u0085 a'{[]}\\:é"
cells = st.text(st.sampled_from(NASTY), max_size=6) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), max_size=6
)
answers = st.text("ab ", min_size=1, max_size=4).map(lambda text: f"{text}.")
values = cells | st.integers() | st.floats(allow_nan=True) | st.booleans() | st.none() | st.lists(cells, max_size=2)


def lines_of(table: Delimited) -> int:
    """How many lines the rows of a table take."""
    several = [int(remark.reason.split()[0]) for remark in table.remarks if remark.kind == SPANS_LINES]
    return len(table.rows) + sum(several) - len(several)


# --- tables ---


@given(st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"]), st.lists(cells, max_size=6))
@example("\t", "\n", ['"Go\tleft', 'Who says "hi"?\tman', "Who?\tdog"])
@example(",", "\n", ['"Go,left', 'How big is 5",x', "Who?,dog"])
def test_any_text_in_a_line_swallows_no_other(separator: str, end: str, texts: list[str]) -> None:
    """Each line begins with its number: it is a row, in a row that spans lines, or left out."""
    texts = [text.replace("\n", "").replace("\r", "") for text in texts]
    lines = [f"{number}{separator}{text}" for number, text in enumerate(texts)]
    table = read_delimited(end.join([separator.join(("n", "question", "answer")), *lines]))
    assert lines_of(table) == len(lines)


def written(rows: Sequence[Sequence[str]], separator: str, end: str, quoting: Any) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    return file.getvalue()


@given(
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.lists(st.tuples(cells, cells), max_size=5),
)
def test_what_a_csv_writer_wrote_is_read_as_it_was(
    separator: str, end: str, quoting: Any, rows: list[tuple[str, str]]
) -> None:
    if separator == "\t":  # with tabs, lines of as many cells as the header are rows: tabs are rarely quoted at all
        rows = [(a.replace("\t", ""), b.replace("\t", "")) for a, b in rows]
    if end == "\r":
        quoting = csv.QUOTE_ALL  # else Python's writer leaves a line feed without quotes
    table = [(str(number), *row) for number, row in enumerate(rows)]
    read = read_delimited(written([("n", "question", "answer"), *table], separator, end, quoting))
    bare = [[*row.values()] for row in read.rows if isinstance(row, dict)]
    if quoting == csv.QUOTE_ALL:
        assert bare == [[*row] for row in table]
    else:  # blanks around a cell without quotes are no part of it
        assert [[cell.strip(" \t\r") for cell in row] for row in bare] == [
            [cell.strip(" \t\r") for cell in row] for row in table
        ]


@given(st.sampled_from(["csv", "tsv", "jsonl", "json"]), st.lists(st.tuples(cells, answers), min_size=1, max_size=5))
def test_the_rows_of_a_table_are_its_items(form: str, rows: list[tuple[str, str]]) -> None:
    rows = [(f"{question}?".replace("\t", " "), answer) for question, answer in rows]
    objects = [{"question": question, "answer": answer} for question, answer in rows]
    separator = "\t" if form == "tsv" else ","
    text = {
        "jsonl": "\n\n".join(map(json.dumps, objects)),
        "json": json.dumps(objects, ensure_ascii=False),
    }.get(form) or written([("question", "answer"), *rows], separator, "\r\n", csv.QUOTE_ALL)
    items = read(text, file="x")
    found = [(item.vqa.question, item.vqa.answer) for item in items if item.vqa is not None]
    assert found == rows and not items.left_out


@given(st.lists(cells, max_size=4), st.integers(0, 9))
def test_a_damaged_line_of_json_lines_is_named(texts: list[str], seed: int) -> None:
    broken = [f"{{{text}".replace("\n", "").replace("\r", "") for text in texts]
    good = [json.dumps({"question": f"{n}?", "answer": "a"}) for n in range(len(broken) + 1)]
    lines = good + broken
    lines = lines[seed % len(lines) :] + lines[: seed % len(lines)]
    items = read("\n".join(lines), file="x.jsonl")
    expected = [f"line {n}" for n, line in enumerate(lines, 1) if line in broken]
    assert len(items) == len(good) and [bad.id for bad in items.left_out] == expected


# --- formats ---


def read(text: str, *, file: str = "file.json", query: str = "", also: str | None = None) -> Items:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / file).write_bytes(text.encode())
        if also is not None:
            (Path(folder) / "also.json").write_text(also)
        return load_items(f"{Path(folder) / file}{query}")


FORMATS: dict[str, Callable[[int, Any, Any], Any]] = {
    "unified": lambda n, q, a: {"item_id": n, "vqa": {"question": q, "answer": a}},
    "gqa": lambda n, q, a: {"imageId": "1", "question": q, "answer": a},
    "textvqa": lambda n, q, a: {"question_id": n, "image_id": "1", "question": q, "answers": [a]},
    "docvqa": lambda n, q, a: {"questionId": n, "image": "documents/1.png", "question": q, "answers": [a]},
    "vqav2": lambda n, q, a: {"question_id": n, "image_id": 1, "question": q},
    "llava": lambda n, q, a: {
        "id": str(n),
        "image": "1.jpg",
        "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}],
    },
    "table": lambda n, q, a: {"id": n, "image": "1.jpg", "question": q, "answer": a},
    "flickr30k": lambda n, q, a: {"filename": f"{n}.jpg", "sentences": [{"raw": q}, {"raw": a}]},
}


def read_format(name: str, pairs: Sequence[tuple[Any, Any]]) -> Items:
    """A file of that format with these questions and answers (of Flickr30k: captions), then a good one."""
    pairs = [*pairs, ("Which?", "this")]
    records = [FORMATS[name](number, question, answer) for number, (question, answer) in enumerate(pairs)]
    of = [{"question_id": n, "answers": [{"answer": answer}]} for n, (_, answer) in enumerate(pairs)]
    if name == "vqav2":
        content = {"data_subtype": "val2014", "questions": records}
        return read(json.dumps(content), query="?annotations=also.json", also=json.dumps({"annotations": of}))
    keyed = {"unified": "data", "textvqa": "data", "docvqa": "data", "flickr30k": "images"}.get(name)
    content = {str(n): row for n, row in enumerate(records)} if name == "gqa" else records
    return read(json.dumps(content if keyed is None else {keyed: content}))


@pytest.mark.parametrize("name", FORMATS)
@given(pairs=st.lists(st.tuples(values, values), max_size=4))
def test_every_record_is_an_item_or_named(name: str, pairs: list[tuple[Any, Any]]) -> None:
    items = read_format(name, pairs)
    assert items.format == name and len(items) + len(items.left_out) == len(pairs) + 1


@pytest.mark.parametrize("name", FORMATS)
@given(pairs=st.lists(st.tuples(cells, answers), max_size=4))
def test_texts_are_read_as_they_were_written(name: str, pairs: list[tuple[str, str]]) -> None:
    pairs = [(f"{question.strip()}?", answer.strip()) for question, answer in pairs]
    items = read_format(name, pairs)
    found = [(i.vqa.question, i.vqa.answer) if i.vqa else (i.captions[0].caption, i.captions[1].caption) for i in items]
    assert found == [*pairs, ("Which?", "this")] and not items.left_out


@given(st.lists(st.text(st.sampled_from("\",;\t a'[é"), max_size=6), min_size=1, max_size=5), st.sampled_from("|,"))
def test_the_lines_of_flickr30k_are_captions_or_named(captions: list[str], separator: str) -> None:
    captions = [*captions, "A cat."]
    lines = [separator.join((f"{n % 2}.jpg", f" {n}", f" {text}")) for n, text in enumerate(captions)]
    items = read("\n".join([separator.join(("image_name", "comment_number", "comment")), *lines]), file="results.csv")
    assert sum(len(item.captions) for item in items) + len(items.left_out) == len(lines)
    if separator == "|":
        assert sorted(c.caption for item in items for c in item.captions) == sorted(text.strip() for text in captions)


def test_the_rows_of_a_data_set_are_items_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setenv("HONES_CACHE", str(tmp_path / "cache"))
    questions = ['"Go', "a\nb", "a\tb,c", "", None, "é", "\u2028"]
    rows = {
        "image": [f"{n}.png" for n in range(len(questions))],
        "question": questions,
        "answer": ["a"] * len(questions),
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    items = load_items(tmp_path / "saved")
    assert len(items) + len(items.left_out) == len(questions)
    assert [item.vqa.question for item in items if item.vqa is not None] == [q for q in questions if q]


def test_rows_left_out_are_named_by_their_line() -> None:
    table = read_delimited('a,b\n1,2\n1\n\n"x\ny",2\n1,2,3\n,,\n1,"2\n')
    named = [row for row in table.rows if isinstance(row, LeftOut)]
    assert [(row.id, row.reason) for row in named] == [
        ("line 3", "has 1 cells, the header 2"),
        ("line 7", "has 3 cells, the header 2"),
    ]
    assert [(remark.id, remark.kind) for remark in table.remarks] == [
        ("lines 5 to 6", "row over several lines"),
        ("line 9", "quote that nothing closes"),
    ]
