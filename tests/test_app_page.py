"""The page of `hones app`: what each of its fields does, and all of it in a real browser."""

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from test_app import QUESTION, form

from hones.app.desk import Desk, Form
from hones.app.offered import Offered
from hones.models.spec import ModelSpec

pytest.importorskip("gradio", reason="gradio is not installed: make test-app installs it and runs these")

from hones.app.callbacks import FIELDS, NO_SCALES, Callbacks, form_of, toggled
from hones.app.page import Page


@pytest.fixture
def does(desk: Desk) -> Callbacks:
    return Callbacks(desk)


def values(asked: Form, explanation: Any = None, before: bool = False) -> list[Any]:
    """The values of the page's fields that make a form, as the page hands them over."""
    given = [getattr(asked, name) for name in FIELDS]
    given[FIELDS.index("scales")] = asked.scales or NO_SCALES
    return [*given, explanation, before]


def test_fields_make_a_form() -> None:
    asked = Form("m", "ocr", "p.png", "q", "a=b", "1,2,3,4", ("0.1",), ("x",), "y")
    assert form_of(*values(asked)[: len(FIELDS)]) == asked
    assert form_of("m", "vqa", None, None, None, None, None, None, NO_SCALES) == Form("m")
    assert toggled(["0.10"], "0.2") == ["0.2", "0.10"] and toggled(["0.2", "0.10"], "0.2") == ["0.10"]


def test_ask_shows_both_answers_the_map_and_the_command(does: Callbacks, desk: Desk, picture: Path) -> None:
    asked = form(desk, picture, heads=("1.2",))
    notice, answers, drawn, command, content, is_asked, maps, _ = does.ask(*values(asked))
    assert (notice, is_asked, maps) == ("", True, "") and answers.count('<p class="answer">') == 2
    assert 'aria-pressed="true" data-pick="1.2"' in drawn and "→" in drawn
    assert command.startswith("hones ask --model ") and "--heads 1.2" in command and '"head": 2' in content
    before = does.follow(*values(asked))
    assert before[3:] == ("", "", False, "", None) and "pressed" in before[2], "nothing is asked before Ask was pressed"
    assert does.follow(*values(asked, before=True)) == does.ask(*values(asked))


def test_what_cannot_be_asked_is_one_line_on_the_page(does: Callbacks, desk: Desk, picture: Path) -> None:
    for asked, line in (
        (replace(form(desk, picture), text=""), "there is no question yet"),
        (form(desk, picture, task="retrieval", box="1,2,3,4"), "a box for retrieval"),
        (form(desk, Path("/absent.png")), "no picture /absent.png"),
    ):
        notice, answers, _, _, _, is_asked, *_ = does.ask(*values(asked))
        assert line in notice and notice.count("<p") == 1 and '<p class="answer">' not in answers and not is_asked
    assert "there is no picture yet" in does.where(*values(form(desk, None))[: len(FIELDS)])[0]
    assert "there is no question yet" in does.explain(*values(replace(form(desk, picture), text=""))[: len(FIELDS)])[0]


def test_an_upload_is_taken_or_one_line(does: Callbacks, picture: Path, tmp_path: Path) -> None:
    path, _, notice, is_asked, _ = does.take({"path": str(picture)})
    assert (path, notice, is_asked) == (str(picture), "", False)
    (tmp_path / "text.png").write_text("not a picture")
    path, shown, notice, *_ = does.take({"path": str(tmp_path / "text.png")})
    assert path is shown is None and "text.png" in notice and notice.count("<p") == 1 and str(tmp_path) not in notice
    assert does.take(None)[:2] == (None, None)


