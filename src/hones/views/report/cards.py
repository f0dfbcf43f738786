"""Neuron cards: one neuron to read, as a graph heads -> neuron -> tokens, with the pictures that drive it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from hones.method.analysis.results import NeuronCard
from hones.views.report.flow import Edge, Node, flow_svg, shares, token_node
from hones.views.report.pictures import Thumbnail, thumbnail
from hones.views.sheet import Sheet
from hones.views.text import neuron_mark, neuron_words, slug, token_text

SHOWN = 6


@dataclass(frozen=True)
class Card:
    """A card ready for the page. pictures, answers: one for each of its drivers; "" where no answer is kept."""

    id: str
    card: NeuronCard
    graph: Markup
    table: Sheet
    suppresses: tuple[str, ...]
    pictures: tuple[Thumbnail, ...]
    answers: tuple[str, ...] = ()


def make_card(card: NeuronCard, folder: Path, said: Mapping[tuple[str, str, str], str]) -> Card:
    """The card with its graph and thumbnails; the largest head shares and token weights are drawn.

    Args:
        said: the unedited model's answers, by task, item and prompt.
    """
    name = f"card-{slug(card.task)}-{card.layer}-{card.neuron}"
    place = (card.layer, card.neuron, card.expert)
    neuron = neuron_words(*place)
    heads = card.heads[:SHOWN]
    tokens = card.promotes[:SHOWN]
    columns = {
        "heads, share": [
            Node(f"L{h.layer} H{h.head} · {h.value:.0%}", f"layer {h.layer}, head {h.head}: {h.value:.1%}")
            for h in heads
        ],
        "neuron": [Node(neuron_mark(*place), f"{neuron}: importance {card.importance:.4g} for {card.task}")],
        "promotes": [token_node(t) for t in tokens],
    }
    edges = [Edge(0, i, 0, h.value) for i, h in enumerate(heads)]
    edges += [Edge(1, 0, i, w) for i, w in enumerate(shares(tokens))]
    rows = (
        *(("head, share", f"layer {h.layer}, head {h.head}", h.value) for h in card.heads),
        *(("promotes", token_text(t.text), t.weight) for t in card.promotes),
        *(("suppresses", token_text(t.text), t.weight) for t in card.suppresses),
        *(("driven by item", d.item, d.contribution) for d in card.drivers),
    )
    return Card(
        id=name,
        card=card,
        graph=flow_svg(f"{neuron}, {card.task}", columns, edges),
        table=Sheet(name, neuron.capitalize(), ("what", "which", "value"), rows),
        suppresses=tuple(token_text(t.text) for t in card.suppresses[:SHOWN]),
        pictures=tuple(thumbnail(d.picture, folder) for d in card.drivers),
        answers=tuple(said.get((d.task, d.item, d.prompt), "") for d in card.drivers),
    )
