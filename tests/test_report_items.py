"""What the model says in a report: items, what changed, a floor said first, one budget, a glossary that is linked."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from run_results import around, make_analysis, make_comparison, make_masking, write_analysis
from test_report import HOSTILE, Balanced

from hones.errors import HonesError
from hones.runs.answer_table import Answers
from hones.runs.answers import AnsweredItem, Said
from hones.runs.artifacts import write_result
from hones.stats import Interval
from hones.tabular import Column, Table
from hones.views.glossary import TERMS, linked
from hones.views.report.items import MOST, change_of, told
from hones.views.report.page import write_report
from hones.views.terminal import show
from hones.views.text import token_text, with_change, with_interval

RIGHT, WRONG, PART = Said(answer="red", score=1.0), Said(answer="blue", score=0.0), Said(answer="re", score=0.5)
PROMPT = "What colour?"


def item(number: int, *, split: str = "test", picture: str | None = None, prompt: str = PROMPT, **arms: Said):
    return AnsweredItem(
        split=split,
        id=f"item-{number}",
        picture=picture,
        prompt=prompt,
        target="red",
        references=("red",),
        answers=arms,
    )


def write_answers(run: Path, items: Sequence[AnsweredItem], task: str = "vqa") -> None:
    lines = [x.model_dump_json(exclude_none=True) for x in items]
    (run / task).mkdir(parents=True, exist_ok=True)
    (run / task / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")


def masked_run(run: Path, base: float = 1.0) -> Path:
    masking = make_masking(around(0.2), around(0.1))
    write_result(run / "vqa/masking.json", replace(masking, baseline=Interval(base, base, base)))
    return run


def section(page: str, name: str) -> str:
    return page[page.index(f'<section id="{name}">') :].split("</section>")[0]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (RIGHT, RIGHT, "unchanged"),
        (RIGHT, WRONG, "now wrong"),
        (WRONG, RIGHT, "now right"),
        (RIGHT, PART, "scored lower"),
        (WRONG, PART, "scored higher"),
        (WRONG, Said(answer="green", score=0.0), "other words, same score"),
        (Said(answer="log p -1", score=-1.0), Said(answer="log p -2", score=-2.0), "scored lower"),
        (Said(answer="a", score=0.0, rank=7), Said(answer="a", score=0.0, rank=9), "another rank, same score"),
        (Said(answer="a"), Said(answer="b"), "other words"),
    ],
)
def test_a_change_in_words(before: Said, after: Said, words: str) -> None:
    assert change_of(before, after) == words


def test_items_are_shown_changed_ones_first_with_pictures_and_what_changed(tmp_path: Path) -> None:
    run = masked_run(tmp_path / "run")
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    items = [item(n, unedited=RIGHT, masked=RIGHT, steered=RIGHT, picture="../a.png") for n in range(MOST + 5)]
    items[70] = item(70, unedited=RIGHT, masked=WRONG, steered=RIGHT, picture="../absent.png")
    items[80] = item(80, unedited=WRONG, masked=WRONG, steered=RIGHT)
    write_answers(run, [*items, item(0, split="discovery", unedited=RIGHT)])
    page = write_report(run).read_text(encoding="utf-8")
    Balanced(page)
    told = section(page, "items")
    rows = told.split("<tr>")[1:]
    second, first, third = (re.sub(r"<[^>]*>|\s+", " ", row) for row in [r for r in rows if "item-" in r][:3])
    assert "item-70" in first and "blue (0.00) now wrong" in re.sub(" +", " ", first)
    assert "../absent.png" in first and "missing picture" in first
    assert "item-80" in second and "now right" in second and "item-0 " in third and "unchanged" in third
    assert told.count("<img") == MOST - 2, "a picture each, but for the missing one and the item without one"
    assert re.search(r"<summary>88 more</summary>", told) and "5 more are not on this page" in told
    words = re.sub(r"<[^>]*>", "", told)
    assert "Unedited, 104 of 105 test items have the whole score." in words
    assert "Masked, 1 of 105 items changes: 1 now wrong." in words and "1 now right." in words


def test_an_arm_that_changes_nothing_and_one_that_is_not_there_are_said() -> None:
    items = [item(1, unedited=RIGHT, masked=RIGHT), item(2, unedited=RIGHT)]
    lines = told(Answers("vqa", "test", items, ("unedited", "masked")))
    assert lines == ("Unedited, 2 of 2 test items have the whole score.", "Masked, none of 1 item changes.")


def test_a_run_without_answers_says_so_and_damaged_ones_are_an_error(tmp_path: Path) -> None:
    run = masked_run(tmp_path)
    assert "No answers for <bdi>vqa</bdi>" in write_report(run).read_text(encoding="utf-8")
    (run / "vqa/answers.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(HonesError, match=r"answers\.jsonl, line 1 is not JSON"):
        write_report(run)


@pytest.mark.parametrize(("base", "end"), [(0.0, "0, its floor"), (1.0, "1, its ceiling"), (0.5, "")])
def test_a_floor_or_a_ceiling_is_the_first_sentence(tmp_path: Path, base: float, end: str) -> None:
    page = write_report(masked_run(tmp_path, base)).read_text(encoding="utf-8")
    first = re.sub(r"<[^>]*>", "", section(page, "summary").split("<dd>")[1].split("</p>")[0])
    assert (f"On the 200 test items the unedited model&#39;s VQA soft accuracy is {end}" in first) == bool(end)


def test_intervals_without_width_are_words() -> None:
    assert [with_interval(Interval(x, x, x), 2) for x in (0.0, 1.0, 0.5)] == [
        *("0.00 [at floor]", "1.00 [at ceiling]", "0.50 [no spread]")
    ]
    assert with_change(Interval(0.0, 0.0, 0.0), 2) == "0.00 [no change]"
    assert with_change(Interval(1.0, 1.0, 1.0), 2) == "1.00 [no spread]"


def test_target_and_answer_are_two_words_in_lens_and_cards(tmp_path: Path) -> None:
    analysis = make_analysis(("vqa",), PROMPT)
    write_analysis(tmp_path, analysis)
    masked_run(tmp_path)
    lens, driver = analysis.lens[0], analysis.cards[0].drivers[1]
    known = [
        item(1, prompt=lens.prompt, unedited=Said(answer="teal")).model_copy(update={"id": lens.item}),
        item(2, prompt=driver.prompt, split="discovery", unedited=WRONG).model_copy(update={"id": driver.item}),
    ]
    write_answers(tmp_path, known)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    for name, answer in (("lens", "teal"), ("cards", "blue")):
        words = re.sub(r"<[^>]*>", "", section(page, name))
        assert "Target: " in words and f"Answer, unedited: {answer}" in " ".join(words.split())


def test_another_budget_than_the_selection_is_said(tmp_path: Path) -> None:
    write_result(tmp_path / "vqa/comparison.json", make_comparison("vqa"))
    said = "ran at another budget: 3 % of all neurons, where the selection that is masked and steered has 1 %"
    for ratio, differs in ((0.01, True), (0.03, False)):
        record = {"stages": {"vqa/neurons": {"fingerprint": {"ratio": ratio}}}}
        (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
        page = re.sub(r"<[^>]*>", "", write_report(tmp_path).read_text(encoding="utf-8"))
        assert (said in page) == differs


def test_terms_are_linked_to_a_glossary_that_the_page_has_once(tmp_path: Path) -> None:
    page = write_report(masked_run(tmp_path)).read_text(encoding="utf-8")
    used = set(re.findall(r'class="term" href="#term-([\w-]+)"', page))
    assert {"masked", "control", "unedited", "vqa", "floor", "items"} <= used <= {term.id for term in TERMS}
    for term in TERMS:
        assert page.count(f'id="term-{term.id}"') == 1
    assert page.count("Point at a mark") == 1
    link = '<a class="term" href="#term-masked" title="'
    text = linked("Masked <b> unmasked masked", TERMS, set())
    assert text.startswith(link) and text.count(link) == 1 and "&lt;b&gt; unmasked masked" in text
    assert linked("masked", TERMS, {"masked"}) == "masked"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_stay_text(tmp_path: Path, text: str) -> None:
    text = text.replace("\ud800", "")
    run = masked_run(tmp_path)
    write_answers(run, [item(1, prompt=text, picture=text[:99], unedited=Said(answer=text), masked=RIGHT)])
    page = write_report(run).read_text(encoding="utf-8")
    Balanced(page)
    assert page.count("<script") == 1 and "document.title='ran'</script>" not in page


def test_parts_of_characters_and_markers_are_readable() -> None:
    shown = {"<0xE2>": "byte E2", "<0x0A>": "↵", "<0xE2><0x82><0xAC>": "€", "\ufffd#174": "byte #174", "Ċ": "↵"}
    assert {text: token_text(text) for text in shown} == shown
    columns = (Column("falls", "falls", "tokens"),)
    console = Console(width=80)
    with console.capture() as seen:
        console.print(show(Table("t", "T", columns, [{"falls": (" red", "\ufffd#174")}])))
    assert "' red' byte #174" in seen.get()
    assert token_text("Ġthe") == token_text("▁the") == "␣the"
