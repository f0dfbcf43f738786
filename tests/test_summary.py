"""The summary of a report: findings in words, a direction only where the interval supports it."""

import math
import random
import re
from dataclasses import replace

import pytest
from run_results import make_analysis, make_comparison, make_heads, make_masking, make_steering

from hones.method.found import HeadScore
from hones.stats import Interval
from hones.views.report.summary import (
    across_sentences,
    comparison_sentence,
    heads_sentence,
    includes_zero,
    masking_sentence,
    steering_sentence,
)


@pytest.mark.parametrize(
    ("drop", "advantage", "parts"),
    [
        (
            Interval(0.22, 0.15, 0.30),
            Interval(0.2, 0.1, 0.3),
            ["lowers vqa on 200 test items from 0.96 to 0.74 (drop 0.22 [0.15, 0.30]);"],
        ),
        (
            Interval(0.02, -0.01, 0.05),
            Interval(0.0, -0.1, 0.1),
            ["makes no change that the interval supports to vqa", "no difference that the interval supports"],
        ),
        (Interval(-0.02, -0.03, -0.01), Interval(-0.1, -0.2, -0.05), ["raises vqa", "0.10 less for the selection"]),
        (Interval(0.0, 0.0, 0.0), Interval(0.0, 0.0, 0.0), ["no change", "no difference"]),
    ],
)
def test_masking_in_words(drop: Interval, advantage: Interval, parts: list[str]) -> None:
    text = masking_sentence("vqa", make_masking(drop, advantage))
    assert all(part in text for part in parts), text
    assert ("no change that" in text) == includes_zero(drop) == (not re.search("lowers|raises", text))
    assert ("no difference that" in text) == includes_zero(advantage) == (not re.search(r"\d (more|less)", text))


def test_comparisons_and_steering_in_words() -> None:
    text = comparison_sentence(make_comparison("vqa"))
    assert "HONES" in text and "random" in text and "is beaten by none" in text and "includes zero" in text
    steered = make_steering()
    assert "raises vqa on 200 test items from 0.70 to 0.74" in steering_sentence(
        "vqa", "hones", replace(steered, gain=Interval(0.04, 0.01, 0.06))
    )
    text = steering_sentence("vqa", "hones", replace(steered, gain=Interval(0.004, -0.01, 0.02)))
    assert "no change that the interval supports" in text and "raises" not in text


def test_the_strongest_head_in_words() -> None:
    heads = make_heads(random.Random(1))

    def told(*scores: Interval) -> str:
        return heads_sentence(replace(heads, heads=tuple(map(replace_score, heads.heads, scores)), top_k=len(scores)))

    def replace_score(head: HeadScore, score: Interval) -> HeadScore:
        return replace(head, score=score)

    assert "costs 0.30 [0.20, 0.40] of 0.90" in told(Interval(0.3, 0.2, 0.4), Interval(0.2, -0.1, 0.4))
    unsure = told(Interval(0.02, -0.01, 0.04))
    assert "costs" not in unsure and "no change that the interval supports" in unsure and "0 of the 1 cri" in unsure
    unknown = told(Interval(0.02, math.nan, math.nan))
    assert "costs 0.02 of 0.90" in unknown and "gives no intervals" in unknown and "above zero" not in unknown


def test_groups_in_words_count_what_chance_would_give() -> None:
    analysis = make_analysis(("vqa", "ocr"))

    def told(*advantages: Interval) -> str:
        parts = [replace(a, advantage=x) for a, x in zip(analysis.ablations, advantages, strict=False)]
        return " ".join(across_sentences(replace(analysis, ablations=tuple(parts))))

    below, none, above = Interval(-0.2, -0.3, -0.1), Interval(0.0, -0.1, 0.1), Interval(0.2, 0.1, 0.3)
    assert "0 have an interval above random neurons and 1 below" in told(below, none)
    assert "Of 3 pairs of group and task, 1 have" in told(above, none, none)
    assert "No group's drop" in told(none, none) and "chance" not in told(none, none)
