"""Heads -> neurons -> tokens as a small graph: columns of labelled boxes, joined by lines as strong as their weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from hones.views.svg import serialize
from hones.views.text import clean, one_line

_BOX = 108
_HEIGHT = 24
_GAP = 48
_ROW = 34
_TOP = 26
_COLUMN_COLOURS = ("var(--warm)", "var(--ink)", "var(--cool)")


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


def flow_svg(title: str, headings: Sequence[str], columns: Sequence[Sequence[Node]], edges: Sequence[Edge]) -> Markup:
    """The graph as inline SVG."""
    rows = max(len(column) for column in columns)
    width = len(columns) * (_BOX + _GAP) - _GAP + 4
    height = rows * _ROW + _TOP
    root = ElementTree.Element(
        "svg",
        {
            "viewBox": f"0 0 {width} {height}",
            "class": "chart flow",
            "style": f"--natural: {width}px",
            "role": "group",
            "tabindex": "0",
            "aria-label": f"{clean(title)}. Arrow keys move between the boxes.",
        },
    )
    for column, heading in enumerate(headings):
        _text(root, _left(column) + _BOX / 2, 12.0, heading, {"class": "flow-heading"})
    for edge in sorted(edges, key=lambda e: e.weight):
        _line(root, edge, columns, rows)
    for column, nodes in enumerate(columns):
        for i, node in enumerate(nodes):
            _box(root, column, _middle(i, len(nodes), rows), node)
    return serialize(root)


def _left(column: int) -> int:
    return 2 + column * (_BOX + _GAP)


def _middle(i: int, nodes: int, rows: int) -> float:
    return _TOP + (rows - nodes) * _ROW / 2 + (i + 0.5) * _ROW


def _line(root: ElementTree.Element, edge: Edge, columns: Sequence[Sequence[Node]], rows: int) -> None:
    x0 = _left(edge.column) + _BOX
    x1 = _left(edge.column + 1)
    y0 = _middle(edge.start, len(columns[edge.column]), rows)
    y1 = _middle(edge.end, len(columns[edge.column + 1]), rows)
    bend = (x0 + x1) / 2
    path = f"M {x0} {y0:.1f} C {bend} {y0:.1f} {bend} {y1:.1f} {x1} {y1:.1f}"
    colour = _COLUMN_COLOURS[0 if edge.column == 0 else 2]
    style = f"fill: none; stroke: {colour}; stroke-width: {0.6 + 7 * min(1.0, abs(edge.weight)):.2f}; opacity: 0.55"
    ElementTree.SubElement(root, "path", {"d": path, "style": style})


def _box(root: ElementTree.Element, column: int, middle: float, node: Node) -> None:
    label = clean(node.label)
    group = ElementTree.SubElement(root, "g", {"class": "mark", "role": "img", "tabindex": "-1", "aria-label": label})
    ElementTree.SubElement(group, "title").text = label
    box = {"x": f"{_left(column)}", "y": f"{middle - _HEIGHT / 2:.1f}", "width": f"{_BOX}", "height": f"{_HEIGHT}"}
    colour = _COLUMN_COLOURS[column]
    ElementTree.SubElement(group, "rect", {**box, "rx": "6", "style": f"fill: var(--paper); stroke: {colour}"})
    _text(group, _left(column) + _BOX / 2, middle + 4, node.text, {"class": "flow-text"})


def _text(parent: ElementTree.Element, x: float, y: float, text: str, more: dict[str, str]) -> None:
    element = ElementTree.SubElement(
        parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": "middle", **more}
    )
    element.text = one_line(text, 16)
