"""`ask` and `explain` in the words of any task, without an annotation file."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import call
from test_custom_tasks import POPE, task_like

from hones import HonesError, ask, explain, load_items, make_task
from hones.files import read_json
from hones.models.vlm import VLM
from hones.sweep.run import SweepSettings
from hones.tasks.asking import ask_as
from hones.tasks.base import BarePrompt, Task
from hones.tasks.custom import task_of_content

CAPITALS = POPE.parent / "capitals/task.yaml"
CLASS = """
from pathlib import Path
from hones import BadItem, Example, Task

class Colour(Task):
    name, metric_name, answers, statistic_names = "colour", "named", "text", ("hits", "n")

    def example(self, item, images):
        of = item.model_extra.get("thing", {}).get("name")
        if of is None:
            raise BadItem("it has no thing.name")
        image = None if item.file_name is None else images / item.file_name
        return Example(item.id, image, (f"Colour of {of}?",), "red", ("red",))

    def statistics(self, example, answer):
        return None

    def score(self, sums):
        return sums
"""


@pytest.fixture
def colour(tmp_path: Path) -> Task:
    (tmp_path / "colour.py").write_text(CLASS)
    return make_task(f"{tmp_path}/colour.py:Colour")


def test_the_prompt_is_the_one_that_the_task_asks_about_an_item(shapes: dict[str, Path]) -> None:
    items = load_items(shapes["test"])
    item = items[0]
    assert item.vqa is not None and item.ocr is not None and item.file_name is not None
    image = items.images / item.file_name
    pope: Any = (item.model_extra or {})["pope"]
    questions = {"vqa": item.vqa.question, str(POPE): pope["object"], "caption": None, "ocr": None}
    for name, question in questions.items():
        task = make_task(name)
        asked = ask_as(task, image, question, box=item.ocr.bbox if name == "ocr" else None)
        wanted = task.example(item, items.images)
        assert (asked.image, asked.prompts, asked.box) == (wanted.image, wanted.prompts, wanted.box)
    retrieval = ask_as(make_task("retrieval"), image, item.captions[0].caption)
    assert retrieval.prompts[0] == make_task("retrieval", candidates=2).examples(items)[0][0].prompts[0]


def test_a_question_fills_the_field_that_is_not_named(picture: Path) -> None:
    task = task_like(prompt="{a}: {b.c} {{of}} {a}")
    assert ask_as(task, picture, "who? ", {"a": "x"}).prompts == ("x: who? {of} x",)
    assert ask_as(task, picture, None, {"a": "x", "b.c": "y"}).prompts == ("x: y {of} x",)


def test_a_class_makes_its_prompt_of_the_named_fields(colour: Task, picture: Path) -> None:
    asked = ask_as(colour, picture, None, {"thing.name": "the star"})
    assert (asked.image, asked.prompts) == (picture, ("Colour of the star?",))
    assert ask_as(colour, None, None, {"thing.name": "the star"}).image is None
    for fields, message in (
        ({}, "colour cannot be asked so: it has no thing.name; give what its items hold: --field NAME=VALUE"),
        ({"thing": "x", "thing.name": "y"}, "--field thing.name beside --field thing"),
        ({"captions": "x"}, "colour cannot be asked so: captions: "),
    ):
        with pytest.raises(HonesError, match=message):
            ask_as(colour, picture, None, fields)
    with pytest.raises(HonesError, match="a question with colour; expected none: a Python class makes"):
        ask_as(colour, picture, "What?", {})


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (
            {"prompt": "{a} {b}"},
            {"question": "x"},
            "one question for 2 fields of the prompt of mine: a, b; expected one",
        ),
        (
            {"prompt": "{a} {b}"},
            {},
            "no question for mine; expected what its prompt has at a, b; --field a=VALUE --field",
        ),
        (
            {"prompt": "{a}"},
            {"question": "x", "fields": {"b": "y"}},
            "--field b: no field of the prompt of mine; exp.* a$",
        ),
        ({"prompt": "{a}"}, {"fields": {"a": " "}}, "--field a is empty"),
        ({"prompt": "{a}"}, {"question": " "}, "the question ' ' is empty"),
        ({}, {"question": "x"}, "a question with mine; expected none: the task asks its own"),
        ({}, {"picture": None}, "no picture for mine; expected the one to ask about, with --image"),
        ({"picture": "none"}, {}, "a picture for mine; expected none: the task shows none"),
        ({"box": "ocr.bbox"}, {}, "no box for mine; expected the one to outline, with --box"),
        ({}, {"box": (1, 2, 3, 4)}, "a box for mine; expected a box for ocr, or a task that outlines one"),
    ],
)
def test_what_does_not_fit_is_one_line(
    task: dict[str, Any], options: dict[str, Any], message: str, picture: Path
) -> None:
    given = {"picture": picture, "question": None} | options
    with pytest.raises(HonesError, match=message):
        ask_as(task_like(**task), **given)


def test_ask_and_explain_take_any_task(vlms: dict[str, VLM], picture: Path) -> None:
    vlm = vlms["llava"]
    asked = ask(vlm, picture, "red circle", task=str(POPE), max_new_tokens=2)
    assert asked.prompt == "Is there a red circle in the image?\nAnswer Yes or No."
    found = explain(
        vlm,
        None,
        "Which?",
        task=task_like(prompt="{q} {r}", picture="none"),
        fields={"r": "Say."},
        answer="red",
        neurons=1,
    )
    assert (found.question, found.picture, found.answer) == ("Which? Say.", "", "red")
    with pytest.raises(HonesError, match="raw with pope; expected a question for vqa alone"):
        explain(vlm, picture, "red circle", task=str(POPE), raw=True, settings=SweepSettings())


def test_the_commands_take_task_files(
    model_folders: dict[str, Path], picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asking = ("ask", "--model", model_folders["qwen"], "--max-new-tokens", 2)
    assert call(*asking, "--task", CAPITALS, "What is the capital of Peru?") == 0
    assert "What is the capital of Peru?" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "two.yaml").write_text(json.dumps(task_like(prompt="{a} or {b}?").file.model_dump(exclude_none=True)))
    two = ("--task", tmp_path / "two.yaml", "--image", picture)
    assert call(*asking, *two, "--field", "a=red = r", "--field", "b=blue") == 0
    assert "red = r or blue?" in " ".join(capsys.readouterr().out.split())
    explaining = ("explain", "--model", model_folders["qwen"], "--answer", "red", "--neurons", 1, "--out", tmp_path)
    assert call(*explaining, *two, "--field", "a=red", "blue") == 0
    assert read_json(tmp_path / "explanation.json")["question"] == "red or blue?"
    capsys.readouterr()
    assert call(*explaining, *two, "--raw", "blue") == 2
    assert "hones: --raw with --task" in capsys.readouterr().err
    for field in ("a", "=x"):
        assert call(*asking, *two, "--field", field) == 2
        assert f"hones: --field {field}; expected NAME=VALUE, each name once" in capsys.readouterr().err


def test_a_bare_prompt_is_asked_bare() -> None:
    content = {
        "name": "t",
        "picture": "none",
        "template": "none",
        "prompt": "{q} is",
        "target": "a",
        "metric": "prefix",
    }
    (prompt,) = ask_as(task_of_content(content, "t.yaml"), None, "It").prompts
    assert isinstance(prompt, BarePrompt) and prompt == "It is"
