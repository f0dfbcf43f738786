"""Metrics that say whether an answer is right: what counts as the same text, words, letter, number or pick."""

import re
from pathlib import Path
from typing import Any

import pytest

from hones.data.candidates import distinct
from hones.data.unified import Item
from hones.errors import BadItem, HonesError, TaskStops
from hones.tasks.base import Example
from hones.tasks.caption import tokens
from hones.tasks.custom import METRICS, task_of_content
from hones.tasks.matching import Match
from hones.tasks.ocr import anls
from hones.tasks.picking import picked
from hones.tasks.reading import letter_in, number_in

COMPOSED, DECOMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
ROOT = Path(__file__).parents[1]
CODE = re.compile("`([^`]*)`")
TEXT = {"name": "mine", "picture": "none", "prompt": "{q}", "target": "a"}


def asked(metric: str, gold: str, **more: Any) -> tuple[Any, Example]:
    """A task with this metric, and its example with this answer."""
    task = task_of_content({**TEXT, "metric": metric, **more}, "t.yaml")
    return task, task.example(Item.model_validate({"item_id": 1, "q": "?", "a": gold}), Path())


def examples_shown() -> list[tuple[str, str, str, bool]]:
    """Those of the table of metrics in docs/tasks.md: metric, reference, answer, whether it is right."""
    table = (ROOT / "docs/tasks.md").read_text().split("## Metrics")[1].split("\n\n")[2]
    rows = []
    for line in table.splitlines()[2:]:
        metric, _, gold, *answers = (CODE.findall(cell) for cell in line.strip("| ").split("|"))
        for right, shown in zip((True, False), answers, strict=True):
            rows += [(metric[0], gold[0], answer.replace('""', ""), right) for answer in shown]
    return rows


def is_right(metric: str, answer: str, gold: str, **more: Any) -> bool:
    """Whether the answer has the whole score."""
    task, example = asked(metric, gold, **more)
    return bool(task.score_alone(task.statistics(example, answer)) == 1)


@pytest.mark.parametrize(("metric", "gold", "answer", "right"), examples_shown())
def test_the_examples_of_the_documentation(metric: str, gold: str, answer: str, right: bool) -> None:
    more = {"pattern": "answer is (.*?)[.]"} if metric == "regex" else {}
    assert is_right(metric, answer, gold, **more) == right


def test_the_documentation_has_an_example_of_every_such_metric() -> None:
    matching = {name for name, metric in METRICS.items() if isinstance(metric, Match)}
    assert {metric for metric, *_ in examples_shown()} == matching


RIGHT_OR_WRONG = (
    ("exact_match", "a ", "A", True),
    ("exact_match", "", "A", False),
    ("exact_match", "the", "A", False),
    ("exact_match", "-5", "5", False),
    ("exact_match", "C++", "C", False),
    ("exact_match", "1,000", "1000", False),
    ("exact_match", "two", "2", False),
    ("exact_match", "Paris.", "Paris", False),
    ("vqa_exact_match", "The two dogs!", "2 dogs", True),
    ("vqa_exact_match", "", "A", False),
    ("vqa_exact_match", "the", "A", False),
    ("vqa_exact_match", "?!", "...", False),
    ("vqa_exact_match", "a", "A", True),
    ("vqa_soft_accuracy", "", "the", False),
    ("vqa_soft_accuracy", "A", "A", True),
    ("contains", "BANANA", "A", False),
    ("contains", "", "A", False),
    ("contains", "15 or -5", "5", False),
    ("contains", "it is -5.", "-5", True),
    ("contains", "5.5 and 1,500", "5", False),
    ("contains", "about 5%", "5", True),
    ("contains", "written in C++ or C#", "C", False),
    ("contains", "written in C++.", "c++", True),
    ("contains", "I don't", "don", False),
    ("contains", "You can\u2019t", "can", False),
    ("contains", "It's here", "S", False),
    ("contains", "l'Italie", "L", False),
    ("contains", "C'est l'Italie", "italie", True),
    ("contains", "the dog's tail", "dog", True),
    ("contains", "a well-known\ntown", "known town", True),
    ("contains", "答えは東京です", "東京", True),
    ("prefix", "Paris, the capital of", "paris", True),
    ("prefix", "Parisian", "Paris", False),
    ("prefix", "It is Paris", "Paris", False),
    ("prefix", "5.5", "5", False),
    ("prefix", "", "A", False),
    ("choice", "**B**", "B", True),
    ("choice", "The answer is B", "(b)", True),
    ("choice", "", "A", False),
    ("choice", "A cat", "A", False),
    ("number", "There are 1,000.", "1000", True),
    ("number", "-5", "5", False),
    ("number", "5.0 %", "5", True),
    ("number", "2 + 3 = 5", "5", True),
    ("number", "five", "5", False),
    ("number", "", "0", False),
)


