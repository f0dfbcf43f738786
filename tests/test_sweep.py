"""Replay against the definition, cell by cell, on random models of several families; its journal and its limits."""

import copy
import hashlib
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_models_apart import save_mllama
from PIL import Image
from random_models import (
    save_random_internvl,
    save_random_llava,
    save_random_llava_mistral,
    save_random_llava_qwen3,
    save_random_qwen,
    save_random_qwen2_vl,
    save_random_qwen3_vl,
)
from test_cli import call

from hones import BadItem, HonesError, RunFolder, Study, attribute_neurons, load_items, load_vlm, make_task
from hones.data.items import Items
from hones.method.heads import HeadScore, localize_heads, race_heads
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM
from hones.runs.artifacts import read_heads, write_heads
from hones.stats import Interval
from hones.sweep.answers import Answered
from hones.sweep.decoder import Decoder, name_of_the_past
from hones.sweep.engines import make_engine
from hones.sweep.forward import Forward
from hones.sweep.journal import Journal
from hones.sweep.memory import POSITIONS, MemoryPlan, make_plan
from hones.sweep.naive import Naive
from hones.sweep.passes import Passes, ReplaySavings
from hones.sweep.racing import Race, RaceRules
from hones.sweep.replay import Replay
from hones.sweep.run import SweepSettings, sweep, sweep_tasks
from hones.tasks.base import Example, Task
from hones.tasks.log_probability import LogProbability

SAVED: dict[str, Callable[[Path], Path]] = {
    "llava": save_random_llava,
    "llava-mistral": save_random_llava_mistral,
    "llava-qwen3": save_random_llava_qwen3,
    "qwen2-vl": save_random_qwen2_vl,
    "qwen2.5-vl": save_random_qwen,
    "qwen3-vl": save_random_qwen3_vl,
}
SITES = [(layer, head) for layer in range(3) for head in range(4)]
EDITS = [BASELINE, *(Intervention(heads=frozenset({site})) for site in SITES)]
OTHERS = [
    Intervention(masked=frozenset({(0, 1), (1, 4), (2, 19)})),
    Intervention(masked=frozenset({(2, 3)})),
    Intervention(scales={(1, 0): 0.5, (2, 7): -1.5}),
    Intervention(heads=frozenset({(1, 0), (1, 2), (2, 3)}), masked=frozenset({(0, 5)})),
]
NEW_TOKENS = 5
NAIVE, REPLAY = SweepSettings("naive", 4, NEW_TOKENS), SweepSettings("replay", 4, NEW_TOKENS)


class Verbatim(Task):
    """A text task whose statistic tells any two answers apart."""

    metric_name, answers, statistic_names = "digest", "text", ("digest", "n")

    def __init__(self, name: str) -> None:
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]

    def example(self, item, images) -> Example:
        return make_task(self.name).example(item, images)

    def statistics(self, example, answer) -> np.ndarray:
        assert isinstance(answer, str)
        return np.array([int(hashlib.sha256(answer.encode()).hexdigest()[:5], 16), 1.0])

    def score(self, sums) -> np.ndarray:
        return np.asarray(sums[..., 0] / sums[..., 1])


class Margins(Task):
    """The margins themselves of four candidates."""

    name, metric_name, answers, statistic_names = "retrieval", "margins", "yes_no", ("a", "b", "c", "d")

    def example(self, item, images) -> Example:
        return make_task("retrieval", candidates=4).example(item, images)

    def statistics(self, example, answer) -> np.ndarray:
        return np.asarray(answer)

    def score(self, sums) -> np.ndarray:
        return np.asarray(sums[..., 0])


def jobs_of(items: Items) -> list[tuple[Task, list[Example]]]:
    tasks = [Verbatim("vqa"), Verbatim("ocr"), Verbatim("caption"), Margins()]
    tasks += [LogProbability(make_task(name, candidates=4)) for name in ("vqa", "caption", "retrieval")]
    return [(task, task.examples(items)[0]) for task in tasks]


