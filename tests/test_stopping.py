"""Where answers end: at the texts of a task's `stop`, alike from every engine, and of base models at the line's end."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import pytest
from text_models import TEXT_FAMILIES
from transformers import AddedToken

from hones import HonesError, ask, load_vlm, make_task
from hones.data.items import Items
from hones.data.unified import parse_rows
from hones.models.interventions import BASELINE, Intervention
from hones.models.stopping import stopped, text_of, until_stop
from hones.models.vlm import VLM
from hones.runs.evaluation import evaluate
from hones.runs.prepared import prepare
from hones.runs.record import RunFolder
from hones.runs.stage import Workspace
from hones.sweep.continuations import decode
from hones.sweep.forward import Forward
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.replay import Replay
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task
from hones.tasks.custom import task_of_content

LONG = 8
EDITS = [BASELINE, Intervention(heads=frozenset({(0, 1)})), Intervention(masked=frozenset({(0, 3), (1, 2)}))]
ROWS: list[Any] = [{"item_id": i, "q": q, "a": "x"} for i, q in enumerate(["One two", "Three", "Four of five"])]
ITEMS = Items(tuple(row for row in parse_rows(ROWS)), Path(), "")  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    """A base model."""
    return load_vlm(str(TEXT_FAMILIES["Llama"](tmp_path_factory.mktemp("text") / "llama")))


def asking(**more: Any) -> Task:
    content = {"name": "t", "picture": "none", "prompt": "{q}", "target": "a", "metric": "exact_match"}
    return task_of_content(content | more, "t.yaml")


class Characters:
    """A tokenizer whose tokens are the characters of a text."""

    text = "\n \nParis.\nThe capital, Question: x"

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(self.text[i] for i in ids)


@pytest.mark.parametrize(
    ("stop", "answer", "read"),
    [
        ((), Characters.text.strip(), len(Characters.text)),
        (("\n",), "Paris.", 10),  # the lines that it begins with are none of the answer
        (("Question:", "\n"), "Paris.", 10),
        (("Question:",), "Paris.\nThe capital,", 32),
        ((".\nT", "aris"), "P", 8),
        (("P",), "", 4),
        (("nowhere",), Characters.text.strip(), len(Characters.text)),
    ],
)
def test_an_answer_ends_before_the_first_text(stop: tuple[str, ...], answer: str, read: int) -> None:
    ids = [*range(len(Characters.text))]
    assert text_of(Characters(), ids, stop) == answer
    assert len(until_stop(Characters(), ids, stop)) == read
    assert all(text_of(Characters(), ids[:k], stop) == answer for k in range(read, len(ids)))
    assert stopped(Characters(), ids[:read], stop) == (answer != Characters.text.strip())


class Pieces:
    """A tokenizer of these tokens, one of them special."""

    tokens = ("\n\n", "Question", ":", " Paris", "<|end|>", " cafe\u0301", " more")
    added_tokens_decoder: ClassVar = {4: AddedToken("<|end|>", special=True)}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        return "".join(self.tokens[i] for i in ids if i != 4 or not skip_special_tokens)


@pytest.mark.parametrize(
    ("ids", "stop", "answer", "read"),
    [
        ([3, 4, 6], ("<|end|>",), "Paris", 2),  # a special token, which has no text elsewhere
        ([4, 3, 6], ("more",), "Paris", 3),
        ([3, 6, 4], ("x", "Paris<|end|>"), "Paris more", 3),
        ([0, 1, 2, 3], ("\n\nQuestion:",), "", 3),  # nothing before it: no space of a first word
        ([0, 3, 0, 1], ("\n\n",), "Paris", 3),
        ([3, 5, 6], ("caf\xe9",), "Paris", 2),
        ([3, 5, 6], ("cafe\u0301",), "Paris", 2),
    ],
)
def test_texts_that_end_an_answer_are_found_however_tokens_hold_them(
    ids: list[int], stop: tuple[str, ...], answer: str, read: int
) -> None:
    assert text_of(Pieces(), ids, stop) == answer
    assert len(until_stop(Pieces(), ids, stop)) == read


def test_every_engine_ends_answers_alike(llama: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the definition, which goes on to the limit: whole answers, cut."""
    open_end = asking(stop=[])
    examples, _ = open_end.examples(ITEMS)
    naive = Naive(llama, LONG, 8)
    whole = [of.answers for of in naive.answer([(open_end, x) for x in examples], EDITS)]
    texts = [text for of in whole for text in of if isinstance(text, str)]
    stop = tuple({re.findall("[A-Za-z]{2}", text)[0] for text in texts})
    assert len(texts) == 9 and len(set(texts)) > len(examples), "some answers leave their draft"
    ending = asking(stop=list(stop), name="u")
    # both tasks at once: each ends its own answers
    members = [*product([ending, open_end], examples)]
    expected = [[min((str(text).split(word)[0] for word in stop), key=len).strip() for text in of] for of in whole]
    steps = []
    monkeypatch.setattr("hones.sweep.replay.decode", lambda *args: steps.append(answers := decode(*args)) or answers)
    replay = Replay(llama, max_new_tokens=LONG, plan=make_plan(llama, 64, 8))
    for engine in (naive, Forward(llama, LONG, 8), replay):
        answers = [list(of.answers) for of in engine.answer(members, EDITS)]
        assert answers == [*expected, *map(list, whole)], type(engine)
    lengths = {len(tokens) for of in steps for cell, tokens in of.items() if cell[1] < len(examples)}
    assert lengths and max(lengths) < LONG, "decoding ends where the answer does"