@pytest.mark.parametrize(("metric", "answer", "gold", "right"), RIGHT_OR_WRONG)
def test_what_is_right(metric: str, answer: str, gold: str, right: bool) -> None:
    assert is_right(metric, answer, gold) == right


@pytest.mark.parametrize("metric", [name for name in METRICS if not name.startswith(("yes_no", "choice", "number"))])
def test_composed_and_decomposed_are_one_text_and_ligatures_their_own(metric: str) -> None:
    more = {"pattern": "(.*)"} if metric == "regex" else {}
    words = "one two three {}".format  # BLEU-4 needs four
    assert is_right(metric, words(DECOMPOSED), words(COMPOSED), **more)
    assert is_right(metric, words(COMPOSED), words(DECOMPOSED), **more)
    assert not is_right(metric, words("\N{LATIN SMALL LIGATURE FI}n"), words("fin"), **more)
    assert not is_right(metric, words("\N{FULLWIDTH DIGIT FIVE}"), words("5"), **more)


def test_every_task_compares_composed_texts() -> None:
    assert anls(DECOMPOSED, COMPOSED) == 1
    assert tokens(DECOMPOSED) == tokens(COMPOSED)
    assert distinct([COMPOSED, DECOMPOSED]) == [COMPOSED]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *((text, "B") for text in ("B", "b", "(B)", "[b]", "B.", "B) cat", "b: cat", "B - cat", "**B**", '"B"', "'B'")),
        *((text, "B") for text in ("B\nfor it is", "The answer is B", "Answer: (b).", "It's B", "I choose B, a cat")),
        *((text, "B") for text in (r"$\boxed{\text{B}}$", "<answer>B</answer>", "Option B is right", "（B）")),
        *((text, "B") for text in ("A) cat\nB) dog\nThe answer is B", "(A) and (C) are wrong, the answer is B")),
        *(
            (text, "B")
            for text in ("- B", "#### B", "> b", "_B_", "the answer is 'B'", "I'd say B.", "I'll go with b.")
        ),
        *(
            (text, "B")
            for text in ("So, B is correct.", "A has no fur. B is the right answer.", "B\u3001\u72ac", "B|dog")
        ),
        *(
            (text, None)
            for text in ("", "A cat", "a cat", "answer", "A = 5", "So Vitamin C is the answer", "I say a cat")
        ),
        *((text, None) for text in ("BANANA", "C++", "B+", "X-ray", "e.g. this", "Vitamin C", "The answer is a cat")),
        *((text, None) for text in ("A or B", "A, B", "A/B", "both A and B", "A) cat\nB) dog", "A. The answer is B")),
        *((text, None) for text in ("not (A)", "The answer is not B", "B is wrong", "B isn't it", "none", "I am sure")),
        ("a", "A"),
        ("I", "I"),
        ("A is correct", "A"),
    ],
)
def test_the_letter_that_is_chosen(answer: str, letter: str | None) -> None:
    assert letter_in(answer) == letter


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        *((text, 1000) for text in ("1000", "1,000", "1,000.00", "1'000", "1\N{NO-BREAK SPACE}000", "1e3", "$1,000")),
        *((text, -5) for text in ("-5", "\N{MINUS SIGN}5", "x = -5", "(-5)", "-$5", "2 or -5")),
        *((text, 5) for text in ("5.", "5%", "5kg", "+5", "no. 5", "COVID-5", "\N{ARABIC-INDIC DIGIT FIVE}", "...5")),
        *((text, 0.5) for text in (".5", "0.50")),
        *((text, None) for text in ("", "five", "H2O", "3-5", "1/2", "3,5", "12:30", "2020-01-01", "1.2.3", "1 000")),
    ],
)
def test_the_number_that_is_said(answer: str, number: float | None) -> None:
    assert number_in(answer) == number