def ending_early(vlm: VLM) -> VLM:
    """The model with an end token that it often chooses."""
    with torch.no_grad():
        weight = vlm.anatomy.lm_head.weight
        for end in vlm.eos_ids:
            weight[end] = 2.5 * weight[1]
    return vlm


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VLM]:
    folder = tmp_path_factory.mktemp("families")
    return {name: ending_early(load_vlm(str(save(folder / name)))) for name, save in SAVED.items()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, Path]) -> Items:
    """Pictures of several sizes."""
    folder = tmp_path_factory.mktemp("sizes")
    items = load_items(shapes["test"])
    for number, item in enumerate(items.items):
        assert item.file_name is not None
        picture = Image.open(items.images / item.file_name)
        picture.resize((96 + 32 * (number % 3), 96 + 16 * (number % 2))).save(folder / item.file_name)
    resized = tuple(
        item.model_copy(update={"image_info": item.image_info.model_copy(update={"width": None, "height": None})})
        for item in items.items
        if item.image_info is not None
    )
    return replace(items, items=resized, images=folder)


def assert_equal_cells(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for text in range(3):
        np.testing.assert_array_equal(found[text], expected[text])
    for numbers in range(3, 7):
        np.testing.assert_allclose(found[numbers], expected[numbers], atol=5e-5)


@pytest.mark.parametrize("name", SAVED)
def test_replay_equals_the_definition_in_every_cell(families: dict[str, VLM], pictures: Items, name: str) -> None:
    """On pictures of four sizes."""
    family = families[name]
    jobs = jobs_of(replace(pictures, items=pictures.items[:4]))
    expected = [sweep(family, task, examples, EDITS + OTHERS, NAIVE) for task, examples in jobs]
    alone = [sweep(family, task, examples, EDITS + OTHERS, REPLAY) for task, examples in jobs]
    assert_equal_cells(alone, expected)
    assert_equal_cells(sweep_tasks(family, jobs, EDITS + OTHERS, REPLAY), expected)
    for statistics in expected:
        assert (statistics[1:] != statistics[:1]).any()


def test_answers_leave_their_draft_early_and_late_and_end_early_and_never(
    families: dict[str, VLM], pictures: Items
) -> None:
    """So that the test above covers them; it looks until it has seen them all."""
    places, lengths = set(), set()

    def missing() -> list[str]:
        left = [place for place in places if place != "same"]
        seen = {
            "an answer as drafted": "same" in places,
            "left at the first token": any(place[0] == 0 for place in left),
            "left at the last token": any(place[1] == 0 and place[0] > 0 for place in left),
            "cut at the limit": (NEW_TOKENS, False) in lengths,
            "ended before it": any(length < NEW_TOKENS and ended for length, ended in lengths),
        }
        return [what for what, is_seen in seen.items() if not is_seen]

    for vlm in families.values():
        for _, examples in jobs_of(pictures)[:3]:
            for example in examples[:3]:
                if not missing():
                    return
                encoded = vlm.encode([example.open_picture()], example.prompts)
                draft = vlm.generate_ids(encoded, NEW_TOKENS)[0]
                lengths.add((len(draft), draft[-1] in vlm.eos_ids))
                for edit in EDITS[1:]:
                    with edit.on(vlm.model):
                        ids = vlm.generate_ids(encoded, NEW_TOKENS)[0]
                    where = next((k for k, (a, b) in enumerate(zip(ids, draft, strict=False)) if a != b), None)
                    places.add("same" if where is None else (where, len(draft) - 1 - where))
                    lengths.add((len(ids), ids[-1] in vlm.eos_ids))
    assert not missing()


@pytest.mark.parametrize("name", ["llava", "qwen2.5-vl"])
def test_each_saving_can_be_switched_off(families: dict[str, VLM], pictures: Items, name: str) -> None:
    vlm = families[name]
    jobs = jobs_of(replace(pictures, items=pictures.items[:3]))
    plan = make_plan(vlm, 300, None)
    members = [(task, example) for task, examples in jobs for example in examples]
    expected = Replay(vlm, max_new_tokens=NEW_TOKENS, plan=plan).statistics(members, EDITS)
    for off in fields(ReplaySavings):
        without = Replay(
            vlm, max_new_tokens=NEW_TOKENS, plan=plan, savings=replace(ReplaySavings(), **{off.name: False})
        )
        for (task, _), a, b in zip(members, without.statistics(members, EDITS), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-5 if task.answers != "text" else 0, err_msg=off.name)


@pytest.mark.parametrize("name", ["llava", "qwen2.5-vl"])
def test_what_a_neuron_writes_enters_after_its_layer(
    families: dict[str, VLM], pictures: Items, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One of the random models' neurons is few, two are not; a layer that rescales what it writes is found out."""
    given: list[bool] = []
    prefix_rows = Passes._prefix_rows
    monkeypatch.setattr(Passes, "_prefix_rows", lambda *a: given.append(a[-1] is not None) or prefix_rows(*a))
    one = [Intervention(masked=frozenset({(0, 1)})), Intervention(scales={(0, 3): 0.5, (2, 7): -1.5})]
    one += [Intervention(masked=frozenset({(1, 0)})), Intervention(scales={(1, 2): 1.0})]
    two = Intervention(masked=frozenset({(0, 3), (0, 4)}))
    task = LogProbability(make_task("vqa"))
    examples = task.examples(replace(pictures, items=pictures.items[:3]))[0]

    def served(vlm: VLM, edits: list[Intervention]) -> set[bool]:
        given.clear()
        expected = sweep(vlm, task, examples, edits, NAIVE)
        np.testing.assert_allclose(sweep(vlm, task, examples, edits, REPLAY), expected, atol=5e-5)
        return {*given}

    assert served(families[name], one) == {True}
    assert served(families[name], [one[0], two]) == {False}
    rescaled = copy.deepcopy(families[name])

    def rescale(_: object, __: object, out: Any) -> Any:
        return 1.01 * out

    for layer in rescaled.anatomy.layers:
        layer.mlp.register_forward_hook(rescale)
    assert served(rescaled, one) == {False}


def test_pictures_and_layers_below_an_edit_run_once(families: dict[str, VLM], pictures: Items) -> None:
    """The pictures that the vision part sees, and the positions that each layer's FFN sees, by number of edits."""
    vlm, jobs = families["llava"], jobs_of(pictures)
    members = [(task, example) for task, examples in jobs for example in examples]
    distinct = {(example.image, example.box) for _, example in members}

    def seen(edits: list[Intervention]) -> tuple[int, list[int]]:
        images, positions = [], [0] * len(vlm.anatomy.layers)

        def count(layer: int) -> Callable[..., None]:
            def hook(_, args) -> None:
                positions[layer] += args[0].shape[0] * args[0].shape[1]

            return hook

        tower = vlm.model.model.vision_tower  # pyright: ignore[reportAttributeAccessIssue]
        hooks = [tower.register_forward_pre_hook(lambda _, args: images.append(len(args[0])))]
        for number, layer in enumerate(vlm.anatomy.layers):
            hooks.append(layer.down_proj.register_forward_pre_hook(count(number)))
        Replay(vlm, max_new_tokens=1, plan=make_plan(vlm, 300, None)).statistics(members, edits)
        for hook in hooks:
            hook.remove()
        return sum(images), positions

    at_the_top = [Intervention(heads=frozenset({(2, head)})) for head in range(4)]
    few, many = seen(at_the_top[:1]), seen(at_the_top)
    assert few[0] == many[0] == len(distinct)
    assert few[1][:2] == many[1][:2] and few[1][2] < many[1][2]
    lower = seen([Intervention(heads=frozenset({(1, 0)}))])
    assert lower[1][0] == few[1][0] and lower[1][1] > few[1][1]


def test_the_size_of_passes_changes_nothing(families: dict[str, VLM], pictures: Items) -> None:
    vlm = families["qwen2.5-vl"]
    some = replace(pictures, items=pictures.items[:2])
    members = [(task, example) for task, examples in jobs_of(some) for example in examples]
    expected = Replay(vlm, max_new_tokens=NEW_TOKENS, plan=MemoryPlan(4, 8192, 2**30)).statistics(members, EDITS)
    for positions in (64, 700, 100_000):
        plan = MemoryPlan(4, positions, 2**20)
        found = Replay(vlm, max_new_tokens=NEW_TOKENS, plan=plan).statistics(members, EDITS)
        for (task, _), a, b in zip(members, found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-5 if task.answers != "text" else 0, err_msg=str(positions))


def test_the_model_is_as_before_a_sweep_also_after_an_error(
    families: dict[str, VLM], pictures: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, (task, examples) = families["llava"], jobs_of(pictures)[0]

    def added() -> list[tuple[bool, int, int]]:
        """Own forwards and hooks of every module; transformers may keep some of its own."""
        return [
            ("forward" in module.__dict__, len(module._forward_pre_hooks), len(module._forward_hooks))
            for module in vlm.model.modules()
        ]

    sweep(vlm, task, examples, [BASELINE], NAIVE)
    as_before, before = added(), {k: v.clone() for k, v in vlm.model.state_dict().items()}
    sweep(vlm, task, examples, EDITS, REPLAY)
    assert added() == as_before
    monkeypatch.setattr(task, "statistics", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(vlm, task, examples, EDITS, REPLAY)
    monkeypatch.setattr(vlm.anatomy.decoder.norm, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(vlm, task, examples, EDITS, REPLAY)
    monkeypatch.undo()
    assert added() == as_before
    assert all(torch.equal(v, before[k]) for k, v in vlm.model.state_dict().items())


def test_a_family_that_replay_cannot_enter_is_named_and_served_exactly(tmp_path: Path, pictures: Items) -> None:
    """Mllama's decoder is given the picture's features, which its second layer attends to."""
    vlm = ending_early(load_vlm(str(save_mllama(tmp_path / "model"))))
    jobs = jobs_of(replace(pictures, items=pictures.items[:3]))
    expected = [sweep(vlm, task, examples, EDITS + OTHERS, NAIVE) for task, examples in jobs]
    with pytest.warns(UserWarning, match=r"Mllama.* cannot be served by replay \(its decoder is not given"):
        found = sweep_tasks(vlm, jobs, EDITS + OTHERS, REPLAY)
    assert_equal_cells(found, expected)
    task = make_task("vqa")
    sure = Interval(1.0, 1.0, 1.0)
    heads = [HeadScore(0, 1, sure, 1.0, 0.0), HeadScore(2, 0, sure, 1.0, 0.0)]
    with pytest.warns(UserWarning, match="cannot be served by replay"):
        importance = attribute_neurons(vlm, task, task.examples(pictures)[0], heads)
    definition = attribute_neurons(vlm, task, task.examples(pictures)[0], heads, sweep=SweepSettings("naive"))
    np.testing.assert_array_equal(importance, definition)


def test_tokens_that_a_processor_adds_after_the_picture(tmp_path: Path, pictures: Items) -> None:
    vlm = load_vlm(str(save_random_internvl(tmp_path / "model")))
    jobs = jobs_of(replace(pictures, items=pictures.items[:3]))
    expected = [sweep(vlm, task, examples, EDITS, NAIVE) for task, examples in jobs]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal_cells(sweep_tasks(vlm, jobs, EDITS, REPLAY), expected)


def test_a_prompt_with_a_picture_token_is_refused(families: dict[str, VLM], pictures: Items) -> None:
    task, examples = jobs_of(pictures)[3]
    spoiled = replace(examples[0], prompts=(examples[0].prompts[0], "Candidate: <image> a star"))
    with pytest.raises(BadItem, match="holds <image>, the picture's placeholder"):
        sweep(families["llava"], task, [spoiled], EDITS, REPLAY)


def test_a_replay_that_is_wrong_is_found_out(
    families: dict[str, VLM], pictures: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, (_, examples) = families["llava"], jobs_of(pictures)[0]
    run = Decoder.run

    def wrong(self, entry, **kwargs):
        return run(self, replace(entry, hidden=entry.hidden * 1.1) if entry.start else entry, **kwargs)

    monkeypatch.setattr(Decoder, "run", wrong)
    with pytest.warns(UserWarning, match=r"cannot be served by replay \(its logits differ by"):
        engine = make_engine(vlm, "replay", NEW_TOKENS, 4, make_plan(vlm, 100, None), examples[:1], EDITS)
    assert type(engine).__name__ == "Forward"


def test_whole_passes_answer_all_tasks_in_batches_of_any_size(
    families: dict[str, VLM], pictures: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = families["qwen2.5-vl"]
    members = [(task, example) for task, examples in jobs_of(pictures) for example in examples[:2]]
    edits = EDITS[:1] + EDITS[1::4]
    expected = Naive(vlm, max_new_tokens=NEW_TOKENS, batch_size=1).statistics(members, edits)
    encode, sizes = VLM.encode, []

    def limited(self, pictures, prompts):
        sizes.append(len(prompts))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError
        return encode(self, pictures, prompts)

    for limit in (False, True):
        if limit:
            monkeypatch.setattr(VLM, "encode", limited)
        found = Forward(vlm, max_new_tokens=NEW_TOKENS, batch_size=16).statistics(members, edits)
        for (task, _), a, b in zip(members, expected, found, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=task.name)
    assert 3 < max(sizes) <= 16 and sizes[-1] <= 2
    monkeypatch.setattr(VLM, "encode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(HonesError, match="one prompt at a time"):
        Forward(vlm, max_new_tokens=NEW_TOKENS, batch_size=2).statistics(members, edits)


def test_out_of_memory_halves_the_passes(
    families: dict[str, VLM], pictures: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, (task, examples) = families["llava"], jobs_of(pictures)[2]
    expected = sweep(vlm, task, examples, EDITS, REPLAY)
    run, sizes = Decoder.run, []

    def limited(self, entry, **kwargs):
        sizes.append(entry.hidden.shape[0] * entry.hidden.shape[1])
        if sizes[-1] > 250:
            raise torch.OutOfMemoryError
        return run(self, entry, **kwargs)

    monkeypatch.setattr(Decoder, "run", limited)
    np.testing.assert_array_equal(sweep(vlm, task, examples, EDITS, REPLAY), expected)
    assert max(sizes) > 250
    monkeypatch.setattr(Decoder, "run", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    replay = Replay(vlm, max_new_tokens=NEW_TOKENS, plan=MemoryPlan(4, 256, 2**20))
    with pytest.raises(HonesError, match="out of device memory with the smallest passes"):
        replay.statistics([(task, examples[0])], EDITS)


# --- journal ---


def test_a_journal_brings_back_what_was_written(tmp_path: Path) -> None:
    file, plan = tmp_path / "j.jsonl", {"pictures": 2}
    arrays = [np.random.default_rng(0).random((3, 2), dtype=np.float32), np.ones((3, 4), dtype=np.float32)]
    said = [["Lima", "a\u2028b"], [np.array([0.1, -1e-9])]]
    with Journal(file, {"model": "a"}, plan) as journal:
        journal.append(5, [Answered(answers, array) for answers, array in zip(said, arrays, strict=True)])
        with pytest.raises(HonesError, match="another process is writing"), Journal(file, {"model": "a"}, plan):
            pass
    with Journal(file, {"model": "a"}, {"pictures": 9}) as again:
        assert again.plan == plan and again.read(4) is None
        for found, array, answers in zip(again.read(5) or [], arrays, said, strict=True):
            np.testing.assert_array_equal(found.statistics, array)
            for a, b in zip(found.answers, answers, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    with Journal(file, {}, {}) as journal:
        for group in range(2):
            journal.append(group, [Answered([], np.full((1, 1), group, dtype=np.float32))])
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with Journal(file, {}, {}) as again:
        assert [*again.groups] == [0]
        again.append(1, [Answered([], np.full((1, 1), 1, dtype=np.float32))])
    assert file.read_bytes() == whole


def test_a_journal_of_another_sweep_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "j.jsonl"
    inputs = {"vqa": {"model": "a", "seed": 1}}
    with Journal(file, inputs, {}) as journal:
        journal.append(0, [Answered([], np.zeros((1, 1), dtype=np.float32))])
    refused = pytest.raises(HonesError, match=r"belongs to a sweep with vqa.model = 'a', now 'b'")
    with refused, Journal(file, {"vqa": {"model": "b", "seed": 1}}, {}):
        pass
    lines = file.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[1])
    record["crc32"] += 1
    file.write_bytes(lines[0] + json.dumps(record).encode() + b"\n")
    with pytest.raises(HonesError, match="is damaged at line 2"), Journal(file, inputs, {}):
        pass


def test_a_kill_between_the_ends_of_two_tasks_recomputes_nothing(
    tmp_path: Path, vlms: dict[str, VLM], shapes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    items, tasks = load_items(shapes["test"]), [make_task("vqa"), make_task("caption")]
    study = Study(vlms["llava"], RunFolder(tmp_path), SweepSettings(batch_size=3, max_new_tokens=2))
    finish = RunFolder.finish

    def killed(self, stage, *args):
        if stage == "caption/heads":
            raise KeyboardInterrupt
        finish(self, stage, *args)

    monkeypatch.setattr(RunFolder, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        study.heads(tasks, items)
    monkeypatch.undo()
    monkeypatch.setattr(Replay, "answer", lambda *_: 1 / 0)
    results = study.heads(tasks[::-1], items)
    assert [r.metric_name for r in results] == ["bleu4", "vqa_soft_accuracy"]
    assert not [*(tmp_path / "journal").iterdir()]


def test_other_batches_and_bad_arguments_lose_nothing(
    tmp_path: Path, vlms: dict[str, VLM], shapes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    items, task, run = load_items(shapes["test"]), make_task("vqa"), RunFolder(tmp_path)
    first = Study(vlms["llava"], run, SweepSettings(batch_size=3, max_new_tokens=2))
    append = Journal.append

    def killed(self, group, statistics):
        append(self, group, statistics)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        first.heads([task], items)
    monkeypatch.undo()
    with pytest.raises(HonesError, match="belongs to a sweep of 3 pictures at once, now 1"):
        Study(vlms["llava"], run, SweepSettings(batch_size=1, max_new_tokens=2)).heads([task], items)
    Study(vlms["llava"], run, SweepSettings(max_new_tokens=2)).heads([task], items)
    for top_k, rules in ((9999, None), (None, RaceRules(confidence=95.0))):
        with pytest.raises(HonesError, match=r"top_k 9999|--racing 95"):
            Study(vlms["llava"], run, SweepSettings(max_new_tokens=2), fresh=True).heads([task], items, top_k, rules)
    monkeypatch.setattr(Replay, "answer", lambda *_: 1 / 0)
    Study(vlms["llava"], run, SweepSettings(max_new_tokens=2)).heads([task], items)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads({threads})
from hones.cli import main
from hones.sweep.journal import Journal
append, groups = Journal.append, []
def killed(self, group, statistics):
    append(self, group, statistics)
    groups.append(group)
    if len(groups) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = killed
main()
"""


def test_a_killed_sweep_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path, model_folders: dict[str, Path], shapes: dict[str, Path]
) -> None:
    """kill -9 in another process after two of seven pictures; the rest here."""

    def arguments(out: Path) -> list[str]:
        data = ["--data", str(shapes["test"]), "--task", "vqa,caption", "--batch-size", "1", "--max-new-tokens", "4"]
        return ["heads", "--model", str(model_folders["llava"]), *data, "--anyway", "--out", str(out)]

    program = KILLED.format(threads=torch.get_num_threads())
    done = subprocess.run([sys.executable, "-c", program, *arguments(tmp_path / "killed")], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    journal = tmp_path / "killed" / "journal" / "caption+vqa.heads.jsonl"
    assert journal.read_bytes().count(b"\n") == 3 and not (tmp_path / "killed" / "vqa" / "heads.json").exists()
    for run in ("whole", "killed"):
        assert call(*arguments(tmp_path / run)) == 0
    assert not journal.exists()
    for task in ("vqa", "caption"):
        for name in ("heads.json", "head_scores.npy"):
            whole, resumed = (tmp_path / run / task / name for run in ("whole", "killed"))
            assert whole.read_bytes() == resumed.read_bytes()


def test_a_group_has_few_pictures_where_there_are_many_interventions(
    families: dict[str, VLM], pictures: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is what a killed sweep loses; smaller ones give the same numbers."""
    plan = MemoryPlan(pictures=16, positions=4096, row_bytes=1)
    assert [plan.for_rows(rows).pictures for rows in (0, 37, 271, 2 * 271, 5000)] == [16, 16, 8, 4, 1]
    task, examples = jobs_of(pictures)[0]
    settings = replace(REPLAY, batch_size=None)
    expected = sweep(families["llava"], task, examples, EDITS, settings)
    groups = []
    answer = Replay.answer
    monkeypatch.setattr(
        Replay, "answer", lambda self, m, *a: groups.append({x.about for _, x in m}) or answer(self, m, *a)
    )
    monkeypatch.setitem(POSITIONS, "cpu", 4 * len(EDITS))
    np.testing.assert_array_equal(sweep(families["llava"], task, examples, EDITS, settings), expected)
    assert len(groups) > 2 and max(map(len, groups)) == 2


# --- racing ---


class Mean(Task):
    """A metric that is the mean of one number per item."""

    name, metric_name, answers, statistic_names = "mean", "mean", "text", ("value", "n")

    def example(self, item, images) -> Example:
        raise NotImplementedError

    def statistics(self, example, answer) -> np.ndarray:
        raise NotImplementedError

    def score(self, sums) -> np.ndarray:
        return np.asarray(sums[..., 0] / sums[..., 1])


def raced(drops: np.ndarray, items: int, top_k: int, seed: int, margin: float = 0.0) -> tuple[Race, int]:
    """A race of heads that each lower a 0-or-1 metric with some probability; and the cells that it ran."""
    rng = np.random.default_rng(seed)
    right = rng.random((len(drops) + 1, items)) >= np.array([0.0, *drops])[:, None]
    cells = np.stack([right, np.ones_like(right)], -1).astype(np.float32)
    race, run = Race(Mean(), top_k, len(drops), items, RaceRules(margin=margin), seed), 0
    for start in range(0, items, 20):
        if not race.alive:
            break
        run += 20 * len(race.alive)
        race.take(cells, [*range(start, start + 20)])
    return race, run


def test_a_race_finds_heads_that_stand_out_with_few_cells() -> None:
    drops = np.array([0.6, 0.5, 0.4, *[0.02] * 29])
    race, run = raced(drops, 1000, 3, seed=1)
    assert set(race.kept) == {1, 2, 3} and len(race.dropped) == 29 and not race.alive
    assert run < 0.15 * 33 * 1000
    assert race.items_of(1) == [*range(race.kept[1])]


def test_a_race_of_equals_goes_to_the_end() -> None:
    race, run = raced(np.full(10, 0.3), 200, 3, seed=2)
    assert len(race.seen) == 200 and len(race.kept) + len(race.dropped) < 10 and run > 0.6 * 11 * 200


def test_a_race_of_ties_ends_where_they_count_as_equal() -> None:
    drops = np.array([0.5, 0.4, *[0.0] * 30])
    race, run = raced(drops, 2000, 5, seed=3, margin=0.01)
    assert {1, 2} <= set(race.kept) and len(race.kept) == 5 and not race.alive
    assert run < 0.2 * 33 * 2000
    whole, run_whole = raced(drops, 2000, 5, seed=3)
    assert {1, 2} <= set(whole.kept) and run_whole > 0.9 * 31 * 2000


def test_racing_reports_who_left_when(families: dict[str, VLM], pictures: Items, tmp_path: Path) -> None:
    vlm = families["llava"]
    task = LogProbability(make_task("caption"))
    examples, _ = task.examples(pictures)
    exact = localize_heads(vlm, task, examples, top_k=2, sweep=SweepSettings(batch_size=1))
    settings = SweepSettings(batch_size=1, max_new_tokens=NEW_TOKENS)
    found = race_heads(vlm, task, examples, top_k=2, rules=RaceRules(0.5, 0.0, look=1), sweep=settings)
    scores = {(h.layer, h.head): h for h in exact.heads}
    assert {h.items for h in found.heads} <= set(range(1, len(examples) + 1))
    assert any(h.dropped and h.items < len(examples) for h in found.heads)
    for h in found.heads:
        if h.items == len(examples):
            assert h.score.value == pytest.approx(scores[h.layer, h.head].score.value, abs=1e-4)
    write_heads(tmp_path, found, 3, 4)
    assert read_heads(tmp_path / "heads.json") == found
    content = json.loads((tmp_path / "heads.json").read_text())
    assert content["racing"] == {"confidence": 0.5, "margin": 0.0, "look": 1}
    assert {"n", "dropped"} <= set(content["all_heads"][0])
    with pytest.raises(HonesError, match="a confidence between 0 and 1"):
        race_heads(vlm, task, examples, rules=RaceRules(confidence=1.0))


def test_the_past_goes_by_the_name_that_a_decoder_gives_it() -> None:
    """transformers 5.24 renames it, and warns of the former name."""

    def former(inputs_embeds: object, past_key_values: object = None) -> None: ...

    def renamed(inputs_embeds: object, cache: object = None) -> None: ...

    def takes_anything(**given: object) -> None: ...

    found = [name_of_the_past(forward) for forward in (former, renamed, takes_anything)]
    assert found == ["past_key_values", "cache", "past_key_values"]