def test_the_map_is_shaded_by_one_answer(does: Callbacks, desk: Desk, picture: Path) -> None:
    asked = form(desk, picture, heads=("0.1",))
    notice, explanation, drawn, table = does.explain(*values(asked)[: len(FIELDS)])
    assert notice == "" and "needs" in drawn and 'aria-pressed="true" data-pick="0.1"' in drawn
    assert len(explanation.all_heads) == 12 and "<table>" in table
    assert "needs" in does.follow(*values(asked, explanation))[2]
    assert does.follow(*values(asked, explanation, before=True))[-1] is explanation
    assert does.ask(*values(asked, explanation))[-1] is None, "it was of another question"
    _, again, table, forgotten = does.choose_task(asked.model, "retrieval", ["0.1"])
    assert "Heads: retrieval in the run" in again and "<table>" in table and forgotten is None


def test_where_in_the_picture_is_of_each_model_own_answer(does: Callbacks, desk: Desk, picture: Path) -> None:
    import numpy as np

    from hones.method.analysis.where import layout_of
    from hones.method.analysis.where_drop import slow_drops

    asked = form(desk, picture, heads=("0.1", "2.0"))
    notice, page = does.where(*values(asked)[: len(FIELDS)])
    assert notice == "" and page.count("<img") == 2
    maps = [of for of, _ in desk.where(asked)]
    vlm, example = desk.vlm(asked.model), desk.question(asked).example()
    answer = desk.ask(asked).replies[1].answer
    example = replace(example, target=answer, references=(answer,))
    layout = layout_of(vlm, example)
    with desk.edit(asked).intervention(vlm, "vqa").on(vlm.model):
        slow = layout.grid(slow_drops(vlm, example, layout.tokens_at()))
    assert np.allclose(maps[1].values, slow, atol=1e-4, equal_nan=True)
    assert not np.allclose(maps[0].values, maps[1].values, atol=1e-4), "the edit changes the map"
    assert len(desk.where(replace(asked, heads=()))) == 1


def test_an_item_of_the_run_is_asked_again_with_what_changed_it(does: Callbacks, desk: Desk) -> None:
    gallery = does.gallery()
    assert gallery.count("data-pick") == len(desk.offered.changed) and "<s>Yes</s>" in gallery and "<img" in gallery
    path, shown, notice, can_be, task, text, fields, box, *edit, table, forgotten = does.choose_item(does.model, 0)
    heads, neurons, scales = edit
    item = desk.offered.changed[0]
    assert can_be and notice == "" and path == str(item.picture) and shown.size == (96, 96)
    assert (task, heads, forgotten) == ("retrieval", [], None) and "<table>" in table
    assert text.value == item.asked and (fields, box, scales) == ("", "", NO_SCALES)
    assert neurons == [*desk.offered.neurons], "it was the masking that changed it"
    assert does.ask(does.model, task, path, text.value, fields, box, heads, neurons, scales, None, False)[5]


def test_another_model_is_not_offered_what_is_of_the_run(
    desk: Desk,
    model_folders: dict[str, Path],
) -> None:
    qwen = str(model_folders["qwen"])
    does = Callbacks(Desk([*desk.specs.values(), ModelSpec(qwen)], desk.offered, 3))
    notice, heads, neurons, scales, drawn, *_ = does.choose_model(qwen, "retrieval")
    assert "is not the model of the run" in notice and not neurons.visible and not scales.visible
    assert len(heads.choices) == sum(does.desk.head_counts(qwen)) and "in the run" not in drawn
    notice, _, neurons, *_ = does.choose_model(does.model, "retrieval")
    assert notice == "" and neurons.visible
    assert "no model" in does.choose_model("absent", "vqa")[0]