def test_a_base_model_stops_at_the_lines_end_unless_told(llama: VLM, vlm: VLM, tmp_path: Path) -> None:
    examples, _ = asking().examples(ITEMS)
    assert llama.stop_of(None, examples[0].prompts[0]) == ("\n",)
    assert llama.stop_of((), "x") == () and llama.stop_of(("a", "b"), "x") == ("a", "b")
    assert vlm.stop_of(None, "x") == (), "a template ends answers"
    (bare, *_), _ = asking(template="none").examples(ITEMS)
    assert vlm.stop_of(None, bare.prompts[0]) == ("\n",), "no template is around this prompt"
    assert prepare(llama, asking(), ITEMS, "test").stop == ("\n",)
    for told in (asking(stop=[]), asking(stop=["x"]), asking(metric="yes_no_f1", answers="yes_no")):
        assert prepare(llama, told, ITEMS, "test").stop == ()
    work = Workspace(llama, RunFolder(tmp_path))
    assert work.fingerprint(prepare(llama, asking(), ITEMS, "test"))["stop"] == ["\n"], "recorded with every stage"
    found = evaluate(llama, asking(), examples, sweep=SweepSettings(max_new_tokens=2))
    assert "answers end before '\\n'; stop: in a TASK.yaml says where" in found.advice[0]


def test_answers_that_run_on_are_said(llama: VLM) -> None:
    examples, _ = asking(stop=[]).examples(ITEMS)
    (said,) = Naive(llama, 4, 8).answer([(asking(stop=[]), examples[0])], [BASELINE])
    first, then = re.findall(r"^(.*?\w)(\W.*?\w)", str(said.answers[0]))[0]
    row: Any = ROWS[0] | {"a": first}
    (wanted,), _ = asking(stop=[]).examples(Items(tuple(parse_rows([row])), Path(), ""))  # pyright: ignore
    found = evaluate(llama, asking(stop=[]), [wanted], sweep=SweepSettings(max_new_tokens=4))
    assert found.stuck == "floor"
    assert any(
        "1 of 1 answers begin with the wanted text and go on: metric: prefix, or stop:" in x for x in found.advice
    )
    asked = ask(llama, None, "One two", task=asking(stop=[then]), max_new_tokens=4)
    (reply,) = asked.replies
    assert reply.answer == first and not reply.cut and not reply.ended
    taught = llama.encode_with_answers([None], [asked.prompt], [first], ended=False)
    assert reply.probability == pytest.approx(float(llama.log_probabilities(taught).detach().exp()[0]))
    assert taught.answer is not None and int(taught.answer.sum()) == len(llama.answer_ids(asked.prompt, first))
    assert asked.tables()[0].caption == "p: probability of the whole answer, which no end token ended"


def test_a_class_names_texts(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from hones import Task\nclass Mine(Task):\n    name, metric_name, answers = 'mine', 'm', 'text'\n"
        "    statistic_names = ('n',)\n    stop = 'x'\n"
        "    example = statistics = score = lambda *_: None\n"
    )
    with pytest.raises(HonesError, match="stop = 'x'; expected a tuple of texts"):
        make_task(f"{tmp_path / 'mine.py'}:Mine")


def test_answers_that_differ_in_marks_are_said_to_be_right_under_another_metric(
    llama: VLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VLM, "text_of", lambda *_: "The Paris!")
    row: Any = ROWS[0] | {"a": "Paris"}
    items = Items(tuple(parse_rows([row])), Path(), "")  # pyright: ignore[reportArgumentType]
    for metric, said in (("exact_match", True), ("vqa_exact_match", False), ("prefix", True)):
        examples, _ = asking(metric=metric).examples(items)
        found = evaluate(llama, asking(metric=metric), examples, sweep=SweepSettings(max_new_tokens=2))
        advice = " ".join(found.advice)
        assert ("1 of 1 answers are the wanted text but for marks" in advice) == said
        assert "metric: vqa_exact_match" in advice if said else found.level.value == 1
        assert "begin with" not in advice and "hold the wanted" not in advice
