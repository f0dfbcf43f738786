"""Comparisons, analyses and explanations made by hand, as the stages write them."""

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from hones.method.analysis.explanation import ExplainedHead, ExplainedNeuron, Explanation
from hones.method.analysis.results import (
    Ablation,
    Analysis,
    Driver,
    ExclusiveGroup,
    HeadRef,
    LensRow,
    NeuronCard,
    Overlap,
    TaskSets,
    Token,
)
from hones.method.found import HeadResult, HeadScore, RankedNeuron
from hones.method.masking import MaskingResult
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.results import Elsewhere, Evidence, LayerScales, ScaleSpread, SteeredBy, Tested
from hones.rivals.results import Comparison, Curve, MethodResult
from hones.runs.artifacts import write_result
from hones.stats import Interval

LAYERS, HEADS = 6, 4
METHODS = ("hones", "dvp", "atp", "logprob-gain", "ap", "ma", "wanda", "layer-random", "random")
WORDS = (" red", "▁circle", "blue", "\n", "star", " two", "STOP", "Yes")


def around(value: float, width: float = 0.08) -> Interval:
    return Interval(value, value - width, value + width)


def make_heads(rng: random.Random) -> HeadResult:
    scores = [
        HeadScore(layer, head, around(rng.gauss(0.05, 0.12)), 0.9, 0.8, 20)
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]
    ranked = tuple(sorted(scores, key=lambda h: -h.score.value))
    return HeadResult("vqa_soft_accuracy", around(0.9), 20, ranked, 5)


def make_masking(drop: Interval, advantage: Interval) -> MaskingResult:
    base = 0.96
    return MaskingResult(
        metric_name="vqa_soft_accuracy",
        items=200,
        neurons=115,
        baseline=around(base, 0.02),
        masked=around(base - drop.value, 0.05),
        absolute_drop=drop,
        relative_drop=around(100 * drop.value / base, 5.0),
        control=around(base - drop.value + advantage.value, 0.03),
        advantage=advantage,
        control_draws=(0.9, 1.0),
    )


def make_comparison(task: str, seed: int = 0) -> Comparison:
    rng = random.Random(seed)
    rows = []
    for i, method in enumerate(METHODS):
        drop = 0.3 - 0.03 * i + rng.uniform(-0.02, 0.02)
        advantage = None if method == "hones" else around(0.27 - drop, 0.05)
        rows.append(
            MethodResult(
                *(method, 115, around(0.9 - drop), around(drop), around(100 * drop / 0.9, 4.0), advantage),
                *(None if advantage is None else 0.04, 1 / (1 + i), 3.5 * i, (10,) * LAYERS),
            )
        )
    ratios = (0.001, 0.003, 0.01, 0.03, 0.1)
    curves = tuple(
        Curve(
            m.method, ratios, (4, 12, 38, 115, 384), tuple(around(0.9 - m.absolute_drop.value * r**0.3) for r in ratios)
        )
        for m in rows
    )
    return Comparison(task, "vqa_soft_accuracy", 200, 0.03, around(0.9), tuple(rows), curves)