@pytest.mark.parametrize(
    ("metric", "gold", "reason"),
    [
        ("choice", "cat", "its answer 'cat' is no letter of a choice"),
        ("choice", "A or B", "no letter of a choice"),
        ("number", "five", "its answer 'five' is no one number in digits"),
        ("number", "3 or 4", "no one number"),
        ("number", "1/2", "no one number"),
    ],
)
def test_answers_that_a_metric_cannot_score_are_the_items_matter(metric: str, gold: str, reason: str) -> None:
    with pytest.raises(BadItem, match=reason):
        asked(metric, gold)


def test_a_pattern_picks_what_is_scored() -> None:
    says = "I think 2 + 3, so the answer is 5. Sure"
    assert is_right("regex", says, "5", pattern=r"answer is (\S+?)\.")
    assert not is_right("regex", says, "6", pattern=r"answer is (\S+?)\.")
    assert not is_right("regex", "5", "5", pattern="answer is (.*)")
    assert is_right("number", says, "2", pattern=r"(\d+) \+")
    assert is_right("choice", "#### b", "B", pattern="#### (.)")
    assert picked("(?:a|(b))", "a") == ""
    task, example = asked("regex", "5", pattern=r"answer is (\d)")
    assert task.guess([example]) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metric": "regex"}, "metric: regex without a pattern"),
        ({"pattern": "(a"}, "pattern: '(a' is no regular expression (missing )"),
        ({"pattern": "a"}, "pattern: 'a' has 0 groups, one picks the answer"),
        ({"pattern": "(a)(b)"}, "pattern: '(a)(b)' has 2 groups"),
        ({"pattern": "(a)", "metric": "yes_no_f1"}, "a pattern with yes_no_f1, which reads whole answers"),
        ({"stop": ""}, "stop.0: an empty text"),
        ({"stop": ["x", "\\n"]}, 'YAML reads a line\'s end in double quotes: "\\n"'),
        ({"stop": ["x"], "answers": "yes_no", "metric": "yes_no_f1"}, "stop with answers: yes_no"),
    ],
)
def test_keys_that_make_no_sense_are_one_line(more: dict[str, Any], message: str) -> None:
    with pytest.raises(HonesError) as caught:
        task_of_content({**TEXT, "metric": "exact_match", **more}, "t.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_pattern_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hones.tasks.picking.SECONDS", 0.05)
    with pytest.raises(TaskStops, match="takes more than"):
        picked("((?:a|aa)+)$", "a" * 80 + "c")


@pytest.mark.parametrize(
    ("metric", "before", "same"),
    [
        ("anls", "20707cd817210f3c", True),
        ("exact_match", "0c044f53ee68e523", False),
        ("contains", "c417d7938710fdd5", False),
    ],
)
def test_a_metric_of_another_meaning_makes_another_task(metric: str, before: str, same: bool) -> None:
    """What was found by the former exact_match, now vqa_exact_match, or the former contains, is not gone on with."""
    content = {"name": "t", "prompt": "Say it.", "target": "a", "metric": metric}
    definition = task_of_content(content, "t.yaml").definition
    assert definition is not None and (definition.digest == before) == same
