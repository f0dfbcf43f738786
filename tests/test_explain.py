"""Explanations: head drops, neurons and tokens against explicit runs, and the command."""

from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from test_cli import call

from hones import Explanation, HonesError, explain, replace_heads
from hones.errors import BadItem
from hones.method.analysis.cards import contributions_of
from hones.method.analysis.explanation import ExplainedHead
from hones.method.analysis.tokens import written_tokens
from hones.method.drops import Attribution, drops
from hones.models.layout import NoLayout
from hones.models.vlm import VLM
from hones.runs.artifacts import read_result
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example
from hones.tasks.vqa import PROMPT, Vqa
from hones.views.report.explain import overlays_of, render_explanation
from hones.views.terminal import view

QUESTION = "What colour is the star?"


@pytest.fixture
def picture(shapes: dict[str, Path]) -> Path:
    return shapes["test"].parent / "images" / "test_00001.png"


@torch.no_grad()
def log_probability(vlm: VLM, example: Example) -> float:
    encoded = vlm.encode_with_answers([example.open_picture()], example.prompts, [example.target])
    return float(vlm.log_probabilities(encoded))


def test_heads_neurons_and_tokens_are_those_of_explicit_runs(vlm: VLM, picture: Path) -> None:
    found = explain(vlm, picture, QUESTION, answer="red", top_k=4, neurons=6)
    example = Example("x", picture, (PROMPT.format(question=QUESTION),), "red", ("red",))
    base = log_probability(vlm, example)
    assert found.probability == pytest.approx(np.exp(base), rel=1e-4) and found.answer == "red"
    assert len(found.all_heads) == 12 and found.drops().shape == (3, 4)
    for head in found.all_heads:
        with replace_heads(vlm.model, [(head.layer, head.head)]):
            edited = log_probability(vlm, example)
        assert head.log_probability_drop == pytest.approx(base - edited, abs=1e-4)
        assert head.probability_drop == pytest.approx(np.exp(base) - np.exp(edited), abs=1e-5)
    values = [h.log_probability_drop for h in found.all_heads]
    assert values == sorted(values, reverse=True) and values[0] > 0

    guides = [h for h in found.all_heads[:4] if h.log_probability_drop > 0]
    weights = np.array([h.log_probability_drop for h in guides])
    per_head = np.maximum(drops(vlm, Attribution(Vqa(), [example], [(h.layer, h.head) for h in guides])), 0)
    dependence = np.tensordot(weights, per_head, 1) / weights.sum()
    assert len(found.neurons) == 6
    best = np.sort(dependence.ravel())[::-1][:6]
    np.testing.assert_allclose([n.dependence for n in found.neurons], best, rtol=1e-3, atol=1e-5)
    sites = [(n.layer, n.neuron) for n in found.neurons]
    contributed = contributions_of(vlm, Vqa(), [example], sites)[0]
    for n, site, c, tokens in zip(found.neurons, sites, contributed, written_tokens(vlm, sites), strict=True):
        assert n.dependence == pytest.approx(dependence[site], rel=1e-3, abs=1e-5)
        assert n.contribution == pytest.approx(float(c)) and (n.promotes, n.suppresses) == tokens
        assert sum(h.value for h in n.heads) == pytest.approx(1)


def render(found: Explanation) -> str:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(view(found))
    return shown.get()


def test_heads_whose_replacement_costs_nothing_are_not_marked(vlm: VLM, picture: Path) -> None:
    found = explain(vlm, picture, QUESTION, answer="red", top_k=12, neurons=6)
    costly = [h for h in found.all_heads if h.log_probability_drop > 0]
    assert list(found.critical) == costly and 0 < len(costly) < 12
    assert render(found).count("●") == len(costly) + 1, "the last one is the legend"
    assert f"Ringed: the first {len(costly)}." in render_explanation(found, None)


def test_both_engines_explain_alike(vlm: VLM, picture: Path) -> None:
    fast, slow = (explain(vlm, picture, QUESTION, settings=SweepSettings(engine)) for engine in ("replay", "naive"))
    assert fast.answer == slow.answer
    np.testing.assert_allclose(fast.drops(), slow.drops(), atol=1e-4)
    np.testing.assert_allclose(fast.maps[0].values, slow.maps[0].values, atol=1e-4)
    np.testing.assert_allclose([n.dependence for n in fast.neurons], [n.dependence for n in slow.neurons], atol=1e-5)


def test_the_answer_is_the_models_own_to_the_prompt_that_was_asked(vlm: VLM, picture: Path) -> None:
    for raw, prompt in ((False, PROMPT.format(question=QUESTION)), (True, QUESTION)):
        example = Example("x", picture, (prompt,), "", ())
        (answer,) = vlm.generate(vlm.encode([example.open_picture()], [prompt]), 5)
        found = explain(
            vlm, picture, QUESTION, raw=raw, neurons=1, where=False, settings=SweepSettings(max_new_tokens=5)
        )
        assert found.answer == answer


