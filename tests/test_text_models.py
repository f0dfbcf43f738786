"""Text-only models and tasks without pictures: every family's claims, every stage, and both engines alike."""

import copy
import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from text_models import TEXT_FAMILIES

from hones import HonesError, attach, load_items, load_vlm, make_task, verify
from hones.data.disjoint import check_disjoint
from hones.data.items import Items
from hones.method.analysis.explain import explain
from hones.method.heads import localize_heads
from hones.method.neurons import attribute_neurons
from hones.method.steering.results import Evidence
from hones.models.interventions import BASELINE, Intervention
from hones.models.prompting import encode
from hones.models.vlm import VLM
from hones.runs.artifacts import read_result, read_scales
from hones.runs.config import read_config
from hones.runs.pipeline import run_config
from hones.runs.plan.forecast import plan
from hones.runs.plan.lengths import measure
from hones.runs.plan.request import make_request
from hones.runs.plan.shapes import shapes_of, weightless
from hones.runs.prepared import prepare
from hones.runs.results import read_results
from hones.sharing.ask import ask
from hones.sharing.export import export_scales
from hones.sweep.run import SweepSettings, sweep, sweep_tasks
from hones.tasks.base import BarePrompt, Task
from hones.tasks.custom import task_of_content
from hones.views.report.explain import render_explanation
from hones.views.report.page import render_report

CAPITALS = Path(__file__).parents[1] / "docs" / "examples" / "capitals"
SHORT = 4
TASK = yaml.safe_load((CAPITALS / "task.yaml").read_text())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load_vlm(str(TEXT_FAMILIES["Llama"](tmp_path_factory.mktemp("text") / "llama")))


def capitals(**more: Any) -> Task:
    return task_of_content(TASK | more, "task.yaml")


def own_answers(vlm: VLM, folder: Path, split: str) -> Path:
    """The example's questions, answered by the model itself, so that it is right before it is edited."""
    with (CAPITALS / f"{split}.csv").open() as file:
        rows = [*csv.DictReader(file)][:6]
    prompts = [f"{row['question']}\nAnswer with the name alone." for row in rows]
    answers = [vlm.generate(vlm.encode([None], [prompt]), SHORT)[0] for prompt in prompts]
    path = folder / f"{split}.json"
    kept = [{"item_id": r["id"], "question": r["question"], "answer": a} for r, a in zip(rows, answers, strict=True)]
    path.write_text(json.dumps({"data": [row for row in kept if row["answer"]]}))
    return path


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_every_claim_holds_for_text_only_models(family: str, tmp_path: Path) -> None:
    vlm = load_vlm(str(TEXT_FAMILIES[family](tmp_path)))
    found = verify(vlm)
    assert found.failed == []
    _, table = (CAPITALS.parents[1] / "families.md").read_text().split("## Text-only models")
    (row,) = (line.split(" | ") for line in table.splitlines() if line.startswith(f"| {family} |"))
    assert row[1:3] == ["verified", found.engine], "run tools/families.py again"
    assert (found.engine, vlm.image_backend, vlm.shows_pictures) == ("replay", "none", False)
    ids = vlm.encode([None], ["Hi there"]).inputs["input_ids"][0].tolist()
    assert ids.count(vlm.tokenizer.bos_token_id) == 1, "the template writes a start token, and so does the tokenizer"


@pytest.mark.parametrize("family", ["Gemma 2", "Phi-3"])
def test_logits_behind_the_head_are_the_models(family: str, tmp_path: Path) -> None:
    vlm = load_vlm(str(TEXT_FAMILIES[family](tmp_path)))
    assert (vlm.after_head.cap is not None) is (family == "Gemma 2")
    encoded = vlm.encode([None], ["Hi there"])
    hidden: list[torch.Tensor] = []
    hook = vlm.anatomy.lm_head.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    with torch.no_grad():
        expected = vlm.model(**encoded.inputs).logits
        hook.remove()
        torch.testing.assert_close(vlm.head(hidden[0]), expected)


def test_both_engines_agree_on_texts(llama: VLM, tmp_path: Path) -> None:
    task, items = capitals(), load_items(own_answers(llama, tmp_path, "discovery"))
    examples, bad = task.examples(items)
    assert not bad and all(example.image is None for example in examples)
    found, expected = (
        localize_heads(llama, task, examples, top_k=4, sweep=SweepSettings(engine, max_new_tokens=SHORT))
        for engine in ("replay", "naive")
    )
    assert found.heads == expected.heads and found.baseline.value == 1.0 and found.critical[0].score.value > 0
    importance = [
        attribute_neurons(llama, task, examples, found.critical, sweep=SweepSettings(engine))
        for engine in ("replay", "naive")
    ]
    np.testing.assert_allclose(importance[0], importance[1], atol=1e-6)
    assert (importance[0] > 0).any()