def make_analysis(tasks: Sequence[str], text: str = "Question: What colour is the star?", seed: int = 0) -> Analysis:
    """text: what stands wherever data or a model speaks."""
    rng = random.Random(seed)
    subsets = [s for n in range(1, len(tasks) + 1) for s in itertools.combinations(tasks, n)]
    groups = tuple(ExclusiveGroup(s, rng.randrange(2, 60 // len(s)), (1,) * LAYERS) for s in subsets)
    tokens = tuple(Token(w, 3.0 / (i + 1)) for i, w in enumerate((*WORDS, text)))
    ablations = []
    for s, task in itertools.product(subsets, tasks):
        drop = rng.uniform(-0.03, 0.25) if task in s else rng.uniform(-0.02, 0.04)
        base, part = around(0.9), around(drop - 0.01, 0.04)
        ablations.append(Ablation(s, task, base, around(0.9 - drop), around(drop), around(drop), around(0.01), part))
    cards = tuple(
        NeuronCard(
            *(task, rank, 2 + rank, 17 * rank, 0.4 / rank, subsets[rank % len(subsets)], tokens, tokens[::-1]),
            heads=(HeadRef(0, 3, 0.6), HeadRef(1, 2, 0.3), HeadRef(2, 0, 0.1)),
            drivers=(
                Driver(text[:50], task, 2.5, text, "red", "pictures/a.png"),
                Driver("12", task, 1.5, text, text, "pictures/bad.png"),
            ),
        )
        for task in tasks
        for rank in (1, 2, 3)
    )
    lens = tuple(
        LensRow(task, "7", text, "red", "pictures/a.png", subsets[-1], layer, tokens[:5])
        for task in tasks
        for layer in (2, 4, 5)
    )
    pairs = [*itertools.combinations(tasks, 2)]
    return Analysis(
        model="tiny-llava",
        layers=LAYERS,
        heads=HEADS,
        neurons=100,
        tasks=tuple(TaskSets(t, "vqa_soft_accuracy", (HeadRef(0, 3, 0.4),), (3,) * LAYERS) for t in tasks),
        heads_overlap=tuple(Overlap(a, b, 2, 8) for a, b in pairs),
        neurons_overlap=tuple(Overlap(a, b, 20, 140) for a, b in pairs),
        groups=groups,
        ablations=tuple(ablations),
        lens=lens,
        cards=cards,
    )


def make_explanation(text: str = "What colour is the star?", answer: str = "red") -> Explanation:
    rng = random.Random(1)
    heads = [
        ExplainedHead(layer, head, rng.gauss(0.3, 0.8), rng.gauss(0.03, 0.1))
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]
    heads.sort(key=lambda h: -h.log_probability_drop)
    tokens = tuple(Token(w, 2.0) for w in (*WORDS[:4], text))
    neurons = tuple(
        ExplainedNeuron(
            *(layer, 40 + layer, 1.5, 0.9, (HeadRef(heads[0].layer, heads[0].head, 0.7),), tokens, tokens[::-1])
        )
        for layer in range(2, LAYERS)
    )
    return Explanation("tiny-llava", "a.png", text, answer, 0.83, LAYERS, HEADS, tuple(heads), 5, neurons)


def write_analysis(run: Path, analysis: Analysis) -> None:
    """analysis.json, one picture, and one file that is none."""
    write_result(run / "analysis" / "analysis.json", analysis)
    pictures = run / "analysis" / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (300, 200), (200, 60, 40)).save(pictures / "a.png")
    (pictures / "bad.png").write_bytes(b"<script>document.title = 'ran'</script>")


def make_neurons(rng: random.Random) -> list[RankedNeuron]:
    return [RankedNeuron(rank, rng.randrange(LAYERS), rank, 1 / rank) for rank in range(1, 40)]


def make_steering() -> SteeringResult:
    return SteeringResult("vqa_soft_accuracy", 200, around(0.7), around(0.74), around(0.04))


def make_evidence(
    task: str, others: Sequence[str] = ("caption", "retrieval"), text: str = "signs/test.json"
) -> Evidence:
    """HONES ahead of no-kl, behind ia3, open against the rest; one other task falls. text: the name of the file."""
    ways = {"hones": (0.05, None), "no-kl": (0.01, 0.04), "grid-search": (0.045, 0.005), "ia3": (0.09, -0.04)}
    methods = tuple(
        SteeredBy(
            *(way, 115, around(0.7 + gain, 0.03), (0.7 + gain, 0.7 + gain), around(gain, 0.02), 0.03),
            *((None, None) if ahead is None else (around(ahead, 0.02), 0.04)),
        )
        for way, (gain, ahead) in ways.items()
    )
    tested = Tested("data/test.json", "vqa_soft_accuracy", 200, around(0.7, 0.03), methods)
    open_ = tuple(SteeredBy(m.method, 115, m.steered, m.by_seed, around(0.01, 0.02), 0.4) for m in methods[:1])
    outside = Tested(text, "vqa_soft_accuracy", 90, around(0.5, 0.03), open_)
    changes = tuple(
        Elsewhere(other, "bleu4", 200, around(0.4), around(0.4 - 0.05 * (i == 0)), around(-0.05 * (i == 0), 0.02))
        for i, other in enumerate(others)
    )
    quantiles = (-0.3, -0.2, -0.05, 0.01, 0.06, 0.2, 1.5)
    layers = tuple(LayerScales(layer, 10, 0.02, quantiles) for layer in range(LAYERS))
    spreads = tuple(ScaleSpread(way, 60, 0.02, 0.1, quantiles, 0.1, 1.5, layers) for way in ("hones", "no-kl", "ia3"))
    return Evidence(task, (3407, 1), tested, changes, outside, spreads)