def test_an_answer_that_was_cut_is_said_to_be(vlm: VLM, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = vlm.answer_ids(PROMPT.format(question=QUESTION), "red")
    for ids, cut in ((said, True), ([*said, vlm.eos_ids[0]], False)):
        monkeypatch.setattr(VLM, "generate_ids", lambda *_, ids=ids: [ids])
        found = explain(vlm, picture, QUESTION, neurons=1, where=False)
        assert (found.answer, found.cut) == ("red", cut)
        text = render_explanation(found, picture) + render(found)
        assert text.count("cut before its end") == 2 * cut
    assert not explain(vlm, picture, QUESTION, neurons=1, answer="red", where=False).cut


def test_heads_that_do_not_lower_the_probability_feed_nothing(vlm: VLM, picture: Path) -> None:
    from hones.method.analysis.explain import _fed_neurons

    example = Example("x", picture, (QUESTION,), "red", ("red",))
    assert _fed_neurons(vlm, example, [ExplainedHead(0, 0, -0.1, -0.1)], 3, SweepSettings()) == ()


def test_the_command_writes_what_it_shows(
    model_folders: dict[str, Path],
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = ("--model", model_folders["qwen"], "--image", picture, "--answer", "[red]", "--out", tmp_path / "[/x]")
    assert call("explain", *options, "Is it [bold]?") == 0
    out = capsys.readouterr().out
    found = read_result(tmp_path / "[/x]/explanation.json", Explanation)
    assert f"written: {tmp_path}/[/x]/explanation.html" in out
    assert found.question == "Is it [bold]?" and found.answer == "[red]" and "answer: [red]" in out
    head = found.all_heads[0]
    assert f"head {head.layer}, {head.head}  {found.probability:.3g}" in out and "● critical" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("written"))
    assert [of.kind for of in found.maps] == ["drop", "attention", "lens", "activation"]
    page = unescape((tmp_path / "[/x]/explanation.html").read_text())
    for of in found.maps:
        assert of.title in page and of.words() in page and of.words(1).split(" (")[0] in " ".join(out.split())
        with Image.open(tmp_path / f"[/x]/where-{of.kind}.png") as drawn:
            assert max(drawn.size) == 480 and f"where-{of.kind}.png" in out


def test_why_there_are_no_maps_is_said(vlm: VLM, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise NoLayout("m: it is not known where", expected="a known layout")

    monkeypatch.setattr("hones.method.analysis.explain.layout_of", unknown)
    found = explain(vlm, picture, QUESTION, answer="red", neurons=1)
    assert found.maps == () and found.no_maps == "m: it is not known where; expected a known layout"
    assert f"no maps: {found.no_maps}" in " ".join(render(found).split()) and overlays_of(found, picture) == {}
    page = render_explanation(found, picture)
    assert "Where in the picture" in page and found.no_maps in page
    unasked = explain(vlm, picture, QUESTION, answer="red", neurons=1, where=False)
    assert unasked.maps == () and unasked.no_maps == ""
    assert "no maps" not in render(unasked) and "Where in the picture" not in render_explanation(unasked, picture)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--image": "absent.png"}, "no picture absent.png"),
        ({"--image": "broken.png"}, "cannot read picture broken.png"),
        ({"--top-k": "13"}, "--top-k 13; expected 1 to 12"),
        ({"--answer": " "}, "the answer is empty"),
        ({"--engine": "warp"}, "no engine 'warp'"),
        ({"question": " "}, "the question ' ' is empty"),
        ({"question": "an <image> here"}, "its text holds <image>"),
    ],
)
def test_mistakes_are_one_line(
    model_folders: dict[str, Path],
    picture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.png").write_bytes(b"no picture")
    options = {"--model": str(model_folders["llava"]), "--image": str(picture), "--out": "x"} | change
    question = options.pop("question", QUESTION)
    assert call("explain", *(x for pair in options.items() for x in pair), question) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.splitlines()[-1].startswith("hones: ") and not Path("x").exists()


def test_a_count_of_no_neurons_is_an_error(vlm: VLM, picture: Path) -> None:
    with pytest.raises(HonesError, match="0 neurons"):
        explain(vlm, picture, QUESTION, neurons=0)


def test_an_answer_that_merges_with_the_template_is_one_line(
    vlm: VLM, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merges(*_: object) -> list[int]:
        raise BadItem("its answer merges with the template's end")

    monkeypatch.setattr(VLM, "answer_ids", merges)
    with pytest.raises(HonesError, match="merges with the template's end; expected an answer that the model can give"):
        explain(vlm, picture, "What?", answer="red")
