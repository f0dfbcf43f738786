"""Neuron cards: one neuron to read, as a graph heads -> neuron -> tokens, with the pictures that drive it."""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from hones.method.analysis.results import Driver, NeuronCard, Token
from hones.views.report.flow import Edge, Node, flow_svg
from hones.views.report.pictures import Thumbnail, thumbnail
from hones.views.sheet import Sheet
from hones.views.text import group_name, number, slug, token_text

SHOWN = 6


@dataclass(frozen=True)
class Card:
    """A card ready for the page."""

    id: str
    card: NeuronCard
    group: str
    graph: Markup
    table: Sheet
    suppresses: tuple[str, ...]
    drivers: tuple[tuple[Driver, Thumbnail], ...]


def make_card(card: NeuronCard, folder: Path) -> Card:
    """The card with its graph and thumbnails; the largest head shares and token weights are drawn."""
    name = f"card-{slug(card.task)}-{card.layer}-{card.neuron}"
    neuron = f"layer {card.layer}, neuron {card.neuron}"
    heads = card.heads[:SHOWN]
    tokens = card.promotes[:SHOWN]
    columns = (
        [
            Node(f"L{h.layer} H{h.head} · {h.value:.0%}", f"layer {h.layer}, head {h.head}: {h.value:.1%}")
            for h in heads
        ],
        [Node(f"L{card.layer} N{card.neuron}", f"{neuron}: importance {card.importance:.4g} for {card.task}")],
        [token_node(t) for t in tokens],
    )
    edges = [Edge(0, i, 0, h.value) for i, h in enumerate(heads)]
    edges += [Edge(1, 0, i, w) for i, w in enumerate(shares(tokens))]
    graph = flow_svg(f"{neuron}, {card.task}", ("heads, share", "neuron", "promotes"), columns, edges)
    drivers = tuple((d, thumbnail(d.picture, folder)) for d in card.drivers)
    suppresses = tuple(token_text(t.text) for t in card.suppresses[:SHOWN])
    return Card(name, card, group_name(card.group), graph, _table(name, card), suppresses, drivers)


def token_node(token: Token) -> Node:
    """A token and its weight."""
    return Node(token_text(token.text, 19), f"{token_text(token.text, 160)}: {number(token.weight)}")


def shares(tokens: tuple[Token, ...]) -> list[float]:
    """Weights as shares of half the largest, for the width of lines."""
    largest = max((abs(t.weight) for t in tokens), default=0.0) or 1.0
    return [0.5 * abs(t.weight) / largest for t in tokens]


def _table(name: str, card: NeuronCard) -> Sheet:
    rows = (
        *(("head, share", f"layer {h.layer}, head {h.head}", h.value) for h in card.heads),
        *(("promotes", token_text(t.text), t.weight) for t in card.promotes),
        *(("suppresses", token_text(t.text), t.weight) for t in card.suppresses),
        *(("driven by item", d.item, d.contribution) for d in card.drivers),
    )
    return Sheet(name, f"Layer {card.layer}, neuron {card.neuron}", ("what", "which", "value"), rows)
