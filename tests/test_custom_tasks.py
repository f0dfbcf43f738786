"""Tasks that users bring: YAML files and Python classes, alone and through every stage."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from test_cli import call

from hones import HonesError, load_items, make_task
from hones.data.items import Item, Items
from hones.data.shapes.language import existence
from hones.data.shapes.scene import make_scene
from hones.method.direction import target_ids
from hones.method.steering.pairs import training_pairs
from hones.models.vlm import VLM
from hones.tasks import in_order, make_tasks
from hones.tasks.custom import METRICS, FieldTask, task_of_content
from hones.tasks.yes_no import says_yes

POPE = Path(__file__).parents[1] / "docs/examples/pope.yaml"
IMAGES = Path("pictures")
AS_BUILT_IN: dict[str, dict[str, Any]] = {
    "vqa": {
        "prompt": "Question: {vqa.question}\nAnswer the question with a short phrase.",
        "target": "vqa.answer",
        "references": "vqa.all_answers",
        "metric": "vqa_soft_accuracy",
    },
    "ocr": {
        "prompt": "Transcribe the text inside the blue box.\nOutput text only.",
        "target": "ocr.text",
        "box": "ocr.bbox",
        "metric": "anls",
    },
    "caption": {"prompt": "Describe the image in one sentence.", "target": "captions.caption", "metric": "bleu4"},
}


def task_like(**changes: Any) -> FieldTask:
    content = {"name": "mine", "prompt": "Say it.", "target": "vqa.answer", "metric": "exact_match"}
    return task_of_content({k: v for k, v in (content | changes).items() if v is not None}, "mine.yaml")


def item(**fields: Any) -> Item:
    return Item.model_validate({"image_id": 1, "image_info": {"file_name": "1.png"}, **fields})


@pytest.mark.parametrize("name", AS_BUILT_IN)
def test_yaml_can_say_what_the_built_in_tasks_do(name: str, discovery: Items) -> None:
    mine, own = task_like(**AS_BUILT_IN[name]), make_task(name)
    examples, left_out = mine.examples(discovery)
    assert (examples, left_out) == own.examples(discovery)
    for i, example in enumerate(examples):
        assert mine.answers_to_learn(example) == own.answers_to_learn(example)
        answer = f"{example.references[0]} a" if i % 2 else "a red circle"
        found = mine.statistics(example, answer)
        assert np.array_equal(found, own.statistics(example, answer))
        assert np.array_equal(mine.score(found), own.score(found))
    targets = [[1, 2, 2], [2, 3]]
    for weights, expected in zip(mine.token_weights(targets), own.token_weights(targets), strict=True):
        assert np.array_equal(weights, expected)


@given(st.lists(st.tuples(st.booleans(), st.floats(-2, 2)), max_size=12))
def test_yes_no_scores_are_those_of_the_confusion_table(cells: list[tuple[bool, float]]) -> None:
    task = task_like(answers="yes_no", metric="yes_no_accuracy", target="gold")
    sums = np.zeros(4)
    for gold, margin in cells:
        sums += task.statistics(task.example(item(gold=gold), IMAGES), np.array([margin]))
    said = [margin > 0 for _, margin in cells]
    details = task.details(sums)
    if not cells:
        assert np.isnan([*details.values()]).all() and np.isnan(METRICS["yes_no_f1"].score(sums))
        return
    right = sum(gold == yes for (gold, _), yes in zip(cells, said, strict=True))
    both = sum(gold and yes for (gold, _), yes in zip(cells, said, strict=True))
    asked, told = sum(gold for gold, _ in cells), sum(said)
    precision, recall = both / told if told else 0, both / asked if asked else 0
    f1 = 2 * precision * recall / (precision + recall) if both else 0
    expected = [right / len(cells), precision, recall, f1, told / len(cells)]
    assert [*details.values()] == pytest.approx(expected)
    assert [*details] == ["accuracy", "precision", "recall", "f1", "yes_ratio"]
    assert float(task.score(sums)) == pytest.approx(right / len(cells))
    assert float(METRICS["yes_no_f1"].score(sums)) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "yes"),
    [("Yes.", True), ("No, it is not.", False), ("There is not", False), ("Yes. No.", True), ("", True)],
)
def test_texts_are_read_as_popes_script_reads_them(text: str, yes: bool) -> None:
    assert says_yes(text) == yes


def test_a_margin_that_is_no_number_stops(discovery: Items) -> None:
    task = make_task(str(POPE))
    example = task.examples(discovery)[0][0]
    with pytest.raises(HonesError, match="is NaN"):
        task.statistics(example, np.array([np.nan]))


def test_vqa_exact_match_forgets_case_articles_and_punctuation() -> None:
    task = task_like(references="vqa.all_answers", metric="vqa_exact_match")
    example = task.example(item(vqa={"question": "?", "answer": "cat", "all_answers": ["cat", "two dogs"]}), IMAGES)
    assert [task.statistics(example, a)[0] for a in ("A cat!", "2 dogs", "cats")] == [1, 1, 0]


def test_unknown_fields_reach_templates_and_missing_ones_are_named() -> None:
    task = task_like(prompt="{extra.list.1.name} of {vqa.kind}: {{{n}}}", target="yes")
    good = {"extra": {"list": [{}, {"name": "X"}]}, "vqa": {"question": "?", "answer": "a", "kind": "k"}, "n": 3}
    example = task.example(item(**good, yes=" it "), IMAGES)
    assert example.prompts == ("X of k: {3}",) and example.target == "it"
    for change, reason in (
        ({"n": None}, "it has no field n"),
        ({"n": {}}, "its field n is an object"),
        ({"n": " "}, "its field n is empty"),
        ({"n": [1, 2]}, "its field n has 2 values, one is needed"),
        ({"yes": None}, "it has no field yes"),
        ({"extra": {"list": [1]}}, "it has no field extra.list.1.name"),
    ):
        bad = Items((item(**{**good, "yes": "it", **change}),), IMAGES, "0")
        examples, (left_out,) = task.examples(bad)
        assert not examples and left_out.id == "1" and reason in left_out.reason


def test_only_what_the_file_holds_is_looked_up() -> None:
    examples, (left_out,) = task_like(prompt="{__class__.__name__}").examples(
        Items((item(vqa={"question": "?", "answer": "a"}),), IMAGES, "0")
    )
    assert not examples and left_out.reason == "it has no field __class__.__name__"


def test_boxes_of_any_field_are_checked() -> None:
    task = task_like(target="ocr.text", box="other")
    text = {"text": "A", "bbox": [0, 0, 1, 1]}
    assert task.example(item(ocr=text, other=[1, 2, 3, 4]), IMAGES).box == (1, 2, 3, 4)
    for box, reason in (([1, 2, 3], "3 numbers"), (["a"] * 4, "no list of numbers"), ([1, 1, 0, 4], "no area")):
        _, (left_out,) = task.examples(Items((item(ocr=text, other=box),), IMAGES, "0"))
        assert reason in left_out.reason


def test_max_items_takes_the_first_usable_ones(discovery: Items) -> None:
    assert [e.id for e in task_like(max_items=2).examples(discovery)[0]] == ["1", "2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vqa"}, "name: the name 'vqa' is taken"),
        ({"name": "Analysis"}, "name: the name 'Analysis' is taken"),
        ({"name": "../up"}, "name: '../up' cannot name a folder"),
        ({"name": None}, "name: Field required"),
        ({"prompt": "{a.b"}, "prompt: expected '}'"),
        ({"prompt": "{}"}, "prompt: {} is no field"),
        ({"prompt": "{a!r}"}, "prompt: {a} is no field"),
        ({"prompt": " "}, "prompt: it is empty"),
        ({"target": "a b"}, "target: 'a b' is no field"),
        ({"metric": "accuracy"}, "metric: no metric 'accuracy', there are exact_match"),
        ({"answers": "yes_no"}, "answers: yes_no cannot be scored by exact_match"),
        ({"max_items": 0}, "max_items: Input should be greater"),
        ({"colour": 1}, "no key colour; expected some of name, prompt, target"),
    ],
)
def test_mistakes_in_a_task_file_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HonesError) as caught:
        task_like(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value) and "mine.yaml" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"a: [", b"\xff\xfe\x00", b"a: \x00", b"? [1]\n: 2", b"1: 2"])
def test_files_that_are_no_task_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.yaml").write_bytes(content)
    with pytest.raises(HonesError) as caught:
        make_task(str(tmp_path / "t.yaml"))
    assert "t.yaml" in str(caught.value) and "\n" not in str(caught.value)


CLASS = """
from dataclasses import replace
import numpy as np
from hones import BadItem, Task, make_task

