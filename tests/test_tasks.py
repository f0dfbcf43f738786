"""Items become prompts, targets and references; what a task cannot use is named and left out."""

import copy
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hones.data.items import Item, Items
from hones.data.shapes.files import annotate
from hones.data.shapes.scene import make_scene
from hones.errors import BadItem, HonesError
from hones.tasks import TASK_NAMES, TASKS, make_task
from hones.tasks.retrieval import Retrieval

pytestmark = pytest.mark.filterwarnings("error")
IMAGES = Path("pictures")
GOOD: dict[str, Any] = {
    "image_id": 7,
    "image_info": {"file_name": "7.png", "height": 100, "width": 200},
    "vqa": {"question": " What is it? ", "answer": "cat", "all_answers": ["cat", "a cat", "dog"]},
    "captions": [{"caption": "A cat  sits. "}, {"caption": " "}, {"caption": "One cat"}],
    "ocr": {"text": " EXIT ", "bbox": [10, 20, 30, 40]},
}


def item(**changes: Any) -> Item:
    return Item.model_validate(copy.deepcopy(GOOD) | changes)


def file_of(captions: Sequence[Sequence[str]], negatives: dict[int, list[str]] | None = None) -> Items:
    """Items "0", "1", ... with these captions and, some of them, negatives of their own."""
    given = negatives or {}
    items = tuple(
        Item.model_validate(
            {
                "image_id": i,
                "image_info": {"file_name": f"{i}.png"},
                "captions": [{"caption": text} for text in texts],
                "retrieval": {"negatives": given[i]} if i in given else None,
            }
        )
        for i, texts in enumerate(captions)
    )
    return Items(items, IMAGES, "0", captions_of={str(i): tuple(texts) for i, texts in enumerate(captions)})


# --- examples --------------------------------------------------------------------------------------------------------


def test_vqa_example() -> None:
    example = make_task("vqa").example(item(), IMAGES)
    assert example.prompts == ("Question: What is it?\nAnswer the question with a short phrase.",)
    assert (example.id, example.image, example.box) == ("7", IMAGES / "7.png", None)
    assert (example.target, example.references) == ("cat", ("cat", "a cat", "dog"))
    alone = make_task("vqa").example(item(vqa={"question": "{x}?", "answer": "cat"}), IMAGES)
    assert alone.references == ("cat",)
    assert alone.prompts[0].startswith("Question: {x}?\n")


def test_ocr_example() -> None:
    example = make_task("ocr").example(item(), IMAGES)
    assert example.prompts == ("Transcribe the text inside the blue box.\nOutput text only.",)
    assert (example.target, example.references, example.box) == ("EXIT", ("EXIT",), (10, 20, 30, 40))


def test_caption_example_joins_up_to_five_captions() -> None:
    example = make_task("caption").example(item(), IMAGES)
    assert example.prompts == ("Describe the image in one sentence.",)
    assert (example.target, example.references) == ("A cat sits. One cat", ("A cat sits.", "One cat"))
    many = make_task("caption").example(item(captions=[{"caption": f"cat {i}"} for i in range(7)]), IMAGES)
    assert many.target == "cat 0 cat 1 cat 2 cat 3 cat 4"
    assert len(many.references) == 5


def test_retrieval_example_asks_the_true_caption_first() -> None:
    with_negatives = item(retrieval={"negatives": ["a dog", "a cat sits", "A DOG!", "two birds", "a fish", "a cow"]})
    example = make_task("retrieval", candidates=4).example(with_negatives, IMAGES)
    assert example.references == ("A cat sits.", "a dog", "two birds", "a fish")
    assert (
        example.prompts[1]
        == "Candidate: a dog\nDoes the candidate correctly describe the image?\nAnswer exactly Yes or No."
    )
    assert [caption in prompt for caption, prompt in zip(example.references, example.prompts, strict=True)] == [
        True
    ] * 4
    assert example.target == "Yes"


@pytest.mark.parametrize("name", TASKS)
def test_the_right_answer_to_a_built_in_picture_scores_one(name: str) -> None:
    task = make_task(name)
    for seed in range(20):
        example = task.example(Item.model_validate(annotate(make_scene(seed), seed, "x.png")), IMAGES)
        right = {"vqa": example.target, "ocr": example.target, "caption": example.references[0]}
        answer = right[name] if task.answers == "text" else np.eye(50)[0]
        statistics = task.statistics(example, answer)
        assert statistics.shape == (len(task.statistic_names),)
        too_short = name == "caption" and statistics[7] == 0  # "a red cross" has no 4-gram
        assert float(task.score(statistics)) == (0 if too_short else 1)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("vqa", {"vqa": None}, "no vqa"),
        ("vqa", {"vqa": {"question": " ", "answer": "cat"}}, "empty question"),
        ("vqa", {"vqa": {"question": "What?", "answer": "\n"}}, "empty answer"),
        ("ocr", {"ocr": None}, "no ocr"),
        ("ocr", {"ocr": {"text": " ", "bbox": [1, 1, 5, 5]}}, "empty ocr text"),
        ("ocr", {"ocr": {"text": "x", "bbox": [1, 1, math.nan, 5]}}, "not finite"),
        ("ocr", {"ocr": {"text": "x", "bbox": [1, math.inf, 5, 5]}}, "not finite"),
        ("ocr", {"ocr": {"text": "x", "bbox": [1, 1, 0, 5]}}, "no area"),
        ("ocr", {"ocr": {"text": "x", "bbox": [1, 1, 5, -1]}}, "no area"),
        ("ocr", {"ocr": {"text": "x", "bbox": [200, 1, 5, 5]}}, "outside"),
        ("ocr", {"ocr": {"text": "x", "bbox": [1, 100, 5, 5]}}, "outside"),
        ("ocr", {"ocr": {"text": "x", "bbox": [-5, 1, 5, 5]}}, "outside"),
        ("ocr", {"ocr": {"text": "x", "bbox": [1, -5, 5, 5]}}, "outside"),
        ("caption", {"captions": []}, "no captions"),
        ("caption", {"captions": [{"caption": " . "}]}, "empty"),
        ("retrieval", {"captions": []}, "no captions"),
        ("retrieval", {"captions": [{"caption": " . "}]}, "empty"),
        ("retrieval", {"retrieval": {"negatives": ["a dog", "a dog."]}}, "1 negatives of its own, 49 needed"),
    ],
)
def test_an_unusable_item_is_refused_with_the_reason(name: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadItem, match=reason):
        make_task(name).example(item(**changes), IMAGES)


