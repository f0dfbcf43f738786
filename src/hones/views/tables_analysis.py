"""Analyses and explanations in the terminal, 80 columns wide."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from hones.method.analysis.results import (
    Ablation,
    Analysis,
    ExplainedHead,
    ExplainedNeuron,
    Explanation,
    HeadRef,
    Token,
)
from hones.views.tables import heat_map

BARS = " ▁▂▃▄▅▆▇█"
CARDS_SHOWN = 2
TOKENS_SHOWN = 6


def analysis_tables(analysis: Analysis) -> Group:
    """Layers, groups, cross-ablation, overlaps, and the first cards of every task."""
    return Group(
        _layers(analysis),
        _cross_ablation(analysis),
        *([_overlaps(analysis)] if analysis.heads_overlap else []),
        *([_cards(analysis)] if analysis.cards else []),
    )


def short(tasks: Sequence[str]) -> str:
    """A group's name: the first three letters of its tasks."""
    return "+".join(task[:3] for task in tasks)


def _layers(analysis: Analysis) -> Table:
    table = _table(
        "Neurons per layer, of every task and of every exclusive group", "set", "neurons", "per layer", "most"
    )
    for task in analysis.tasks:
        table.add_row(task.task, str(sum(task.per_layer)), *_profile(task.per_layer))
    table.add_section()
    for group in analysis.groups:
        table.add_row(short(group.tasks), str(group.neurons), *_profile(group.per_layer))
    table.caption = f"group: neurons of exactly these tasks; a bar per layer, 0 to {analysis.layers - 1}"
    return table


def _profile(counts: Sequence[int]) -> tuple[str, str]:
    """A bar per layer, and the fullest layer."""
    highest = max(counts)
    if highest == 0:
        return "", ""
    bars = "".join(BARS[-(-count * (len(BARS) - 1) // highest)] for count in counts)
    fullest = counts.index(highest)
    return bars, f"layer {fullest}: {highest}"


def _cross_ablation(analysis: Analysis) -> Table:
    tasks = [task.task for task in analysis.tasks]
    table = _table("Drop of every task when a group is masked", "group", "neurons", *tasks)
    sizes = {group.tasks: group.neurons for group in analysis.groups}
    by_group: dict[tuple[str, ...], dict[str, Ablation]] = defaultdict(dict)
    for ablation in analysis.ablations:
        by_group[ablation.group][ablation.task] = ablation
    for group, cells in by_group.items():
        table.add_row(short(group), str(sizes[group]), *(_drop(cells[task]) for task in tasks))
    table.caption = "dim: random neurons of the same layers; bold: interval of the difference above zero"
    return table


def _drop(ablation: Ablation) -> Text:
    style = "bold" if ablation.advantage.low > 0 else ""
    return Text.assemble((f"{ablation.drop.value:+.3f}\n", style), (f"{ablation.random_drop.value:+.3f}", "dim"))


def _overlaps(analysis: Analysis) -> Table:
    table = _table("What two tasks share", "tasks", "heads", "neurons")
    for heads, neurons in zip(analysis.heads_overlap, analysis.neurons_overlap, strict=True):
        shares = (f"{x.shared} of {x.union} ({x.shared / max(1, x.union):.0%})" for x in (heads, neurons))
        table.add_row(f"{heads.first}, {heads.second}", *shares)
    return table


def _cards(analysis: Analysis) -> Table:
    title = f"The first {CARDS_SHOWN} neurons of each task: heads -> neuron -> tokens"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("neuron", no_wrap=True)
    for heading in ("fed by heads", "promotes", "suppresses"):
        table.add_column(heading)
    for card in analysis.cards:
        if card.rank <= CARDS_SHOWN:
            tokens = (tokens_line(x) for x in (card.promotes, card.suppresses))
            heads = Text(heads_line(card.heads[:3]))
            table.add_row(card.task, f"{card.layer}, {card.neuron}", heads, *tokens)
    return table


def explanation_views(explanation: Explanation) -> Group:
    """The answer, the map of heads, and the tree heads -> neurons -> tokens."""
    answer = Text.assemble(
        "answer: ",
        (explanation.answer, "bold"),
        f"   probability {explanation.probability:.3g}",
        ("\ncut before its end: raise --max-new-tokens" if explanation.cut else "", "yellow"),
    )
    critical = explanation.all_heads[: explanation.top_k]
    marked = {(h.layer, h.head) for h in critical}
    parts: list[RenderableType] = [answer, heat_map(explanation.drops(), marked, "the answer's log-probability")]
    if not explanation.neurons:
        return Group(*parts, Text("no head's replacement lowers the probability through a neuron", style="yellow"))
    return Group(*parts, _tree(explanation, critical))


def _tree(explanation: Explanation, critical: Iterable[ExplainedHead]) -> Tree:
    """Every critical head with the neurons that it feeds more than any other head does."""
    fed: dict[tuple[int, int], list[ExplainedNeuron]] = defaultdict(list)
    for neuron in explanation.neurons:
        fed[neuron.heads[0].layer, neuron.heads[0].head].append(neuron)
    tree = Tree(Text("head (its replacement: probability) -> neurons it feeds most -> tokens they promote", "dim"))
    for head in critical:
        if head.log_probability_drop <= 0:
            continue
        without = explanation.probability - head.probability_drop
        label = f"head {head.layer}, {head.head}  {explanation.probability:.3g} -> {without:.3g}"
        branch = tree.add(Text(label, style="bold"))
        for neuron in fed[head.layer, head.head]:
            share = f"neuron {neuron.layer}, {neuron.neuron} ({neuron.heads[0].value:.0%}) "
            branch.add(Text.assemble(share, tokens_line(neuron.promotes)))
    return tree


def heads_line(heads: Sequence[HeadRef]) -> str:
    """Heads with their shares."""
    return "\n".join(f"{h.layer}, {h.head}: {h.value:.0%}" for h in heads)


def tokens_line(tokens: Sequence[Token]) -> Text:
    """The first tokens, quoted: spaces count."""
    return Text(" ".join(repr(token.text) for token in tokens[:TOKENS_SHOWN]))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in columns:
        table.add_column(heading, no_wrap=True)
    return table