class Mine(Task):
    name, metric_name, answers, statistic_names = "mine", "certainty", "yes_no", ("yes", "n")

    def example(self, item, images):
        return replace(make_task("retrieval", candidates=3).example(item, images), references=())

    def statistics(self, example, answer):
        return np.array([1 / (1 + np.exp(-answer[0])), 1.0])

    def score(self, sums):
        return sums[..., 0] / sums[..., 1]

class Taken(Mine):
    name = "vqa"

class Bare(Task):
    name = "bare"

class Demanding(Mine):
    def __init__(self, wanted):
        pass

class Unknown(Mine):
    answers = "pictures"
"""


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CLASS)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine.py:Absent", "has no task class 'Absent'"),
        ("mine.py:BadItem", "has no task class 'BadItem'"),
        ("mine.py:Taken", "the name 'vqa' is taken"),
        ("mine.py:Bare", "lacks example, score, statistics, metric_name"),
        ("mine.py:Demanding", "missing 1 required positional argument"),
        ("mine.py:Unknown", "answers = 'pictures'; expected text or yes_no"),
        ("absent.py:Mine", "cannot read the task absent.py"),
        ("broken.py:Mine", "cannot import broken.py"),
        ("no.such.module:Mine", "cannot import 'no.such.module'"),
        (":Mine", "cannot import ''"),
        ("absent.yaml", "cannot read the task absent.yaml"),
        ("telepathy", "no task 'telepathy'"),
    ],
)
def test_mistakes_in_a_class_are_one_line(
    classes: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(classes.parent)
    Path("broken.py").write_text("import )")
    with pytest.raises(HonesError) as caught:
        make_task(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_of_a_package_and_of_a_file(classes: Path, monkeypatch: pytest.MonkeyPatch, discovery: Items) -> None:
    monkeypatch.syspath_prepend(classes.parent)
    found = [make_task(f"{classes}:Mine"), make_task("mine:Mine")]
    assert [task.name for task in found] == ["mine", "mine"]
    assert found[0].definition and found[1].definition and found[0].definition.digest == found[1].definition.digest
    assert len(found[0].examples(discovery)[0]) == len(discovery)
    classes.write_text(CLASS.replace("certainty", "sureness"))
    changed = make_task(f"{classes}:Mine")
    assert changed.metric_name == "sureness" and changed.definition != found[0].definition


def test_a_class_changes_with_the_files_beside_it_that_it_imports(
    classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(classes.parent)
    helper, further, other = (classes.parent / f"{name}_of_mine.py" for name in ("words", "letters", "unused"))
    classes.write_text(f"import {helper.stem}\n{CLASS}")
    helper.write_text(f"from {further.stem} import A\n")
    further.write_text("A = 1\n")

    def digest() -> str:
        definition = make_task(f"{classes}:Mine").definition
        assert definition is not None
        return definition.digest

    before = digest()
    other.write_text("B = 1\n")
    assert digest() == before
    further.write_text("A = 2\n")
    assert digest() != before


def test_two_tasks_of_one_name_are_refused(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(task_like().definition.content))  # pyright: ignore
    with pytest.raises(HonesError, match="two tasks are named mine"):
        make_tasks(f"vqa,{classes}:Mine,{tmp_path / 'mine.yaml'}")
    assert in_order(["zebra", "caption", "mine", "vqa"]) == ["vqa", "caption", "mine", "zebra"]


def test_yes_and_no_targets_have_their_own_token_and_are_learned(vlm: VLM, discovery: Items) -> None:
    task = make_task(str(POPE))
    examples, _ = task.examples(discovery)
    assert {e.target for e in examples} == {"Yes", "No"}
    ids = {e.target: target_ids(vlm, task, e) for e in examples}
    assert ids == {"Yes": [vlm.answer_tokens.yes], "No": [vlm.answer_tokens.no]}
    pairs = training_pairs(task, examples, random.Random(0))
    assert sorted((p.example.id, p.answer) for p in pairs) == sorted((e.id, e.target) for e in examples)


def test_generated_items_ask_about_things_that_are_there_or_not() -> None:
    answers = []
    for seed in range(200):
        scene = make_scene(seed)
        asked = existence(scene, random.Random(seed))
        assert (asked["object"] in {t.name for t in scene.things}) == (asked["answer"] == "yes")
        answers.append(asked["answer"])
    assert 80 < answers.count("yes") < 120


def test_a_task_file_goes_through_every_stage(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pope.yaml").write_text(POPE.read_text())
    content = {
        "model": str(model_folders["llava"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "limit": {"dev": 2, "test": 3},
        "tasks": ["pope.yaml"],
        "top_k": 12,
        "ratio": 0.1,
        "draws": 1,
        "steering": {"epochs": 1, "learning_rate": 0.02},
        "compare": {"methods": ["wanda"], "draws": 1, "curves": False},
        "analyze": {"cards": 1, "draws": 1, "lens_items": 0},
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    assert call("run", tmp_path / "c.yaml") == 0, capsys.readouterr().err
    run = tmp_path / "run"
    for file in ("heads.json", "neurons.json", "masking.json", "comparison.json", "steering/hones/scales.json"):
        assert (run / "pope" / file).is_file()
    masking = json.loads((run / "pope/masking.json").read_text())
    assert masking["metric_name"] == "yes_no_accuracy"
    assert masking["baseline_details"].keys() == {"accuracy", "precision", "recall", "f1", "yes_ratio"}
    assert "pope" in (run / "report.html").read_text()
    record = json.loads((run / "run.json").read_text())["stages"]["pope/heads"]
    assert record["discovery"]["task"]["content"] == yaml.safe_load(POPE.read_text())
    (tmp_path / "pope.yaml").unlink()
    assert call("analyze", run, "--fresh", "--cards", 0, "--draws", 1, "--lens-items", 0) == 0, (
        "YAML tasks come from run.json"
    )

    data = ("--data", shapes["discovery"], "--out", run)
    (tmp_path / "pope.yaml").write_text(POPE.read_text().replace("Answer Yes or No.", "Yes or No?"))
    capsys.readouterr()
    assert call("heads", "--model", model_folders["llava"], "--task", tmp_path / "pope.yaml", *data) == 2
    assert "holds pope/heads with asked = " in capsys.readouterr().err
    (tmp_path / "pope.yaml").write_text(POPE.read_text().replace("accuracy", "f1"))
    assert call("heads", "--model", model_folders["llava"], "--task", tmp_path / "pope.yaml", *data) == 2
    assert "holds pope/heads with task = " in capsys.readouterr().err


def test_a_class_goes_through_the_stages_and_analyze_runs_no_code_unasked(
    classes: Path, model_folders: dict[str, Path], shapes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, task = classes.parent / "run", f"{classes}:Mine"
    common = ("--model", model_folders["llava"], "--out", run, "--task", task)
    assert call("heads", *common, "--data", shapes["discovery"]) == 0
    found = ("--heads", run / "mine/heads.json", "--ratio", 0.1)
    assert call("neurons", *common, "--data", shapes["discovery"], *found) == 0
    chosen = ("--neurons", run / "mine/neurons.json", "--draws", 1)
    assert call("mask", *common, "--data", shapes["test"], *chosen) == 0
    capsys.readouterr()
    assert call("analyze", run, "--cards", 1, "--draws", 1, "--lens-items", 0) == 2
    assert f"mine of {run} is a Python class; pass --task {task}" in capsys.readouterr().err
    assert call("analyze", run, "--cards", 1, "--draws", 1, "--lens-items", 0, "--task", task) == 0
    classes.write_text(CLASS + "\n# other")
    assert call("analyze", run, "--task", task) == 2
    assert "the task mine has changed" in capsys.readouterr().err


def test_items_of_a_file_keep_what_they_carry(shapes: dict[str, Path]) -> None:
    found = load_items(shapes["dev"]).items[0]
    assert found.model_extra and found.model_extra["pope"]["answer"] in ("yes", "no")


def test_a_mistake_in_a_users_class_is_named_by_its_line(
    classes: Path,
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = CLASS.replace("np.array([1 / (1 + np.exp(-answer[0])), 1.0])", "np.array([1 / 0, 1.0])")
    classes.write_text(broken)
    line = 1 + broken.splitlines().index("        return np.array([1 / 0, 1.0])")
    task = f"{classes}:Mine"
    arguments = ("--model", model_folders["llava"], "--task", task, "--data", shapes["dev"], "--out", tmp_path / "run")
    assert call("heads", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    log = tmp_path / "run" / "hones.log"
    assert error == f"hones: {classes}:{line}: ZeroDivisionError: division by zero; details in {log}"
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import hones\n\nx = {}['key']\n", "cannot import broken.py (broken.py:3: KeyError: 'key'); check --task"),
        ("class Mine:\n    y = 1 / 0\n", "(broken.py:2: ZeroDivisionError: division by zero)"),
        ("raise BaseException('out of all lists')\n", "(broken.py:1: BaseException: out of all lists)"),
        ("def f(:\n", "cannot import broken.py (invalid syntax"),
        (
            "from hones import Task\nclass Mine(Task):\n    name, metric_name, answers = 'm', 'm', 'text'\n"
            "    statistic_names = ('n',)\n    example = statistics = score = lambda *_: None\n"
            "    def __init__(self):\n        self.x = self.y\n",
            "cannot make broken.py:Mine (broken.py:7: AttributeError: 'Mine' object has no attribute 'y')",
        ),
    ],
)
def test_whatever_the_users_own_code_raises_is_one_line_with_its_place(
    code: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(code)
    for _ in range(2):  # and it is tried again, as it may be mended
        with pytest.raises(HonesError) as caught:
            make_task("broken.py:Mine")
        assert line in str(caught.value).replace(f"{tmp_path}/", "")