def test_texts_with_nothing_in_common(llama: VLM) -> None:
    """Prompts of one token: there is no prefix to share."""
    vlm = attach("bare", llama.model, llama.tokenizer)
    rows = [{"item_id": i, "question": q, "answer": "yes"} for i, q in enumerate(["a", "b", "Why is it so?"])]
    task = capitals(prompt="{question}", metric="yes_no_accuracy", answers="yes_no")
    examples, _ = task.examples(Items(tuple(_items(rows)), Path(), ""))
    own = vlm.tokenizer.backend_tokenizer.post_processor
    vlm.tokenizer.backend_tokenizer.post_processor = None  # no start token
    try:
        assert vlm.encode([None], ["a"]).inputs["input_ids"].shape == (1, 1)
        edits = [BASELINE, Intervention(heads=frozenset({(0, 1)})), Intervention(masked=frozenset({(2, 3)}))]
        found, expected = (sweep(vlm, task, examples, edits, SweepSettings(e)) for e in ("replay", "naive"))
        np.testing.assert_array_equal(found, expected)
    finally:
        vlm.tokenizer.backend_tokenizer.post_processor = own


def _items(rows: list[dict[str, Any]]) -> list[Any]:
    from hones.data.unified import parse_rows

    return parse_rows(rows)


def test_a_text_task_on_a_vision_language_model(vlm: VLM, discovery: Items, tmp_path: Path) -> None:
    """Beside a task with pictures in one sweep; the prompt has no placeholder."""
    text, vqa = capitals(), make_task("vqa")
    examples, _ = text.examples(load_items(own_answers(vlm, tmp_path, "test")))
    placeholder = vlm.processor.image_token  # pyright: ignore[reportAttributeAccessIssue]
    assert placeholder not in vlm.wrap("Hi", picture=False) and placeholder in vlm.wrap("Hi")
    jobs = [(text, examples), (vqa, vqa.examples(discovery)[0][:2])]
    edits = [BASELINE, Intervention(heads=frozenset({(1, 2)})), Intervention(masked=frozenset({(0, 1), (1, 3)}))]
    with_both, expected = (
        sweep_tasks(vlm, jobs, edits, SweepSettings(engine, max_new_tokens=SHORT)) for engine in ("replay", "naive")
    )
    for a, b in zip(with_both, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert expected[0][0].min() == 1, "the model's own answers"
    found = prepare(vlm, text, load_items(tmp_path / "test.json"), "test")
    assert len(found.examples) == len(examples) and not found.left_out


def test_a_picture_task_on_a_text_only_model_is_one_line(llama: VLM, discovery: Items) -> None:
    with pytest.raises(HonesError, match="is a text-only model, the task vqa shows pictures; expected a task without"):
        prepare(llama, make_task("vqa"), discovery, "discovery")
    with pytest.raises(HonesError, match="is a text-only model"):
        llama.wrap("Hi", picture=True)


def test_pictures_and_texts_do_not_mix_in_a_batch(vlms: dict[str, VLM], discovery: Items) -> None:
    vlm, (example, *_) = vlms["llava"], make_task("vqa").examples(discovery)[0]
    with pytest.raises(HonesError, match="with and without a picture at once"):
        encode(vlm.model, vlm.processor, [example.open_picture(), None], ["a", "b"])


@pytest.mark.parametrize("family", ["Llama", "GPT-2", "OPT"])
def test_all_stages_run_on_a_text_only_model(family: str, llama: VLM, tmp_path: Path) -> None:
    vlm = llama if family == "Llama" else load_vlm(str(TEXT_FAMILIES[family](tmp_path / "model")))
    for split in ("discovery", "dev", "test"):
        own_answers(vlm, tmp_path, split)
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK))
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(
            {
                "model": vlm.name,
                "out": "run",
                "data": {split: f"{split}.json" for split in ("discovery", "dev", "test")},
                "tasks": ["task.yaml"],
                "top_k": 3,
                "ratio": 0.1,
                "draws": 2,
                "max_new_tokens": SHORT,
                "compare": {"methods": ["dvp", "atp", "logprob-gain", "random"], "curves": False},
                "steering": {"epochs": 1, "learning_rate": 0.1, "methods": ["fixed-amp"]},
                "analyze": {"cards": 1, "draws": 1, "lens_items": 1},
            }
        )
    )
    (outcome,) = run_config(read_config(tmp_path / "run.yaml"))
    assert outcome.masking.baseline.value == 1.0 and outcome.neurons
    run = tmp_path / "run"
    assert read_result(run / "capitals" / "steering" / "evidence.json", Evidence).test.methods
    page = render_report(read_results(run))
    assert "capitals" in page and "Left out" not in page
    scales = run / "capitals" / "steering" / "hones" / "scales.json"
    assert any(read_scales(scales).values.values())
    done = export_scales(vlm, scales, tmp_path / "merged", format="merged")
    assert done.manifest.check is not None and not done.manifest.pictures
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "text-generation" in card and "--image" not in card
    asked = ask(vlm, None, "What is the capital of Peru?", scales=scales, max_new_tokens=SHORT)
    assert len(asked.replies) == 2
    found = explain(vlm, None, "What is the capital of Peru?", answer="Lima")
    assert found.picture == "" and "<img" not in render_explanation(found, None)