def test_the_page_is_built_for_this_machine_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens where it is told, sends no analytics and shares no link."""
    launched: dict[str, Any] = {}

    async def opened() -> Page:  # where a loop runs gradio makes none that nobody closes
        page = Page(desk)
        monkeypatch.setattr(type(page.blocks), "launch", lambda self, **options: launched.update(options))
        page.open("127.0.0.1", 7999)
        return page

    assert asyncio.run(opened()).blocks.analytics_enabled is False
    assert launched["share"] is False and launched["server_name"] == "127.0.0.1" and launched["server_port"] == 7999


@contextmanager
def app(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`hones app` as one starts it, in a process of its own."""
    command = [sys.executable, "-m", "hones", "app", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def said_by(process: subprocess.Popen[str]) -> str:
    """All that a process says until it ends or says where it listens."""
    assert process.stdout is not None
    said = ""
    while "Ctrl-C" not in said and (line := process.stdout.readline()):
        said += line
    return said


def test_an_address_in_use_is_one_line(model_folders: dict[str, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with app("--model", model_folders["llava"], "--port", port) as process:
            (line,) = said_by(process).splitlines()
            assert process.wait(30) == 2
    assert line.startswith(f"hones: cannot listen on 127.0.0.1, port {port} (")
    assert line.endswith("; choose another --host or --port")


@pytest.fixture
def opened(app_run: Path) -> Iterator[str]:
    with app(app_run, "--max-new-tokens", 3) as process:
        said = said_by(process)
        address = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert address is not None, said
        yield address[0]


def changing_head(desk: Desk, picture: Path) -> str:
    """A head without which the model answers otherwise in the words of the run's task, which the page chooses."""
    heads = (f"{layer}.{head}" for layer in range(3) for head in range(4))
    for head in heads:
        before, after = desk.ask(form(desk, picture, task="retrieval", heads=(head,))).replies
        if before.answer != after.answer:
            return head
    pytest.fail("no head changes the answer: choose another question")


@needs_browser
def test_a_head_that_is_clicked_changes_the_answer(
    opened: str,
    desk: Desk,
    picture: Path,
    tmp_path: Path,
) -> None:
    """Upload, ask, click a head, see another answer; something that is no picture; nothing from elsewhere."""
    head = changing_head(desk, picture)
    before, after = desk.ask(form(desk, picture, task="retrieval", heads=(head,))).replies
    (tmp_path / "text.png").write_text("not a picture")
    with Browser(tmp_path / "profile") as browser:
        browser.go(opened)
        browser.until("!!document.querySelector('#map [data-pick]')")
        browser.choose("#picture input[type=file]", tmp_path / "text.png")
        browser.until("document.querySelector('#notice').innerText.includes('text.png')")
        assert "Traceback" not in browser.text("body")
        browser.choose("#picture input[type=file]", picture)
        browser.until("!!document.querySelector('#picture img') && !document.querySelector('#notice').innerText.trim()")
        browser.type("#question input, #question textarea", QUESTION)
        browser.click("#ask")
        browser.until("document.querySelectorAll('#answers .answer').length === 1")
        said = "[...document.querySelectorAll('#answers .answer')].map((e) => e.textContent)"
        assert [re.sub(" …$", "", text) for text in browser.run(said)] == [before.answer or "(empty)"]
        browser.click(f'#map [data-pick="{head}"]')
        browser.until("document.querySelectorAll('#answers .answer').length === 2")
        texts = [re.sub(" …$", "", text) for text in browser.run(said)]
        assert texts == [reply.answer or "(empty)" for reply in (before, after)]
        assert "another answer" in browser.text("#answers")
        assert (
            browser.run(f"document.querySelector('#map [data-pick=\"{head}\"]').getAttribute('aria-pressed')") == "true"
        )
        browser.resize(420, 900, phone=True)
        browser.until("document.documentElement.clientWidth === 420")
        assert browser.run("document.documentElement.scrollWidth") == 420, "nothing scrolls sideways on a phone"
        outside = [url for url in browser.requested if not url.startswith((opened, "data:", "blob:"))]
        assert outside == [] and browser.logged == []


def test_a_page_without_a_run_has_a_map_to_click(model_folders: dict[str, Path]) -> None:
    does = Callbacks(Desk([ModelSpec(str(model_folders["llava"]))], Offered(), 3))
    assert does.task == "vqa" and does.gallery() == ""
    assert does.map(Form(does.model)).count("data-pick") == 12
    assert "no run that has neurons of this task" in does.neurons(Form(does.model))
