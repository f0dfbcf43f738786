"""`hones app` without its page: the edit as data, what a run offers, and what the page asks for."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from test_cli import call
from test_custom_tasks import POPE, task_like

from hones import HonesError, ask, load_items, make_task, replace_heads
from hones.app import shown
from hones.app.desk import Desk, Form
from hones.app.edit import Edit
from hones.app.offered import Offered, read_offered, spec_of_run
from hones.app.question import Question, question_of
from hones.models.interventions import BASELINE, Intervention
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.runs.artifacts import read_neurons, read_scales
from hones.runs.results import read_results
from hones.sharing.ask import Asked, Reply
from hones.sharing.edits import EditNames, named_heads
from hones.tasks.asking import ask_as, fields_in

QUESTION = "What colour is the star?"


def form(desk: Desk, picture: Path | None, **fields: Any) -> Form:
    return Form(next(iter(desk.specs)), picture=None if picture is None else str(picture), text=QUESTION, **fields)


def test_a_head_is_replaced_and_is_not_again() -> None:
    edit = Edit().toggled((2, 1)).toggled((0, 3))
    assert edit.heads == ((0, 3), (2, 1)) and edit
    assert edit.toggled((2, 1)).toggled((0, 3)) == Edit() and not Edit()


def test_an_edit_is_the_intervention_of_what_it_names(app_run: Path, vlms: dict[str, VLM]) -> None:
    files = app_run / "retrieval/neurons.json", app_run / "retrieval/steering/hones/scales.json"
    edit = Edit(((0, 1), (2, 3)), (files[0],), files[1])
    masked = frozenset((n.layer, n.neuron) for n in read_neurons(files[0]))
    assert edit.intervention(vlms["llava"], "retrieval") == Intervention(
        frozenset(((0, 1), (2, 3))), masked, read_scales(files[1]).values
    )
    assert Edit().intervention(vlms["llava"], "vqa") == BASELINE
    with pytest.raises(HonesError, match=r"no head \(9, 0\)"):
        Edit(((9, 0),)).intervention(vlms["llava"], "vqa")
    with pytest.raises(HonesError, match=r"names llava at revision .*; expected the model that the heads and neurons"):
        edit.intervention(vlms["qwen"], "retrieval")


def test_an_edit_as_json_needs_no_other_file(app_run: Path, picture: Path, tmp_path: Path) -> None:
    neurons, scales = app_run / "retrieval/neurons.json", app_run / "retrieval/steering/hones/scales.json"
    question = Question("ocr", picture, box="1,2,30,40")
    content = Edit(((1, 2),), (neurons,), scales).as_json(ModelSpec("m", revision="r"), question)
    (tmp_path / "edit.json").write_text(json.dumps(content))
    assert read_scales(tmp_path / "edit.json") == read_scales(scales), "--scales reads it"
    assert content["heads"] == [{"layer": 1, "head": 2}]
    rows = {(row["layer"], row["neuron"]) for row in content["neurons"]}
    assert rows == {(n.layer, n.neuron) for n in read_neurons(neurons)}
    assert (content["model"], content["revision"], content["asked"]["box"]) == ("m", "r", (1, 2, 30, 40))
    assert [file["file"] for file in content["files"]] == [str(neurons), str(scales)]


def test_the_command_says_what_the_page_says(desk: Desk, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offered = desk.offered
    asked = form(desk, picture, heads=("1.0", "0.2"), neurons=(*offered.neurons,), scales=next(iter(offered.scales)))
    command = shlex.split(desk.command(asked))
    assert command[:2] == ["hones", "ask"] and "0.2,1.0" in command
    assert call(*command[1:]) == 0
    said = " ".join(capsys.readouterr().out.split())
    of_page = desk.ask(asked)
    assert f"2 heads replaced, {of_page.masked} neurons masked, {of_page.neurons} neurons scaled" in said
    for reply in of_page.replies:
        assert f"{reply.probability:.3g}" in said and f"{reply.others:.3g}" in said


def test_the_command_names_what_is_no_default() -> None:
    model = ModelSpec("a b", device_map="auto", trust_remote_code=True, attention="eager")
    question = Question("t.yaml", Path("p q.png"), "-- why?", ("a=b c",))
    assert Edit().as_command(model, question, 5) == (
        "hones ask --model 'a b' --device-map auto --attention eager --trust-remote-code --max-new-tokens 5 "
        "--image 'p q.png' --task t.yaml --field 'a=b c' -- '-- why?'"
    )


def test_a_question_is_found_in_the_prompt_that_asks_it(shapes: dict[str, Path]) -> None:
    items = load_items(shapes["test"])
    for name, field in (("vqa", "question"), ("ocr", None), ("caption", None), ("retrieval", "candidate")):
        task = make_task(name, candidates=2)
        example = task.examples(items)[0][0]
        found = question_of(task, name, example.prompts[0], example.image, example.box)
        assert found is not None and found.example().prompts == example.prompts[:1]
        assert (found.asked is None) == (field is None)
        assert fields_in(task, f"x{example.prompts[0]}") is None, "another prompt"
    task = task_like(prompt="{a}: {b.c} {{of}} {a}")
    asked = ask_as(task, items.images / str(items[0].file_name), None, {"a": "x: y", "b.c": "z"})
    assert fields_in(task, asked.prompts[0]) == {"a": "x: y", "b.c": "z"}
    found = question_of(task, "t.yaml", asked.prompts[0], asked.image, None)
    assert found is not None and (found.text, found.fields) == ("x: y", ("b.c=z",))


@pytest.mark.parametrize(("given", "heads"), [("3.2", ((3, 2),)), (" 0.1 ,2.3,0.1", ((0, 1), (2, 3)))])
def test_heads_are_typed_as_pairs(given: str, heads: Any) -> None:
    assert named_heads(given) == heads


def test_heads_that_are_neither_pairs_nor_a_file_are_one_line(tmp_path: Path) -> None:
    assert named_heads("run/heads.json") == Path("run/heads.json")
    (tmp_path / "3 heads.json").write_text("{}")
    with pytest.raises(HonesError, match=r"--heads 3,2; expected LAYER.HEAD, such as 3.2, with commas"):
        named_heads("3,2")
    with pytest.raises(HonesError, match="the given files name no head, neuron or scale"):
        EditNames(heads=_without_critical(tmp_path)).of(Any, "vqa")  # pyright: ignore[reportArgumentType]


def _without_critical(folder: Path) -> Path:
    rows = [{"layer": 0, "head": 0, "score": 0.0, "baseline": 0.5, "intervened": 0.5, "n": 1}]
    content = {"baseline": {"metric": 0.5, "metric_name": "m", "n": 1}, "all_heads": rows, "top_heads": rows}
    (folder / "heads.json").write_text(json.dumps(content))
    return folder / "heads.json"


def test_the_edited_model_answers_beside_the_unedited_one(vlms: dict[str, VLM], picture: Path) -> None:
    vlm = vlms["llava"]
    edit = Intervention(heads=frozenset(((0, 1), (2, 2))), masked=frozenset(((1, 3),)))
    both = ask(vlm, picture, QUESTION, edit=edit, max_new_tokens=4)
    before, after = both.replies
    assert (after.model, both.edit) == ("edited", "2 heads replaced, 1 neuron masked")
    with edit.on(vlm.model):
        (alone,) = ask(vlm, picture, QUESTION, max_new_tokens=4).replies
    assert (after.answer, after.probability, after.first) == (alone.answer, alone.probability, alone.first)
    assert ask(vlm, picture, QUESTION, max_new_tokens=4).replies == (replace(before, others=None),), "no edit stays"
    with replace_heads(vlm.model, ((0, 1),)):
        only_head = ask(vlm, picture, QUESTION, max_new_tokens=4).replies[0]
    assert only_head.probability != after.probability


def test_a_run_offers_what_it_found(app_run: Path, model_folders: dict[str, Path], picture: Path) -> None:
    offered = read_offered(app_run, (str(POPE),))
    assert [*offered.tasks] == ["vqa", "ocr", "caption", "retrieval", "pope"] and offered.skipped == []
    neurons = len(read_neurons(app_run / "retrieval/neurons.json"))
    assert offered.neurons == {f"retrieval: {neurons} neurons": app_run / "retrieval/neurons.json"}
    assert offered.scales == {"retrieval: hones": app_run / "retrieval/steering/hones/scales.json"}
    first = offered.changed[0]
    assert [(arm, said.answer) for arm, said in first.changing] == [("masked", "No")]
    assert first.question is not None and first.question.task == "retrieval" and first.asked == first.question.text
    spec = spec_of_run(read_results(app_run))
    assert spec == ModelSpec(str(model_folders["llava"]), dtype="float32", revision=None)
    assert Offered().neurons == Offered().scales == {} and Offered().changed == []


def test_a_run_that_names_no_model_needs_one(app_run: Path) -> None:
    results = read_results(app_run)
    nothing = replace(results, record=results.record.model_copy(update={"stages": {}}))
    with pytest.raises(HonesError, match=r"its run.json names no model; expected one model; pass --model"):
        spec_of_run(nothing)


def test_a_task_of_a_run_that_is_code_is_only_named(app_run: Path) -> None:
    results = read_results(app_run)
    stages = dict(results.record.stages)
    stage = stages.pop("retrieval/heads")
    assert stage.discovery is not None
    code = {"given": "colour.py:Colour", "digest": "x", "content": None}
    used = stage.discovery.model_copy(update={"task": type("D", (), code)()})
    stages["colour/heads"] = stage.model_copy(update={"discovery": used})
    offered = Offered(replace(results, record=results.record.model_copy(update={"stages": stages})))
    assert "colour" not in offered.tasks
    assert offered.skipped == ["colour of the run is a Python class: name it with --task colour.py:Colour"]


def test_what_the_page_does_not_offer_is_one_line(desk: Desk, picture: Path) -> None:
    for fields, message in (
        ({"task": "other"}, "no task 'other' on this page; expected one of vqa"),
        ({"neurons": ("x",)}, "no neuron set 'x' in the run; expected one of retrieval: "),
        ({"scales": "x"}, "no scales 'x' in the run"),
        ({"fields": "a"}, "--field a; expected NAME=VALUE"),
        ({"task": "ocr", "box": "1,2"}, "--box 1,2; expected four numbers"),
    ):
        with pytest.raises(HonesError, match=message):
            desk.ask(form(desk, picture, **fields))
    with pytest.raises(HonesError, match="there is no question yet; expected a text for question"):
        desk.ask(replace(form(desk, picture), text=" "))
    with pytest.raises(HonesError, match="no model 'other' on this page"):
        desk.ask(replace(form(desk, picture), model="other"))


def test_a_page_asks_the_model_of_the_run_or_says_that_it_is_another(
    desk: Desk, app_run: Path, model_folders: dict[str, Path]
) -> None:
    llava, qwen = (str(model_folders[name]) for name in ("llava", "qwen"))
    both = Desk([ModelSpec(llava), ModelSpec(qwen)], desk.offered)
    assert (both.fits(llava), both.fits(qwen)) == (True, False)
    assert both.head_counts(llava) == (4, 4, 4)
    assert Desk([ModelSpec(qwen)], Offered()).fits(qwen), "without a run there is nothing to fit"


def test_pages_that_ask_at_once_do_not_see_each_others_edits(desk: Desk, picture: Path) -> None:
    forms = [form(desk, picture, heads=(head,)) for head in ("0.0", "1.1", "2.2", "0.3")]
    alone = [desk.ask(x) for x in forms]
    assert len({x.replies[1].probability for x in alone}) == len(forms), "the edits differ"
    found: dict[int, Asked] = {}

    def work(start: int) -> None:
        for i in range(start, len(forms), 2):
            found[i] = desk.ask(forms[i])

    threads = [Thread(target=work, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(forms))] == alone


def test_uploads_that_are_no_pictures_are_one_line(
    desk: Desk, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:200])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text", "broken", "empty", "absent"):
        with pytest.raises(HonesError, match=rf"{name}\.png.*choose another file") as caught:
            desk.take(tmp_path / f"{name}.png")
        assert str(tmp_path) not in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert desk.take(picture).size == (96, 96)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(HonesError, match="too large"):
        desk.take(picture)


def test_the_map_has_a_button_for_every_head(desk: Desk) -> None:
    results = desk.offered.of("retrieval")
    assert results is not None and results.heads is not None
    for shading in (results.heads, (4, 4, 4)):
        page = shown.head_buttons("retrieval", shading, {(1, 2)})
        picks = [f"{layer}.{head}" for layer in range(3) for head in range(4)]
        assert [f'data-pick="{pick}"' in page for pick in picks] == [True] * 12 and page.count("data-pick") == 12
        assert page.count('aria-pressed="true"') == page.count("mark chosen") == 1
        assert 'aria-pressed="true" data-pick="1.2"' in page


def test_whatever_a_model_says_is_only_text() -> None:
    hostile = '<img src=x onerror="alert(1)">'
    replies = [
        Reply("as it is", hostile, False, 0.25, 1e-5, ((hostile, 0.5),)),
        Reply("edited", "", True, float("nan"), 0.5, ((" a", 0.5),)),
    ]
    page = shown.answers(Asked(hostile, 0, tuple(replies), heads=1))
    assert "<img" not in page and "&lt;img" in page
    assert "another answer" in page and "(empty) …" in page and "1.0e-05" in page and "–" in page
    assert "<img" not in shown.notice(hostile) and shown.notice("") == ""
    assert "<img" not in shown.head_buttons(hostile, (1,), (), hostile)


def test_the_command_opens_a_page_only_with_gradio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("hones.cli.app.find_spec", lambda name: None)
    assert call("app") == 2
    assert capsys.readouterr().err == "hones: hones app needs gradio; pip install 'hones[app]'\n"
    monkeypatch.setattr("hones.cli.app.find_spec", lambda name: name)
    assert call("app", tmp_path) == 2
    assert "holds no results" in capsys.readouterr().err
    assert call("app", "--model", "./absent") == 2 and "no folder ./absent" in capsys.readouterr().err