def test_a_box_partly_outside_or_on_a_picture_of_unknown_size_is_used() -> None:
    partly = item(ocr={"text": "x", "bbox": [-4, 99, 5, 5]})
    unknown = item(image_info={"file_name": "7.png"}, ocr={"text": "x", "bbox": [900, 900, 5, 5]})
    assert make_task("ocr").example(partly, IMAGES).box == (-4, 99, 5, 5)
    assert make_task("ocr").example(unknown, IMAGES).box == (900, 900, 5, 5)


@pytest.mark.parametrize("name", TASKS)
def test_left_out_items_are_named_and_the_others_keep_their_order(name: str) -> None:
    bad = {"vqa": None, "ocr": None, "captions": []}
    own = {"negatives": ["a dog"]}
    items = (item(image_id=1, retrieval=own), item(image_id=2, **bad), item(image_id=3, retrieval=own))
    good, left_out = make_task(name, candidates=2).examples(Items(items, IMAGES, "0"))
    assert [example.id for example in good] == ["1", "3"]
    assert [b.id for b in left_out] == ["2"]
    assert left_out[0].reason.startswith("no ")


# --- retrieval negatives ---------------------------------------------------------------------------------------------


def plain(caption: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in caption.lower()).split())


def random_file(seed: int, size: int) -> list[list[str]]:
    """Captions of few words, so that many repeat within and between pictures, with other case and punctuation."""
    rng = random.Random(seed)
    nouns = ("cat", "dog", "bird", "man", "Cat", "ball")

    def sentence() -> str:
        return f"{rng.choice(('A', 'a', 'the'))} {rng.choice(nouns)} {rng.choice(nouns)}{rng.choice(('', '.', ' !'))}"

    return [[sentence() for _ in range(rng.randint(1, 5))] for _ in range(size)]


@pytest.mark.parametrize("seed", range(5))
def test_negatives_are_the_other_captions_that_share_most_words(seed: int) -> None:
    captions = random_file(seed, 25)
    examples, left_out = make_task("retrieval", candidates=12).examples(file_of(captions))
    assert len(examples) == 25 and not left_out
    for example, own in zip(examples, captions, strict=True):
        seen, others = {plain(text) for text in own}, []
        for text in (text for texts in captions for text in texts):
            if plain(text) not in seen:
                seen.add(plain(text))
                others.append(text)
        positive = set(plain(own[0]).split())
        hardest = sorted(others, key=lambda text: -len(positive & set(plain(text).split())))[:11]
        assert example.references == (own[0], *hardest)


def test_the_items_own_negatives_come_before_those_of_the_file() -> None:
    captions = [["a cat"], ["a dog"], ["a cow"], ["a cat on a mat"]]
    examples, _ = make_task("retrieval", candidates=3).examples(
        file_of(captions, {0: ["x", "y", "z"], 1: ["only one"]})
    )
    assert examples[0].references == ("a cat", "x", "y")
    assert examples[1].references == ("a dog", "a cat", "a cow")


def test_a_file_with_too_few_captions_stops() -> None:
    file = file_of([["a cat", "one cat"], ["a dog", "A DOG."], ["a cow", "a cat!"]])
    found = re.escape("the file has 2 captions that can be negatives of 'a cat'; expected 3; lower --candidates")
    with pytest.raises(HonesError, match=found):
        make_task("retrieval", candidates=4).examples(file)
    assert make_task("retrieval", candidates=3).examples(file)[0][0].references == ("a cat", "a dog", "a cow")


def test_retrieval_needs_two_candidates() -> None:
    with pytest.raises(HonesError, match="expected at least 2"):
        Retrieval(1)


# --- lookup and token weights ----------------------------------------------------------------------------------------


def test_tasks_by_name() -> None:
    assert TASK_NAMES == tuple(TASKS) == ("vqa", "ocr", "caption", "retrieval")
    for name, kind in TASKS.items():
        assert type(make_task(name)) is kind
    made = make_task("retrieval", candidates=7)
    assert isinstance(made, Retrieval) and made.candidates == 7
    with pytest.raises(HonesError, match=r"no task 'vqq'; expected one of vqa, .*, retrieval, opposite, after"):
        make_task("vqq")


def test_caption_tokens_weigh_by_inverse_document_frequency() -> None:
    weights = make_task("caption").token_weights([[5, 5, 9], [5, 2], []])
    in_one, in_two = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    assert [w.tolist() for w in weights] == [
        pytest.approx([in_two, in_two, in_one]),
        pytest.approx([in_two, in_one]),
        [],
    ]


@pytest.mark.parametrize("name", ["vqa", "ocr", "retrieval"])
def test_other_tokens_weigh_one(name: str) -> None:
    assert [w.tolist() for w in make_task(name).token_weights([[5, 5, 9], [2]])] == [[1, 1, 1], [1]]
