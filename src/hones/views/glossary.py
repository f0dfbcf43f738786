"""What the words of a report mean, for who has not read the paper: shown on its page, linked from its texts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from hones.views.text import clean


@dataclass(frozen=True)
class Term:
    """A word and its meaning. said: regular expressions of what is linked to it; none: it is only listed."""

    id: str
    word: str
    meaning: str
    said: tuple[str, ...] = ()


TERMS = (
    Term(
        "unedited",
        "unedited",
        "The model as it is, without any change. Every effect is a difference to it.",
        ("unedited",),
    ),
    Term(
        "replaced",
        "replaced",
        "A head whose output is replaced by the mean of its layer's other heads, at every position; nothing else "
        "changes.",
        ("replaced", "replacing", "replacement"),
    ),
    Term(
        "critical",
        "critical head",
        "One of the K heads whose replacement lowers the metric most (by default 3 % of all, at least 5). A head "
        "whose replacement lowers nothing is never one.",
        ("critical heads?",),
    ),
    Term(
        "write-in",
        "write-in",
        "What a feed-forward neuron adds toward the target: its activation times its write vector, along the "
        "target's direction in the residual stream.",
        ("write-in",),
    ),
    Term(
        "write-vector",
        "write vector",
        "The column of the down projection that a neuron's activation is multiplied by: what it writes.",
        ("write vectors?",),
    ),
    Term(
        "importance",
        "importance",
        "Of a neuron: how much of its write-in vanishes when critical heads are replaced, weighted by the heads' "
        "scores. The neurons of largest importance are selected.",
        ("importance",),
    ),
    Term(
        "budget",
        "budget, ratio",
        "How many neurons are selected, as a share of all feed-forward neurons of the model.",
        ("same budget", "budgets?"),
    ),
    Term("masked", "masked", "The activations of neurons set to zero at every position.", ("masked", "masking")),
    Term(
        "control",
        "control, random neurons",
        "As many random neurons of the same layers, masked in the same way, mean over several draws. What the "
        "selection costs beyond them is not a matter of how many are masked.",
        ("random neurons", "random masked", "random controls", "controls?"),
    ),
    Term(
        "advantage",
        "advantage",
        "How much more the metric falls under the selection than under the control (of methods: HONES ahead by), "
        "paired over the same items.",
        ("advantage",),
    ),
    Term(
        "selective-drop",
        "selective drop",
        "The share of its baseline that a task loses when neurons are masked, minus the largest share that another "
        "task loses. Near the task's own share where the others are spared, 0 or less where they are not.",
        ("selective drop",),
    ),
    Term(
        "general",
        "general",
        "Of a set of neurons: it costs its task more than random neurons do, yet another task, or plain text, loses as "
        "much, as far as the intervals tell. Its neurons are needed by all, and not of this task.",
        ("is general",),
    ),
    Term(
        "plain-text",
        "plain text",
        "Twelve short paragraphs of English prose. How well the model predicts their words, in nats a token, says "
        "whether it still reads and writes; a nat more divides the probability of each token by 2.7.",
        ("plain text", "nats a token"),
    ),
    Term("drop", "drop", "The metric of the unedited model minus that under an edit.", ("drop",)),
    Term("gain", "gain", "The metric under an edit minus that of the unedited model.", ("gains?",)),
    Term(
        "scale",
        "scale",
        "One number s per selected neuron, whose activation is multiplied by 1 + s. It is learned on the dev items; "
        "the model itself stays as it is.",
        ("scales?",),
    ),
    Term("steered", "steered", "The model with the learned scales.", ("steered",)),
    Term(
        "out-of-domain",
        "out of domain",
        "Items of another source than those that the scales were learned on.",
        ("out of domain",),
    ),
    Term(
        "items",
        "discovery, dev, test items",
        "Heads and neurons are found on the discovery items, scales are learned on the dev items, and effects are "
        "measured on the test items. No picture is in two of them.",
        ("discovery items?", "dev items?", "test items?", "test pictures"),
    ),
    Term(
        "target",
        "target",
        "What was wanted: the text that the attribution looks toward. What the model says is its answer.",
        ("target",),
    ),
    Term("answer", "answer", "What the model says. What was wanted is the target.", ()),
    Term(
        "interval",
        "interval",
        "In square brackets: where 95 of 100 resamples of the items lie (a paired bootstrap).",
    ),
    Term(
        "floor",
        "at floor, at ceiling, no change",
        "Where every item scores the same, resamples cannot differ and there is no interval. That is no certainty. "
        "At floor: the metric is 0, so nothing can be lost. At ceiling: it is 1, so nothing can be gained.",
        ("at floor", "at ceiling", "its floor", "its ceiling"),
    ),
    Term("group", "exclusive group", "The neurons that exactly the named tasks selected, and no other task.", ()),
    Term("jaccard", "Jaccard", "Of two sets: what they share, divided by what they are together.", ("Jaccard",)),
    Term(
        "lens",
        "lens logit",
        "What the residual stream after a layer would say if it were the last one: the final norm and the output "
        "matrix applied to it. The delta is how much a token's logit falls when neurons are masked.",
        ("lens logit", "delta logit lens"),
    ),
    Term(
        "promotes",
        "promotes, suppresses",
        "The tokens whose logits a neuron's write vector raises most, or lowers most.",
        ("promotes", "suppresses"),
    ),
    Term(
        "tokens",
        "␣ ↵ byte",
        "In tokens, ␣ is a space and ↵ a new line; byte E2 or byte #174 is part of a character: it has no text of "
        "its own, and is named by its bytes or its number.",
    ),
    Term(
        "vqa",
        "VQA soft accuracy",
        "How far annotators agree with an answer: a third for each one who gave it, at most 1. With one annotator: "
        "right or wrong.",
        ("VQA soft accuracy",),
    ),
    Term(
        "anls",
        "ANLS",
        "Average normalised Levenshtein similarity: 1 minus the share of characters to change, 0 where that is half "
        "or more.",
        ("ANLS",),
    ),
    Term(
        "bleu4",
        "BLEU-4",
        "How many runs of one to four words an answer has in common with the captions; 0 for one answer "
        "without a common run of four.",
        ("BLEU-4",),
    ),
    Term(
        "ndcg",
        "NDCG@5",
        "Whether the true caption is ranked among the first five, and how far up: 1 at rank one, 0 beyond rank five.",
        ("NDCG@5",),
    ),
    Term(
        "exact",
        "exact_match",
        "1 where the answer is one of the references but for case and outer space, else 0; `vqa_exact_match`: where "
        "it is one after articles and punctuation go; `regex`: where what a pattern picks from it is one.",
        ("vqa_exact_match", "exact_match"),
    ),
    Term(
        "contains",
        "contains, prefix",
        "1 where the answer holds one of the references as whole words, or begins with one, else 0.",
        (),
    ),
    Term(
        "choice",
        "choice, number",
        "1 where the letter that the answer chooses, or the number that it ends in, is that of a reference, else 0.",
        (),
    ),
    Term(
        "yes-no",
        "yes_no_accuracy, yes_no_f1",
        "Questions answered by whichever of Yes and No has the larger logit: the share that is right, and F1 of Yes.",
        ("yes_no_accuracy", "yes_no_f1"),
    ),
    Term(
        "log-probability",
        "log_probability",
        "The logarithm of the probability of the wanted answer, in nats: 0 at best. An approximation of a metric.",
        ("log_probability",),
    ),
)


def linked(text: str, terms: Sequence[Term], seen: set[str]) -> Markup:
    """The text, escaped, with the first mention of every term linked to its meaning.

    Args:
        seen: ids of terms that are linked already, to which this adds.
    """
    by_group = {f"t{i}": term for i, term in enumerate(terms) if term.said}
    if not by_group:
        return escape(clean(text))
    alternatives = (f"(?P<{group}>{'|'.join(term.said)})" for group, term in by_group.items())
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(alternatives)})(?![\w-])", re.IGNORECASE)
    parts: list[Markup] = []
    rest = 0
    for found in pattern.finditer(text := clean(text)):
        term = by_group[str(found.lastgroup)]
        if term.id in seen:
            continue
        seen.add(term.id)
        parts.append(escape(text[rest : found.start()]))
        parts.append(_LINK.format(id=term.id, meaning=term.meaning, said=found.group()))
        rest = found.end()
    return Markup("").join([*parts, escape(text[rest:])])


_LINK = Markup('<a class="term" href="#term-{id}" title="{meaning}">{said}</a>')
