"""What the model says is kept next to the numbers, shown, and looked at before a sweep."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from test_cli import call

from hones import HonesError, RunFolder, Study, load_items, make_task
from hones.cli.see import look_before
from hones.errors import TaskStops
from hones.files import write_json
from hones.method.heads import HeadResult, HeadScore
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.settings import SteeringSettings, TrainingSummary
from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.runs.answer_table import Answers, answers_of
from hones.runs.answers import AnsweredItem, Said, keep_answers, read_answers
from hones.runs.artifacts import read_heads, write_heads
from hones.runs.evaluation import evaluate
from hones.runs.prepared import prepare
from hones.stats import UNEDITED, Interval
from hones.sweep.answer_log import AnswerLog, ArmAnswer, ItemAnswers
from hones.sweep.journal import Journal
from hones.sweep.measure import measure
from hones.sweep.run import KeptAnswers, SweepSettings
from hones.tabular import together
from hones.tasks.custom import task_of_content
from hones.tasks.log_probability import LogProbability
from hones.tasks.matching import Contains
from hones.views.terminal import show

SWEEP = SweepSettings(max_new_tokens=4)


def study(vlm: VLM, folder: Path, **settings: Any) -> Study:
    return Study(vlm, RunFolder(folder), replace(SWEEP, **settings))


def neurons_file(folder: Path, rows: list[tuple[int, int]]) -> Path:
    file = folder / "chosen.json"
    ranked = [{"rank": n, "layer": at, "neuron": i, "score": 1.0} for n, (at, i) in enumerate(rows, 1)]
    file.write_text(json.dumps(ranked))
    return file


@pytest.fixture
def masked(vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path) -> Path:
    """A run folder with heads and masking of two tasks."""
    made = study(vlms["llava"], tmp_path / "run")
    many = neurons_file(tmp_path, [(layer, i) for layer in range(2) for i in range(8)])
    items = load_items(shapes["test"])
    tasks = [make_task("vqa"), make_task("retrieval", candidates=4)]
    made.heads(tasks, load_items(shapes["discovery"]))
    for task in tasks:
        made.mask(task, items, many, draws=2)
    return tmp_path / "run"


def test_the_file_holds_what_the_model_generates(vlms: dict[str, VLM], shapes: dict[str, Path], masked: Path) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    examples = task.examples(load_items(shapes["test"]))[0]
    by_id = {item.id: item for item in read_answers(masked / "vqa/answers.jsonl") if item.split == "test"}
    assert [*by_id] == [example.id for example in examples]
    edit = Intervention(masked=frozenset((layer, i) for layer in range(2) for i in range(8)))
    for example in examples:
        item = by_id[example.id]
        assert [*item.answers] == ["unedited", "masked", "random", "random #2"]
        assert (item.prompt, item.target, item.references) == (example.prompts[0], example.target, example.references)
        assert item.picture is not None and (masked / item.picture).resolve() == (example.image or Path()).resolve()
        encoded = vlm.encode([example.open_picture()], [example.prompts[0]])
        (unedited,) = vlm.generate(encoded, 4)
        with edit.on(vlm.model):
            (edited,) = vlm.generate(encoded, 4)
        assert (item.answers["unedited"].answer, item.answers["masked"].answer) == (unedited, edited)
        score = float(task.score(task.statistics(example, unedited)))
        assert item.answers["unedited"].score == pytest.approx(score)


def test_yes_or_no_tasks_keep_margins_and_rank(masked: Path, shapes: dict[str, Path]) -> None:
    task = make_task("retrieval", candidates=4)
    examples = task.examples(load_items(shapes["test"]))[0]
    items = [item for item in read_answers(masked / "retrieval/answers.jsonl") if item.split == "test"]
    for item, example in zip(items, examples, strict=True):
        said = item.answers["unedited"]
        assert said.margins is not None and len(said.margins) == 4
        assert said.answer == example.references[int(np.argmax(said.margins))]
        assert said.rank == 1 + sum(margin > said.margins[0] for margin in said.margins)
        assert item.wanted == example.references[0]


def test_engines_and_resumed_sweeps_keep_the_same_answers(
    vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [make_task("vqa"), make_task("retrieval", candidates=3)]
    items = load_items(shapes["discovery"])
    append = Journal.append

    def once(self: Journal, *arguments: Any) -> None:
        append(self, *arguments)
        monkeypatch.undo()
        raise KeyboardInterrupt

    for name, settings in {"replay": {}, "naive": {"engine": "naive"}, "killed": {"batch_size": 1}}.items():
        if name == "killed":
            monkeypatch.setattr(Journal, "append", once)
            with pytest.raises(KeyboardInterrupt):
                study(vlms["llava"], tmp_path / name, **settings).heads(tasks, items)
            assert not (tmp_path / name / "vqa/answers.jsonl").exists()
        study(vlms["llava"], tmp_path / name, **settings).heads(tasks, items)
    files = {name: (tmp_path / name / "vqa/answers.jsonl").read_text() for name in ("replay", "naive", "killed")}
    assert files["replay"] == files["naive"] == files["killed"] != ""
    margins = [
        [item.answers["unedited"].margins for item in read_answers(tmp_path / name / "retrieval/answers.jsonl")]
        for name in ("replay", "naive", "killed")
    ]
    np.testing.assert_allclose(np.array(margins[0]), np.array(margins[1]), atol=2e-3)
    np.testing.assert_allclose(np.array(margins[0]), np.array(margins[2]), atol=2e-3)


def test_a_stage_replaces_its_own_arms_alone(vlms: dict[str, VLM], shapes: dict[str, Path], masked: Path) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    file = masked / "vqa/answers.jsonl"
    before = read_answers(file)
    examples = task.examples(load_items(shapes["test"]))[0]
    log = AnswerLog({UNEDITED: UNEDITED, "edited": "steered"}.get)
    arms = {UNEDITED: Intervention(), "edited": Intervention(masked=frozenset({(0, 1)}))}
    measure(vlm, [(task, examples[:2])], arms, replace(SWEEP, answers=log), seed=0)
    keep_answers(masked / "vqa", "test", log.of["vqa"], lambda arm: arm.startswith("steered"))
    after = {(item.split, item.id): item for item in read_answers(file)}
    assert [*after] == [(item.split, item.id) for item in before], "nothing is lost"
    assert "steered" in after["test", examples[0].id].answers and "masked" in after["test", examples[0].id].answers
    assert "steered" not in after["test", examples[-1].id].answers
    keep_answers(masked / "vqa", "test", log.of["vqa"][:1], lambda arm: arm != UNEDITED)
    left = [item.id for item in read_answers(file) if item.split == "test"]
    assert left == [examples[0].id], "items that only the replaced arms had are gone"


def test_items_of_one_name_about_other_pictures_stay_apart(shapes: dict[str, Path], tmp_path: Path) -> None:
    first, second = make_task("vqa").examples(load_items(shapes["test"]))[0][:2]
    second = replace(second, id=first.id, prompts=first.prompts)
    for arm, example in (("masked", first), ("steered", second)):
        kept = [ItemAnswers(example, {UNEDITED: ArmAnswer(arm, 1.0), arm: ArmAnswer("x", 0.0)})]
        keep_answers(tmp_path / "vqa", "test", kept, lambda name, arm=arm: name == arm)
    items = read_answers(tmp_path / "vqa/answers.jsonl")
    assert [[*item.answers] for item in items] == [["unedited", "masked"], ["unedited", "steered"]]
    # the same picture, named absolutely and relatively, is one
    assert first.image is not None and second.image is not None
    here = replace(second, image=Path(os.path.relpath(second.image)))
    arms = {UNEDITED: ArmAnswer("steered", 1.0), "random": ArmAnswer("x", 0.0)}
    keep_answers(tmp_path / "vqa", "test", [ItemAnswers(here, arms)], lambda name: name == "random")
    (_, item) = read_answers(tmp_path / "vqa/answers.jsonl")
    assert [*item.answers] == ["unedited", "steered", "random"]


def test_half_a_character_is_left_out(vlms: dict[str, VLM], tmp_path: Path, shapes: dict[str, Path]) -> None:
    content = json.loads(shapes["test"].read_text())
    content["data"][0]["vqa"]["question"] = "What is \ud83d?"
    content["data"][1]["image_id"] = "\udcff"
    file = tmp_path / "items.json"
    file.write_text(json.dumps(content))
    found = prepare(vlms["llava"], make_task("vqa"), load_items(file, images=shapes["test"].parent / "images"), "test")
    assert [(x.reason, x.kind) for x in found.left_out] == [
        (f"its text has half a character, \\u{code}", "half a character") for code in ("d83d", "dcff")
    ]
    assert len(found.examples) == len(content["data"]) - 2
    write_json(tmp_path / "run.json", [x.id for x in found.left_out])


def test_control_characters_of_an_answer_do_not_reach_the_terminal() -> None:
    answers = Answers("vqa", "test", [item("a", unedited=("\x1b[2J\u202egone", 0))], ("unedited",))
    console = Console(file=io.StringIO(), width=80)
    console.print(show(answers.table()))
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "␛[2J" in shown and "\x1b" not in shown and "\u202e" not in shown


def item(name: str, **answers: tuple[str, float]) -> AnsweredItem:
    said = {arm: Said(answer=text, score=score) for arm, (text, score) in answers.items()}
    return AnsweredItem(split="test", id=name, prompt="Question?\nShort.", target="a", references=("a",), answers=said)


def test_arms_of_a_model_that_answers_otherwise_go(
    vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path
) -> None:
    made = study(vlms["llava"], tmp_path / "run")
    task, items = make_task("vqa"), load_items(shapes["test"])
    made.mask(task, items, neurons_file(tmp_path, [(0, 1)]), draws=1)
    file = tmp_path / "run/vqa/answers.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["answers"]["steered"] = row["answers"]["unedited"]
    rows[0]["answers"]["unedited"] = {"answer": "of another dtype", "score": 0.0}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.fresh = True
    made.mask(task, items, neurons_file(tmp_path, [(0, 2)]), draws=1)
    assert ["steered" in x.answers for x in read_answers(file)] == [False] + [True] * (len(rows) - 1)


def test_changed_items_come_first_then_wrong_ones() -> None:
    items = [
        item("right", unedited=("a", 1), masked=("a", 1)),
        item("wrong", unedited=("b", 0), masked=("b", 0)),
        item("changed", unedited=("a", 1), masked=("c", 0)),
        item("rescored", unedited=("a", 1), masked=("a", 0.5)),
    ]
    answers = Answers("vqa", "test", items, ("unedited", "masked"))
    assert [x.id for x in answers.ordered] == ["changed", "rescored", "wrong", "right"]
    assert [x.id for x in answers.changed] == ["changed", "rescored"] and [x.id for x in answers.wrong] == ["wrong"]
    (table,) = answers.tables()
    assert table.rows[0]["asked"] == "Question?" and table.rows[0]["masked"] == "c (0)" and "2 changed" in table.title


def test_answers_that_do_not_end_are_seen_beside_a_metric_of_0() -> None:
    items = [
        item("one", unedited=("a", 1), masked=("a a a, a", 0)),
        item("two", unedited=("b c", 0), masked=("d d", 0)),
    ]
    (table,) = Answers("vqa", "test", items, ("unedited", "masked")).tables()
    assert table.caption.splitlines()[1:] == ["words in an answer: unedited 1.5, masked 3.0"]
    items[0].answers["masked"] = Said(answer="d d", score=0)
    assert Answers("vqa", "test", items, ("unedited", "masked")).lengths() == [
        "words in an answer: unedited 1.5, masked 2.0",
        "answers that hold a right one: unedited 1, masked 0 of 2",
    ]
    assert Answers("vqa", "test", items, ("unedited",)).lengths() == []


def test_an_empty_answer_is_visible() -> None:
    assert str(Said(answer=" ", score=0.0)) == "nothing (0)" and str(Said(answer="a", score=1.0)) == "a (1)"


def test_answers_shows_and_writes_them(masked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("answers", masked, "--task", "vqa", "--rows", 1, "--csv", tmp_path / "a.csv") == 0
    said = capsys.readouterr().out
    assert "vqa: " in said and "unedited" in said and "more: --rows" in said
    rows = [*csv.DictReader((tmp_path / "a.csv").read_text().splitlines())]
    items = answers_of(masked, "vqa").items
    assert {row["item"]: row["unedited"].lstrip("'") for row in rows} == {
        x.id: x.answers["unedited"].answer for x in items
    }
    assert call("answers", masked, "--arms", "steered") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "answers.jsonl has no answers of steered; expected some of unedited, masked" in said
    assert call("answers", tmp_path / "nowhere") == 2
    assert "no run folder" in capsys.readouterr().err


def test_damaged_answers_are_one_line(masked: Path) -> None:
    file = masked / "vqa/answers.jsonl"
    whole = file.read_text()
    for line in ("{", '{"split": 1}', "[1]"):
        file.write_text(whole + line + "\n")
        with pytest.raises(HonesError, match=rf"answers.jsonl, line {whole.count(chr(10)) + 1}.*; remove it"):
            read_answers(file)


def test_eval_asks_with_and_without_an_edit(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--model", model_folders["llava"], "--data", shapes["test"], "--limit", 2, "--max-new-tokens", 3)
    assert call("eval", *where, "--task", "retrieval", "--candidates", 3) == 0
    said = capsys.readouterr().out
    assert "ndcg@5" in said and "rank " in said and " edited" not in said and "more" not in said
    chosen = neurons_file(tmp_path, [(0, 1)])
    assert call("eval", *where, "--task", "vqa", "--neurons", chosen, "--csv", tmp_path / "a.csv") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "vqa, 2 items" in said and "edited" in said and "change" in said
    assert "edited score" in (tmp_path / "a.csv").read_text()
    assert call("eval", *where, "--task", "vqa", "--rows", 1) == 0
    assert "... and 1 more; changed and wrong ones stand first: --rows 2" in capsys.readouterr().out
    assert call("eval", *where, "--task", "vqa", "--neurons", neurons_file(tmp_path, [(99, 1)])) == 2
    nothing = Interval(0.0, 0.0, 0.0)
    heads = HeadResult("vqa_soft_accuracy", nothing, 4, (HeadScore(0, 0, nothing, 0.0, 0.0, 4),), 1)
    write_heads(tmp_path, heads, 1, 1)
    capsys.readouterr()
    assert call("eval", *where, "--task", "vqa", "--heads", tmp_path / "heads.json") == 2
    assert "name no head, neuron or scale" in " ".join(capsys.readouterr().err.split())
    content = json.loads(shapes["test"].read_text())
    for row in content["data"]:
        row["vqa"]["question"] = ""
    (tmp_path / "empty.json").write_text(json.dumps(content))
    images = ("--images", shapes["test"].parent / "images")
    none = ("--model", model_folders["llava"], "--data", tmp_path / "empty.json", *images, "--task", "vqa")
    assert call("eval", *none) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "can be asked about for vqa" in said and "empty question" in said and "--max-left-out" not in said


def test_a_right_no_is_right_where_the_metric_is_f1(shapes: dict[str, Path]) -> None:
    content = {"name": "p", "prompt": "?", "target": "vqa.answer", "metric": "yes_no_f1", "answers": "yes_no"}
    task = task_of_content(content, "p")
    example = replace(make_task("vqa").examples(load_items(shapes["test"]))[0][0], references=("No",))
    right, wrong = (task.statistics(example, np.array([margin])) for margin in (-1.0, 1.0))
    log = AnswerLog({UNEDITED: UNEDITED, "edited": "masked"}.get)
    kept = KeptAnswers([0, 1], {(0, 0): [np.array([-1.0]), np.array([1.0])]})
    log.take([(task, [example])], log.rows({UNEDITED: [0], "edited": [1]}), kept, [np.array([[right], [wrong]])])
    assert [x.score for x in log.of["p"][0].arms.values()] == [1, 0]


# --- before a sweep ---


def test_a_baseline_of_0_stops_before_the_sweep(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--model", model_folders["llava"], "--data", shapes["test"], "--task", "vqa", "--max-new-tokens", 2)
    out = ("--out", tmp_path / "run")
    assert call("heads", *where, *out) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "is 0 on " in said
        and "its floor" in said
        and "--utility logprob" in said
        and "--anyway" in said
        and "unedited" in said
    )
    assert not (tmp_path / "run/vqa").exists(), "nothing was swept"
    assert call("heads", *where, *out, "--anyway") == 0
    assert "critical instead of" in " ".join(capsys.readouterr().out.split())
    assert call("heads", *where, *out) == 0, "a finished stage is not looked at again"
    assert call("heads", *where, "--utility", "logprob", "--out", tmp_path / "logprob") == 0


def test_the_look_is_at_the_first_items_alone_and_at_more_where_these_are_all_wrong(
    vlms: dict[str, VLM], shapes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hones.runs.stage.FIRST_LOOK", 1)
    monkeypatch.setattr("hones.runs.stage.LONG_LOOK", 2)
    heard = []
    made = study(vlms["llava"], tmp_path)
    made.look = lambda found, stage: heard.append((found, stage))
    items = load_items(shapes["test"])
    made.look_first(make_task("vqa"), items, "test", "mask")
    ((found, stage),) = heard
    assert found.stuck is not None, "one item that is wrong is not believed"
    assert (
        stage == "mask"
        and (found.items, found.of) == (2, len(items))
        and found.counted == f"the first 2 of {len(items)} items"
    )
    chosen = neurons_file(tmp_path, [(0, 1)])
    made.mask(make_task("vqa"), items, chosen, draws=1)
    made.look_first(make_task("vqa"), items, "test", "mask")
    assert len(heard) == 1, "the stage has finished"
    with pytest.raises(TaskStops, match=r"on the first 2 of .* nothing can be lost there"):
        look_before(found, "heads", anyway=False)


def test_what_would_help_is_read_from_the_answers(vlms: dict[str, VLM], shapes: dict[str, Path]) -> None:
    vlm, task = vlms["llava"], make_task("vqa")
    examples = task.examples(load_items(shapes["test"]))[0][:3]
    found = evaluate(vlm, task, examples, sweep=SWEEP)
    assert found.stuck == "floor" and not any("metric: contains" in line for line in found.advice)
    said = [
        x.model_copy(update={"answers": {UNEDITED: Said(answer=f"It is a {x.target}.", score=0.0)}})
        for x in found.answers.items
    ]
    told = replace(found, answers=replace(found.answers, items=said))
    assert any(line.startswith("3 of 3 answers hold the wanted text") for line in told.advice)
    top = replace(found, level=Interval(1.0, 1.0, 1.0))
    assert top.stuck == "ceiling" and "ceiling" in top.advice[0]
    assert replace(found, level=Interval(0.5, 0.5, 0.5)).advice == []
    log_p = LogProbability(task)
    logged = evaluate(vlm, log_p, [log_p.with_gold(x) for x in examples], sweep=SWEEP)
    assert logged.stuck is None and logged.answers.items[0].answers[UNEDITED].answer.startswith("log p -")
    with pytest.raises(HonesError, match="no items to ask about"):
        evaluate(vlm, task, [])


def test_no_head_without_a_drop_is_critical(tmp_path: Path) -> None:
    scores = tuple(HeadScore(0, h, Interval(s, s, s), 0.5, 0.5 - s, 4) for h, s in enumerate((0.25, 0.0, -0.25)))
    result = HeadResult("exact_match", Interval(0.5, 0.25, 0.75), 4, scores, 2)
    assert [h.head for h in result.critical] == [0]
    assert "1 critical instead of 2" in result.table().caption
    write_heads(tmp_path, result, 1, 3)
    content = json.loads((tmp_path / "heads.json").read_text())
    assert content["top_k"] == 2 and [row["head"] for row in content["top_heads"]] == [0]
    assert read_heads(tmp_path / "heads.json") == result


def test_an_interval_without_width_is_not_sold_as_certainty() -> None:
    assert f"{Interval(0.0, 0.0, 0.0):.3f}" == "0.000 [at floor]"
    assert f"{Interval(1.0, 1.0, 1.0):.3f}" == "1.000 [at ceiling]"
    assert str(Interval(0.0, 0.0, 0.0)) == "+0.000 [no change]"
    assert f"{Interval(0.5, 0.5, 0.5):.1f}" == "0.5 [no spread]"
    assert f"{Interval(0.0, 0.0, 0.25):.2f}" == "0.00 [0.00, 0.25]"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("The capital of Peru is Lima.", 1), ("lima", 1), ("Limassol", 0), ("", 0), ("Lima, of course", 1)],
)
def test_contains_takes_whole_words(shapes: dict[str, Path], answer: str, expected: int) -> None:
    example = make_task("vqa").examples(load_items(shapes["test"]))[0][0]
    asked = replace(example, target="Lima", references=("Lima", ""))
    assert Contains().statistics(asked, answer).tolist() == [expected, 1]


# --- what a training did ---


@pytest.mark.parametrize(
    ("steps", "rate"), [(5000, 5e-4), (1000, 5e-4), (447, 5e-3), (200, 0.05), (4, 0.05), (0, 0.05)]
)
def test_few_steps_have_a_higher_default_rate(steps: int, rate: float) -> None:
    assert SteeringSettings().for_steps(steps).rate == pytest.approx(rate, rel=5e-3)
    assert SteeringSettings(learning_rate=0.01).for_steps(steps).rate == 0.01


def test_a_training_that_moved_nothing_says_so() -> None:
    still = TrainingSummary(8, 5e-4, 2.0, 1.9, largest=0.004, median=0.001, clamped=0, scales=10)
    assert "nothing was learned" in str(still) and not still.moved
    assert replace(still, clamped=3).moved, "at a bound that is near"
    assert "early stopping" in str(replace(still, largest=0.0)) and "raise" not in str(replace(still, largest=0.0))
    moved = replace(still, largest=1.5, clamped=2)
    assert "2 of 10 at the bound" in str(moved) and "loss 2.000 -> 1.900" in str(moved) and moved.moved


def test_several_trainings_in_one_table_are_told_apart() -> None:
    some = Interval(0.5, 0.25, 0.75)
    learned = TrainingSummary(8, 5e-4, 2.0, 1.9, largest=1.0, median=0.1, clamped=0, scales=10)
    results = [SteeringResult("anls", 4, some, some, some, learned=replace(learned, steps=n)) for n in (8, 9)]
    caption = together(zip(("ocr", "vqa"), results, strict=True)).caption
    assert [line.split(" steps")[0] for line in caption.splitlines()] == ["ocr: 8", "vqa: 9"]
    assert together([("ocr", results[0])]).caption == str(results[0].learned)


def test_a_floor_stops_what_loses_and_a_ceiling_what_gains(vlms: dict[str, VLM], shapes: dict[str, Path]) -> None:
    found = evaluate(
        vlms["llava"], make_task("vqa"), make_task("vqa").examples(load_items(shapes["test"]))[0], sweep=SWEEP
    )
    look_before(found, "heads", anyway=True)
    look_before(found, "steer", anyway=False)
    with pytest.raises(TaskStops, match=r"is 0 on .* nothing can be lost"):
        look_before(found, "heads", anyway=False)
    top = replace(found, level=Interval(1.0, 1.0, 1.0))
    look_before(top, "mask", anyway=False)
    with pytest.raises(TaskStops, match=r"is 1 on .* nothing can be gained"):
        look_before(top, "steer", anyway=False)
