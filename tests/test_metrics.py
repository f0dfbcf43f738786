"""Each metric against an implementation that shares no code with it, and every score as a function of sums."""

import hashlib
import itertools
import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu
from sacrebleu.metrics.bleu import BLEU

from hones.errors import HonesError
from hones.tasks import make_task, vqa
from hones.tasks.base import Example
from hones.tasks.caption import tokens

pytestmark = pytest.mark.filterwarnings("error")
TEXT_TASKS = ("vqa", "ocr", "caption")

needs_real_data = pytest.mark.skipif(
    "HONES_REAL_DATA" not in os.environ, reason="HONES_REAL_DATA does not name a folder with coco_dev.json"
)


def asked(*references: str, prompts: int = 1) -> Example:
    return Example("1", Path("1.png"), ("?",) * prompts, references[0], references)


def score(task: str, references: tuple[str, ...], answer: str) -> float:
    metric = make_task(task)
    return float(metric.score(metric.statistics(asked(*references), answer)))


# --- VQA soft accuracy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("The dog.", "dog"),
        (" a\ndog\tand an apple ", "dog and apple"),
        ("Two dogs", "2 dogs"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("red, white", "red white"),
        ("red,white", "red white"),
        ("1,000", "1000"),
        ("1,000/2", "10002"),
        ("t-shirt", "t shirt"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("u.s.a.", "usa"),
        ("12:30", "12:30"),
        ("man's", "man's"),
        ("the", ""),
    ],
)
def test_vqa_normalises_as_the_official_script(answer: str, normalised: str) -> None:
    assert vqa.normalise(answer) == normalised


def test_vqa_contractions_are_the_official_table() -> None:
    """The digest is that of the table in vqaEval.py, without identities and without keys in upper case."""
    rows = "\n".join(f"{key} {value}" for key, value in sorted(vqa.CONTRACTIONS.items()))
    expected = "f2c800b1132e79302dd72686ce8bba16120f1873f98a85561222e89317336e7a"
    assert hashlib.sha256(rows.encode()).hexdigest() == expected


@given(
    st.lists(st.sampled_from(["yes", "Yes.", "no", "two", "2"]), min_size=2, max_size=12), st.sampled_from(["yes", "2"])
)
@settings(deadline=None)
def test_vqa_leaves_out_each_annotator_by_index(references: list[str], answer: str) -> None:
    same = {"Yes.": "yes", "two": "2"}
    plain = [same.get(reference, reference) for reference in references]
    accuracies = []
    for j in range(len(plain)):
        others = plain[:j] + plain[j + 1 :]
        accuracies.append(min(1.0, others.count(answer) / 3))
    assert score("vqa", tuple(references), answer) == pytest.approx(sum(accuracies) / len(accuracies))


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_vqa_ten_annotators(matches: int, accuracy: float) -> None:
    references = ("yes",) * matches + ("no",) * (10 - matches)
    assert score("vqa", references, "Yes") == pytest.approx(accuracy)


def test_vqa_one_answer_is_an_exact_match() -> None:
    assert score("vqa", ("The cat",), "cat.") == 1
    assert score("vqa", ("cat",), "cats") == 0


# --- ANLS ------------------------------------------------------------------------------------------------------------


