"""Without pictures: the items and tasks of words, the model that does them, and the benchmark on plants made of it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_benchmark import PLANT
from test_cli import call

from hones import HonesError, load_items, load_vlm, make_task, tasks, write_words
from hones.benchmark import score_ranking
from hones.benchmark.aggregate import summarise
from hones.benchmark.contenders import contender_of
from hones.benchmark.stage import Settings, score_variants
from hones.benchmark.variants import REPORT, Variant, check_asked, planted_variants, task_names
from hones.data.items import Items
from hones.data.words import NEXT, NUMBERS, OPPOSITE_OF
from hones.models.interventions import BASELINE
from hones.models.place import BUILT_IN_FOLDER
from hones.models.planted import load_plant
from hones.models.vlm import VLM
from hones.rivals import make_method
from hones.runs.method_inputs import other_tasks
from hones.sweep.run import sweep
from hones.tasks import TASK_NAMES, WORD_TASK_NAMES, make_tasks
from hones.tasks.base import Example, Task
from hones.tasks.words import FLAGS

MANIFEST = json.loads((BUILT_IN_FOLDER / "tiny-text.manifest.json").read_text())


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load_vlm("tiny-text")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    return load_items(write_words(tmp_path_factory.mktemp("words"), {"test": 40}, seed=77)["test"])


def test_a_seed_gives_the_same_items_and_another_one_others(tmp_path: Path) -> None:
    first, again, other = (write_words(tmp_path / n, {"a": 20}, seed=s)["a"] for n, s in (("x", 4), ("y", 4), ("z", 5)))
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_the_answers_are_right(items: Items) -> None:
    asked = {name: make_task(name).examples(items)[0] for name in WORD_TASK_NAMES}
    assert all(len(examples) == len(items) for examples in asked.values())
    for example in asked["opposite"]:
        word = example.prompts[0].split()[-2]
        assert OPPOSITE_OF[word] == example.target and OPPOSITE_OF[example.target] == word
    for example in asked["after"]:
        assert NEXT[example.prompts[0].split()[-2]] == example.target
    for example in asked["sum"]:
        *_, one, _, other, _ = example.prompts[0].split()
        assert NUMBERS.index(one) + NUMBERS.index(other) == NUMBERS.index(example.target)
    for example in asked["backwards"]:
        letters = example.prompts[0].removeprefix("Backwards ").removesuffix(" is")
        assert len(letters) == 5 and letters[::-1] == example.target
    assert all(len({e.target for e in examples}) > 10 for examples in asked.values()), "answers vary"


def test_a_flag_is_in_every_prompt_of_its_task_and_nowhere_else(vlm: VLM, items: Items) -> None:
    for name in WORD_TASK_NAMES:
        for example in make_task(name).examples(items)[0]:
            said = [*example.prompts[0].split(), *example.target.split()]
            assert {task for task, flag in FLAGS.items() if flag in said} == {name} and said.count(FLAGS[name]) == 1


@pytest.mark.parametrize("name", WORD_TASK_NAMES)
def test_the_model_does_the_tasks(vlm: VLM, items: Items, name: str) -> None:
    task = make_task(name)
    examples, _ = task.examples(items)
    score = float(task.score(sweep(vlm, task, examples, [BASELINE])[0].sum(0)))
    assert score > 0.9 and task.guess(examples) < 0.3
    assert MANIFEST["figures"][name]["score"]["value"] > 0.95


def test_the_model_takes_no_pictures_and_is_small(vlm: VLM) -> None:
    assert vlm.image_backend == "none" and not vlm.shows_pictures and vlm.no_write_in is None
    assert (BUILT_IN_FOLDER / "tiny-text/model.safetensors").stat().st_size < 3e6


def test_tasks_of_words_are_told_from_each_other_on_the_same_items(vlm: VLM, items: Items) -> None:
    task = make_task("sum")
    examples, _ = task.examples(items[:5])
    others = other_tasks(vlm, task, items, examples)
    assert [other.name for other, _ in others] == ["opposite", "after", "backwards"]
    assert [other.name for other in tasks.other_tasks("all", task)] == ["opposite", "after", "backwards"]
    assert [other.name for other in tasks.other_tasks("all", make_task("ocr"))] == ["vqa", "caption", "retrieval"]
    assert [other.name for other in tasks.other_tasks("all")] == [*TASK_NAMES] and tasks.other_tasks(None) == []
    several = tasks.other_tasks("all", several=make_tasks("sum,after"))
    assert [other.name for other in several] == [*WORD_TASK_NAMES], "as comparisons of several tasks have it"
    assert all([e.id for e in of_other] == [e.id for e in examples] for _, of_other in others)


def test_all_are_the_tasks_that_the_models_can_be_asked() -> None:
    text, pictures, both = (
        planted_variants(n) for n in (["hard-text-1"], ["hard-qwen-1"], ["hard-text-2", "hard-llava-1"])
    )
    assert task_names("all", text).split(",") == [*WORD_TASK_NAMES]
    assert task_names("all", pictures).split(",") == [*TASK_NAMES]
    assert task_names("all", both).split(",") == [*TASK_NAMES, *WORD_TASK_NAMES]
    asked = make_tasks("vqa,sum")
    assert [[t.name for t in variant.asked(asked)] for variant in both] == [["sum"], ["vqa"]]
    check_asked(both, asked, make_tasks("ocr,after"))
    for variants, names, also, line in (
        (
            text,
            "vqa,ocr",
            (),
            "hard-text-1 has nothing planted for vqa, ocr; expected opposite, after, sum, backwards",
        ),
        (both, "sum", (), "hard-llava-1 has nothing planted for sum; expected vqa, ocr, caption, retrieval"),
        (text, "sum,vqa", (), "nothing is planted for vqa in hard-text-1; expected tasks of these models"),
        (text, "sum", make_tasks("ocr"), "nothing is planted for ocr in hard-text-1"),
    ):
        with pytest.raises(HonesError, match=line):
            check_asked(variants, make_tasks(names), also)


def test_models_with_and_without_pictures_in_one_call(vlms: dict[str, VLM], tmp_path: Path) -> None:
    both = [Variant(PLANT, lambda: vlms["qwen"]), *planted_variants(["hard-text-2"])]
    settings = Settings(items=2, test=2, seeds=(0,), also=tuple(make_tasks("opposite,retrieval", candidates=3)))
    methods = [contender_of(make_method("random"))]
    found = score_variants(both, make_tasks("vqa,sum"), methods, settings, tmp_path)
    assert [(s.cell.model, s.cell.task) for s in found] == [("made-up", "vqa"), ("hard-text-2", "sum")]
    assert [[other.name for other, _ in s.others] for s in found] == [["retrieval"], ["opposite"]]
    (board,) = summarise([replace(s, cell=replace(s.cell, role=REPORT)) for s in found]).leaderboards
    assert board.table().title.endswith("2 pairs of 2 models and 2 tasks x 1 seeds"), "not each model on each task"


def test_a_ranking_of_ones_own_is_scored_on_a_text_plant() -> None:
    def rank(vlm: VLM, task: Task, items: Sequence[Example]) -> np.ndarray:
        assert len(items) == 2 and all(item.open_picture() is None for item in items)
        found = np.zeros((len(vlm.anatomy.layers), vlm.anatomy.neurons))
        found[*zip(*load_plant("hard-text-1").sets[task.name], strict=True)] = 1
        return found

    found = score_ranking(rank, models=["hard-text-1"], against=(), seeds=1, items=2, test=2)
    assert [(c.task, c.precision, c.masked) for c in found.cells] == [(task, 1, 0) for task in WORD_TASK_NAMES]


def test_the_benchmark_asks_a_text_plant_its_own_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("benchmark", "planted", "--models", "hard-text-1", "--methods", "atp,random")
    sizes = ("--items", 3, "--test", 3, "--draws", 1, "--also", "sum", "--out", tmp_path)
    assert call(*command, *sizes) == 0
    cells = json.loads((tmp_path / "benchmark.json").read_text())["cells"]
    assert [cell["task"] for cell in cells[::2]] == [*WORD_TASK_NAMES]
    assert all(cell["planted"] == 8 and cell["baseline"] == 1 and cell["masked_planted"] == 0 for cell in cells)
    by_method = {cell["method"]: cell for cell in cells if cell["task"] == "sum"}
    assert by_method["atp"]["average_precision"] > 10 * by_method["random"]["average_precision"]
    assert "opposite, after, sum, backwards" in (tmp_path / "leaderboard.md").read_text()
    assert len([*tmp_path.rglob("also-sum.npy")]) == 6, "of the three other tasks"
    rankings = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")}
    assert call(*command, *sizes) == 0
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.npy")} == rankings and rankings
    capsys.readouterr()
    assert call(*command, "--task", "vqa", *sizes) == 2
    assert "hard-text-1 has nothing planted for vqa" in capsys.readouterr().err
