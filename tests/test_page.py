"""Parts of a report: the lens of an item, curves of many methods, and runs of unusual shape."""

import math
import random
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console
from run_results import make_analysis, write_analysis

from hones.method.analysis.results import LensRow, Overlap, Token
from hones.method.analysis.tokens import token_name
from hones.method.found import HeadResult, HeadScore
from hones.runs.artifacts import write_heads
from hones.stats import Interval
from hones.views.report.page import write_report
from hones.views.style import look
from hones.views.terminal import view


def test_the_lens_shows_the_groups_of_an_item_once_its_own_first(tmp_path: Path) -> None:
    groups = (("vqa", "ocr"), ("vqa",), ("vqa", "caption"))
    rows = tuple(
        LensRow("vqa", item, "what?", "red", "pictures/a.png", group, layer, (Token(f"{'-'.join(group)}{layer}", 1.0),))
        for item in ("7", "8")
        for group in groups
        for layer in (2, 3)
    )
    write_analysis(tmp_path, replace(make_analysis(("vqa", "ocr", "caption")), lens=rows))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    section = page[page.index('<section id="lens">') : page.index('<section id="cards">')]
    articles = section.split("<article")[1:]
    assert len(articles) == 2
    for article in articles:
        shown, folded = article.split("<summary>2 other groups</summary>")
        assert article.count("<img") == 1 and "vqa2" in shown and "vqa3" in shown
        assert "vqa-ocr2" not in shown and all(f"{name}3" in folded for name in ("vqa-ocr", "vqa-caption"))


def test_tokens_keep_their_space_and_parts_of_characters_their_numbers() -> None:
    pieces = {
        1: ("▁red", "red"),
        2: ("red", "red"),
        3: ("<0xE2>", "\ufffd"),
        4: ("Ġred", " red"),
        5: ("<0x82>", "\ufffd"),
    }
    tokenizer = SimpleNamespace(
        decode=lambda ids: pieces[ids[0]][1], convert_ids_to_tokens=lambda token: pieces[token][0]
    )
    assert [token_name(tokenizer, i) for i in pieces] == [" red", "red", "\ufffd#3", " red", "\ufffd#5"]


def test_no_two_of_many_curves_look_alike() -> None:
    assert len({look(i) for i in range(64)}) == 64


def test_a_heads_file_without_intervals_of_a_large_model_is_shown(tmp_path: Path) -> None:
    rng, unknown = random.Random(0), math.nan
    scores = sorted((rng.gauss(0, 1) for _ in range(32 * 32)), reverse=True)
    heads = tuple(
        HeadScore(i // 32, i % 32, Interval(s, unknown, unknown), 0.6, 0.6 - s, 9) for i, s in enumerate(scores)
    )
    result = HeadResult("vqa_soft_accuracy", Interval(0.6, unknown, unknown), 9, heads, 30)
    write_heads(tmp_path / "vqa", result, 32, 32)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "gives no intervals" in page and not re.search(r">[^<]*\bnan\b[^<]*<", page)
    assert page.count('class="mark"') == 32 * 32


def test_sets_that_share_nothing_and_are_nothing_make_a_table() -> None:
    analysis = make_analysis(("vqa", "ocr"))
    empty = replace(
        analysis, heads_overlap=(Overlap("vqa", "ocr", 0, 10),), neurons_overlap=(Overlap("vqa", "ocr", 0, 0),)
    )
    console = Console(width=80)
    with console.capture() as shown:
        console.print(view(empty))
    assert "0 of 0 (0%)" in shown.get()
