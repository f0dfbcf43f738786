"""What is said of every method, without importing it: its name, a line, its source, what it needs, and where it is.

The class itself, in `place`, takes what is said from here (`class Oracle(Method, known="oracle")`). So `hones methods`,
and a misspelt name, need not wait for torch.
"""

from dataclasses import dataclass

HONES_PAPER = "Wang, Hu, Jiang 2026, arXiv 2604.17941"
KNOWLEDGE_NEURONS_STEPS = 20
QRNCA_STEPS = 16
ROUNDS = 6
"""Of `rounds` and `selective`."""
BY_NAME_ALONE = ("masks", "oracle", "best-of")
"""Left out of `all`: they may take longer than the others together, or are made of them."""
TRIED = ("selective", "rounds", "hones+", "atp")
"""By best-of, which takes one of them."""
APART = 3
"""It puts one picture of so many aside."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """place: the module of `hones.rivals` and its class. The others are those of `hones.rivals.base.Method`."""

    place: str
    summary: str
    source: str
    needs_heads: bool = False
    needs_other_tasks: bool = False
    takes_other_tasks: bool = False
    drawn: bool = False
    most_cells: int | None = None
    in_rounds: bool = False


KNOWN: dict[str, Known] = {
    "hones": Known(
        place="hones.Hones",
        summary="write-in toward the answer that vanishes without the critical heads",
        source=HONES_PAPER,
        needs_heads=True,
    ),
    "hones-per-item": Known(
        place="hones.HonesPerItem",
        summary="hones, the positive part taken per item before averaging",
        source=HONES_PAPER,
        needs_heads=True,
    ),
    "hones-norm-gain": Known(
        place="hones.HonesNormGain",
        summary="hones, the final norm's gain folded into the answer's direction",
        source=HONES_PAPER,
        needs_heads=True,
    ),
    "hones-all-tokens": Known(
        place="hones.HonesAllTokens",
        summary="hones, read at every answer token instead of the first alone",
        source=HONES_PAPER,
        needs_heads=True,
    ),
    "hones+": Known(
        place="hones_plus.HonesPlus",
        summary="what a neuron adds to knowing this item's answer rather than another item's",
        source="this project; measured in docs/leaderboard.md",
    ),
    "rounds": Known(
        place="rounds.Rounds",
        summary="hones+, its gradient taken again each time a sixth of the budget has been closed",
        source="this project; measured in bench/results/rounds-cpu.md",
        in_rounds=True,
    ),
    "selective": Known(
        place="selective.Selective",
        summary="rounds, less what other tasks of the file and plain text need",
        source="this project; measured in bench/results/rounds-cpu.md",
        takes_other_tasks=True,
        in_rounds=True,
    ),
    "best-of": Known(
        place="best_of.BestOf",
        summary=f"that of {', '.join(TRIED)} which is the most selective on a third of the items, put aside",
        source="this project; measured in bench/results/best-of.md",
        takes_other_tasks=True,
        in_rounds=True,
    ),
    "relp": Known(
        place="relp.RelevancePatching",
        summary="hones+, its backward pass linear: norms, attention patterns and activations held",
        source="Jafari et al. 2025, arXiv 2508.21258; on neurons 2026, arXiv 2601.22594",
    ),
    "gim": Known(
        place="gim.GradientInteraction",
        summary="hones+, norms held, softmax's gradient at temperature 2, products sharing theirs",
        source="Edin et al. 2025, arXiv 2505.17630",
    ),
    "coax": Known(
        place="coax.ConditionalCoAblation",
        summary="growth of what hones+ sees once the first half of the budget is closed",
        source="Gong et al. 2026, arXiv 2607.01940; per neuron to first order",
        in_rounds=True,
    ),
    "masks": Known(
        place="masks.LearnedMasks",
        summary="gates learned with a cost for each that is open (a training, an upper reference)",
        source="Haider et al. 2025, arXiv 2512.10903; Louizos et al. 2018, arXiv 1712.01312",
    ),
    "dvp": Known(
        place="dvp.DirectProjection",
        summary="write-in toward the answer, without heads",
        source="Pan et al. 2024, arXiv 2311.07470 (multimodal neurons); ablation of HONES",
    ),
    "random": Known(
        place="uniform.Random",
        summary="uniform over all neurons",
        source="control",
        drawn=True,
    ),
    "layer-random": Known(
        place="layer_random.LayerRandom",
        summary="uniform within each layer, as many per layer as hones selects",
        source="control",
        needs_heads=True,
        drawn=True,
    ),
    "ap": Known(
        place="ap.ActivationProbability",
        summary="share of prompt tokens on which the neuron is active",
        source="Tang et al. 2024, arXiv 2402.16438",
    ),
    "ma": Known(
        place="ma.MeanActivation",
        summary="mean activation z over prompt tokens",
        source=f"baseline of {HONES_PAPER}",
    ),
    "ape": Known(
        place="ape.ActivationProbabilityEntropy",
        summary="lowest entropy of the activation probability over tasks",
        source="Tang et al. 2024, arXiv 2402.16438; Huo et al. 2024, arXiv 2406.11193",
        needs_other_tasks=True,
    ),
    "logprob-gain": Known(
        place="logprob_gain.LogProbabilityGain",
        summary="gain in the answer's log-probability from this neuron's write-in alone",
        source="Yu & Ananiadou 2024, arXiv 2312.12141",
    ),
    "wanda": Known(
        place="wanda.Wanda",
        summary="norm of the activations times norm of the write vector",
        source="Sun et al. 2024, arXiv 2306.11695",
    ),
    "atp": Known(
        place="atp.AttributionPatching",
        summary="activation times gradient of the answer's log-probability",
        source="Nanda 2023; Syed et al. 2024, arXiv 2310.10348; Kramar et al. 2024, arXiv 2403.00745",
    ),
    "knowledge-neurons": Known(
        place="knowledge_neurons.KnowledgeNeurons",
        summary=f"integrated gradients of the answer's probability, {KNOWLEDGE_NEURONS_STEPS} steps",
        source="Dai et al. 2022, arXiv 2104.08696",
    ),
    "qrnca": Known(
        place="qrnca.Qrnca",
        summary=f"integrated gradients ({QRNCA_STEPS} steps) times inverse cluster frequency",
        source="Chen et al. 2025, arXiv 2406.10868",
        needs_other_tasks=True,
    ),
    "cna": Known(
        place="cna.ContrastiveActivation",
        summary="mean activation against other tasks' prompts on the same pictures",
        source="contrastive activation, after Rimsky et al. 2024, arXiv 2312.06681, per neuron",
        needs_other_tasks=True,
    ),
    "oracle": Known(
        place="oracle.Oracle",
        summary="rise of the loss when the neuron alone is zeroed (tiny models only)",
        source="brute force",
        most_cells=1_000_000,
    ),
}