def test_texts_are_read_from_tables_and_json(tmp_path: Path) -> None:
    items = load_items(CAPITALS / "discovery.csv")
    assert items.format == "table" and items.items[0].file_name is None and items.items[0].id == "france"
    (tmp_path / "words.csv").write_text("word,opposite\nhot,cold\n,big\n")
    words = load_items(f"{tmp_path / 'words.csv'}?format=table")
    task = capitals(prompt="{word}", target="opposite")
    examples, bad = task.examples(words)
    assert [e.prompts for e in examples] == [("hot",)] and [b.id for b in bad] == ["#1"]
    with pytest.raises(HonesError, match="no known format"):
        load_items(tmp_path / "words.csv")
    vqa, left_out = make_task("vqa").examples(items)
    assert not vqa and {one.reason for one in left_out} == {"it has no picture, which the task shows"}


def test_splits_share_no_text() -> None:
    one, two = (load_items(CAPITALS / f"{split}.csv") for split in ("dev", "test"))
    check_disjoint({"dev": one, "test": two})
    with pytest.raises(HonesError, match="the text item egypt of test is in dev too"):
        check_disjoint({"dev": one, "test": one})


def test_a_box_needs_a_picture() -> None:
    with pytest.raises(HonesError, match="a box without a picture"):
        capitals(box="ocr.bbox")


def test_a_bare_prompt_is_asked_as_it_is(llama: VLM, vlms: dict[str, VLM], tmp_path: Path) -> None:
    """Without the template that others get, its answer after its own lead; both engines and workers take it so."""
    rows = [{"item_id": i, "text": text, "answer": "b c"} for i, text in enumerate(["One two", "Three", "Four of 5"])]
    bare = {"prompt": "{text} and", "target": "answer", "template": "none"}
    items = Items(tuple(_items(rows)), Path(), "")
    spaced, close, wrapped = capitals(**bare), capitals(**bare, lead=""), capitals(prompt="{text} and")
    (prompt, *_), (near, *_) = (task.examples(items)[0][0].prompts for task in (spaced, close))
    for vlm in (llama, vlms["llava"]):
        ids = vlm.encode([None], [prompt]).inputs["input_ids"][0].tolist()
        assert ids == vlm.tokenizer("One two and")["input_ids"]
        assert ids + vlm.answer_ids(prompt, "b") == vlm.tokenizer("One two and b")["input_ids"]
        assert vlm.answer_ids(near, "2") == vlm.tokenizer("One two and2")["input_ids"][len(ids) :]
        forced = vlm.encode_with_answers([None], [prompt], ["b"])
        assert forced.inputs["input_ids"][0].tolist() == [*ids, *vlm.gold_ids(prompt, "b")]
    assert isinstance(prompt, BarePrompt)
    assert pickle.loads(pickle.dumps(near)).lead == "" and copy.deepcopy(prompt).lead == " "
    with pytest.raises(HonesError, match="the bare prompt 'One two and' with a picture; expected Example"):
        vlms["llava"].wrap(prompt, picture=True)
    examples, _ = spaced.examples(items)
    edits = [BASELINE, Intervention(heads=frozenset({(0, 1)})), Intervention(masked=frozenset({(0, 3)}))]
    found, expected = (
        sweep(llama, spaced, examples, edits, SweepSettings(e, max_new_tokens=SHORT)) for e in ("replay", "naive")
    )
    np.testing.assert_array_equal(found, expected)
    digests = {task.definition.digest for task in (spaced, close, wrapped) if task.definition is not None}
    assert len(digests) == 3, "how it is asked is part of what a task says"
    assert capitals(template="model").definition == capitals().definition


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"picture": "shown"}, "template: none shows no picture; it needs picture: none"),
        ({"answers": "yes_no", "metric": "yes_no_accuracy"}, "answers: yes_no reads how the model goes on after"),
        ({"prompt": "{question} "}, "a prompt that ends in white space is followed by more of it"),
        ({"template": "model", "lead": ""}, "a lead with the model's template"),
        ({"template": "chat"}, "'model' or 'none'"),
    ],
)
def test_what_a_bare_prompt_cannot_be(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(HonesError, match=reason):
        capitals(**{"template": "none"} | more)


def test_a_text_task_is_planned(tmp_path_factory: pytest.TempPathFactory, llama: VLM) -> None:
    """A prompt has the length that the model is given, a text-only model has no vision part, and hours come out."""
    folder = tmp_path_factory.mktemp("plan")
    items, task = load_items(own_answers(llama, folder, "discovery")), capitals()
    light = weightless(llama.name)
    shapes = shapes_of(light, "float32")
    jobs, _ = measure(light, shapes, [task], items, max_new_tokens=SHORT)
    job = jobs[task.name]
    assert job.items == len(items)
    for one in job.asked:
        assert one.before == 0 and one.vision.flop == 0
        inputs = llama.encode([None], one.example.prompts).inputs
        assert inputs["input_ids"].shape[1] == one.length
    config = {"model": llama.name, "data": {"discovery": folder / "discovery.json"}}
    found = plan(make_request(**config, tasks=(str(CAPITALS / "task.yaml"),), memory=8.0, tflops=1.0))
    assert found.as_dict()["stages"][0]["stage"] == "heads" and found.counted[0].work.flop > 0