def edit_distance(a: str, b: str) -> int:
    table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        substituted = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
        table[i][j] = min(substituted, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


@given(
    st.lists(st.text("abAB é", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=3),
    st.text("abAB é", max_size=8),
)
@settings(deadline=None)
def test_anls_is_the_best_thresholded_edit_similarity(references: list[str], answer: str) -> None:
    a, best = answer.strip().lower(), 0.0
    for reference in references:
        r = reference.strip().lower()
        nl = edit_distance(a, r) / max(len(a), len(r))
        best = max(best, 1 - nl if nl < 0.5 else 0.0)
    assert score("ocr", tuple(references), answer) == pytest.approx(best)


@pytest.mark.parametrize(
    ("reference", "answer", "similarity"),
    [
        ("STOP", " stop\n", 1.0),
        ("no entry", "noentry", 1 - 1 / 8),
        ("exit.", "exit", 1 - 1 / 5),
        ("ab", "ax", 0.0),
        ("abc", "abx", 1 - 1 / 3),
        ("exit", "", 0.0),
    ],
)
def test_anls_by_hand(reference: str, answer: str, similarity: float) -> None:
    assert score("ocr", (reference,), answer) == pytest.approx(similarity)


# --- BLEU-4 ----------------------------------------------------------------------------------------------------------


def random_captions(seed: int, size: int) -> list[tuple[tuple[str, str, str], str]]:
    """(references, answer) pairs of 4 to 12 words that share many n-grams."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choices(("a", "red", "cat", "dog", "sat", "on"), (4, 1, 2, 2, 1, 1), k=rng.randint(4, 12)))

    return [((sentence(), sentence(), sentence()), sentence()) for _ in range(size)]


def bleu_of(pairs: list[tuple[tuple[str, str, str], str]]) -> float:
    task = make_task("caption")
    return float(task.score(np.sum([task.statistics(asked(*refs), answer) for refs, answer in pairs], axis=0)))


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_sacrebleu_of_the_corpus(seed: int) -> None:
    pairs = random_captions(seed, 40)
    whole = BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(
        [answer for _, answer in pairs], [[refs[k] for refs, _ in pairs] for k in range(3)]
    )
    assert bleu_of(pairs) > 0.05
    assert bleu_of(pairs) == pytest.approx(whole.score / 100)


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_nltk_bleu_of_the_corpus(seed: int) -> None:
    """Answers have four words or more: nltk counts one n-gram for an answer that is too short to have any."""
    pairs = random_captions(seed, 40)
    expected = corpus_bleu([[r.split() for r in refs] for refs, _ in pairs], [answer.split() for _, answer in pairs])
    assert bleu_of(pairs) == pytest.approx(expected)


def test_bleu_penalises_brevity() -> None:
    answer, reference = "a cat sat on", "a cat sat on a mat"
    assert score("caption", (reference,), answer) == pytest.approx(math.exp(1 - 6 / 4))
    assert score("caption", (reference, "a cat on it"), answer) == 1


def test_bleu_tokens_are_lower_case_treebank_tokens_without_punctuation() -> None:
    assert (
        tokens("A man's Dog, isn't it? -- Yes; a \"T-shirt\" - (red)...")
        == "a man 's dog is n't it yes a t-shirt ( red )"
    )


@pytest.mark.parametrize("answer", ["", " \n", "...", "a cat sat", "dog dog dog dog dog"])
def test_bleu_is_zero_where_an_order_has_no_match(answer: str) -> None:
    assert score("caption", ("a cat sat on a mat",), answer) == 0


@needs_real_data
def test_bleu_of_real_captions() -> None:
    """Figure of the official Java pipeline: the first caption of 1,333 COCO pictures against the next four."""
    rows = json.loads((Path(os.environ["HONES_REAL_DATA"]) / "coco_dev.json").read_text())["data"]
    captions = [[c["caption"] for c in row["captions"]] for row in rows]
    task = make_task("caption")
    sums = np.sum([task.statistics(asked(*refs[1:5]), refs[0]) for refs in captions], axis=0)
    assert len(rows) == 1333
    assert round(float(task.score(sums)), 4) == 0.1857


# --- NDCG@5 ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=2, max_size=7))
@settings(deadline=None, max_examples=60)
def test_ndcg_is_the_mean_over_all_orders_of_tied_candidates(margins: list[int]) -> None:
    orders = [
        order
        for order in itertools.permutations(range(len(margins)))
        if all(margins[a] >= margins[b] for a, b in itertools.pairwise(order))
    ]
    ndcg = [sum((i == 0) / math.log2(r + 2) for r, i in enumerate(order[:5])) for order in orders]
    recall = {k: sum(0 in order[:k] for order in orders) / len(orders) for k in (1, 5)}
    statistics = make_task("retrieval").statistics(asked("c", prompts=len(margins)), np.array(margins, dtype=float))
    np.testing.assert_allclose(statistics, [sum(ndcg) / len(ndcg), recall[1], recall[5], 1])


def test_ndcg_by_hand() -> None:
    def ndcg(*margins: float) -> float:
        return float(
            make_task("retrieval").statistics(asked("c", prompts=len(margins)), np.array(margins, dtype=float))[0]
        )

    assert ndcg(1.5, 1, 0, -1) == 1
    assert ndcg(1, 2, 0, -1) == pytest.approx(1 / math.log2(3))
    assert ndcg(0, 1, 2, 3, 4, 5) == 0
    assert ndcg(0, 0) == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert ndcg(float("-inf"), 0) == pytest.approx(1 / math.log2(3))


@pytest.mark.parametrize("position", [0, 1])
def test_a_margin_that_is_no_number_stops(position: int) -> None:
    margins = np.array([1.0, 0.0])
    margins[position] = np.nan
    with pytest.raises(HonesError, match=r"item 1: .* is NaN"):
        make_task("retrieval").statistics(asked("c", prompts=2), margins)


def test_retrieval_reports_recall() -> None:
    task = make_task("retrieval")
    margins = ((3.0, 1.0, 0.0), (1.0, 3.0, 0.0), (0.0, 1.0, 2.0), (1.0, 1.0, 0.0))
    sums = np.sum([task.statistics(asked("c", prompts=3), np.array(m)) for m in margins], axis=0)
    assert task.details(sums) == pytest.approx({"recall@1": 1.5 / 4, "recall@5": 1.0})


# --- scores are functions of sums ------------------------------------------------------------------------------------


def random_statistics(name: str, rng: random.Random, size: int) -> np.ndarray:
    task, rows = make_task(name), []
    for refs, answer in random_captions(rng.randrange(10**6), size):
        if name == "retrieval":
            margins = np.array([float(rng.randint(0, 9)) for _ in range(8)])
            rows.append(task.statistics(asked(*refs, prompts=8), margins))
        else:
            rows.append(task.statistics(asked(*refs), rng.choice((answer, *refs, ""))))
    return np.array(rows)


@pytest.mark.parametrize("name", [*TEXT_TASKS, "retrieval"])
@pytest.mark.parametrize("seed", range(3))
def test_shards_merge_and_batches_agree(name: str, seed: int) -> None:
    rng = random.Random(seed)
    task, rows = make_task(name), random_statistics(name, rng, 30)
    assert rows.shape == (30, len(task.statistic_names))
    shards = [rows[:1].sum(0), rows[1:8].sum(0), rows[8:].sum(0)]
    whole = float(task.score(rows.sum(0)))
    assert 0 < whole < 1
    assert float(task.score(np.sum(shards, axis=0))) == pytest.approx(whole)
    assert float(task.score(rows.mean(0) / 1000)) == pytest.approx(whole)
    batch = task.score(np.array(shards).reshape(3, 1, -1))
    assert batch.shape == (3, 1)
    assert batch[:, 0] == pytest.approx([float(task.score(shard)) for shard in shards])


@pytest.mark.parametrize("name", ["vqa", "ocr", "retrieval"])
def test_a_mean_score_is_the_mean_of_its_items(name: str) -> None:
    task, rows = make_task(name), random_statistics(name, random.Random(7), 25)
    assert float(task.score(rows.sum(0))) == pytest.approx(np.mean([float(task.score(row)) for row in rows]))


@pytest.mark.parametrize("name", [*TEXT_TASKS, "retrieval"])
def test_the_score_of_no_item_is_nan(name: str) -> None:
    task = make_task(name)
    rows = random_statistics(name, random.Random(3), 5)
    both = task.score(np.stack([np.zeros(len(task.statistic_names)), rows.sum(0)]))
    assert np.isnan(both[0]) and 0 <= both[1] <= 1
    assert all(np.isnan(value) for value in task.details(np.zeros(len(task.statistic_names))).values())
