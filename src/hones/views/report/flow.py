"""Heads -> neurons -> tokens as a small graph: columns of labelled boxes, joined by lines as strong as their weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from hones.method.analysis.results import Token
from hones.views.text import clean, number, one_line, token_text

_BOX = 98
_HEIGHT = 24
_GAP = 38
_ROW = 34
_TOP = 26
_COLOURS = ("var(--warm)", "var(--ink)", "var(--cool)")
_SVG = Markup(
    '<svg viewBox="0 0 {width} {height}" class="chart flow" style="--natural: {width}px" role="group" tabindex="0" '
    'aria-label="{title}. Arrow keys move between the boxes.">{content}</svg>'
)
_LINE = Markup(
    '<path d="M {x0} {y0:.1f} C {bend} {y0:.1f} {bend} {y1:.1f} {x1} {y1:.1f}" '
    'style="fill: none; stroke: {colour}; stroke-width: {width:.2f}; opacity: 0.55"></path>'
)
_NODE = Markup(
    '<g class="mark" role="img" tabindex="-1" aria-label="{label}"><title>{label}</title>'
    '<rect x="{x}" y="{y:.1f}" width="{width}" height="{height}" rx="6" style="fill: var(--paper); stroke: {colour}">'
    "</rect>{text}</g>"
)
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle" class="{}">{}</text>')


@dataclass(frozen=True)
class Node:
    """A box: its short text, and what it says when pointed at."""

    text: str
    label: str


@dataclass(frozen=True)
class Edge:
    """From a node of column `column` to one of the next. weight: in [0, 1], the width of its line."""

    column: int
    start: int
    end: int
    weight: float


def token_node(token: Token) -> Node:
    """A token and its weight."""
    return Node(token_text(token.text, 19), f"{token_text(token.text, 160)}: {number(token.weight)}")


def shares(tokens: Sequence[Token]) -> list[float]:
    """Weights as shares of half the largest, for the width of lines."""
    largest = max((abs(t.weight) for t in tokens), default=0.0) or 1.0
    return [0.5 * abs(t.weight) / largest for t in tokens]


def flow_svg(title: str, columns: Mapping[str, Sequence[Node]], edges: Sequence[Edge]) -> Markup:
    """The graph as inline SVG; columns: three, by their headings."""
    rows = max(len(nodes) for nodes in columns.values())
    left = [2 + column * (_BOX + _GAP) for column in range(len(columns))]
    middle = [
        [_TOP + (rows - len(nodes)) * _ROW / 2 + (i + 0.5) * _ROW for i in range(len(nodes))]
        for nodes in columns.values()
    ]
    parts = [_TEXT.format(x + _BOX / 2, 12, "flow-heading", heading) for x, heading in zip(left, columns, strict=True)]
    for edge in sorted(edges, key=lambda e: e.weight):
        line = _LINE.format(
            x0=left[edge.column] + _BOX,
            y0=middle[edge.column][edge.start],
            bend=left[edge.column] + _BOX + _GAP / 2,
            x1=left[edge.column + 1],
            y1=middle[edge.column + 1][edge.end],
            colour=_COLOURS[2 * edge.column],
            width=0.6 + 7 * min(1.0, abs(edge.weight)),
        )
        parts.append(line)
    for x, ys, colour, nodes in zip(left, middle, _COLOURS, columns.values(), strict=True):
        for y, node in zip(ys, nodes, strict=True):
            text = _TEXT.format(x + _BOX / 2, y + 4, "flow-text", one_line(node.text, 14))
            box = {"x": x, "y": y - _HEIGHT / 2, "width": _BOX, "height": _HEIGHT, "colour": colour}
            parts.append(_NODE.format(label=clean(node.label), text=text, **box))
    width = left[-1] + _BOX + 2
    return _SVG.format(width=width, height=rows * _ROW + _TOP, title=clean(title), content=Markup("").join(parts))
