"""The page of `hones explain`: one answer, the heads that it needs, the neurons they feed, the tokens these promote."""

import io
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from hones.data.pictures import open_picture
from hones.errors import BadItem
from hones.method.analysis.explanation import ExplainedHead, Explanation
from hones.method.analysis.picture_map import PictureMap
from hones.views.charts import Chart, HeadCell, cell_map
from hones.views.overlay import overlay_map
from hones.views.report.flow import Edge, Node, flow_svg, shares, token_node
from hones.views.report.pictures import Thumbnail, encoded, thumbnail
from hones.views.report.templating import render
from hones.views.sheet import sheet
from hones.views.text import neuron_mark, neuron_words, number

NEURONS_SHOWN = 8
TOKENS_SHOWN = 3
MAP_SIDE = 480
READ = {
    "drop": "Causal: by how much the answer's log-probability falls, in nats, when a patch becomes the picture's mean "
    "patch. Orange: the answer needs the patch; blue: it is likelier without.",
    "attention": "Where the strongest head looks. What it looks at may not matter: the drop says what does.",
    "lens": "How well the unembedding reads the answer's token at each patch in what that head reads; where it is "
    "in layer 0, in what that layer gives. Orange: above the vocabulary's mean; blue: below.",
    "activation": "How active the strongest neuron is at each patch. Orange: above zero; blue: below.",
}


@dataclass(frozen=True)
class DrawnMap:
    """A map as the page shows it: what it is, how to read it, its strongest patches, and the picture under it."""

    title: str
    read: str
    words: str
    picture: Thumbnail


def render_explanation(explanation: Explanation, picture: Path | Image.Image | None) -> str:
    """One self-contained HTML page. A picture that cannot be read is named on it; None: the question had none."""
    if picture is None:
        shown = Thumbnail("")
    elif isinstance(picture, Image.Image):
        shown = encoded(explanation.picture, picture, 480)
    else:
        shown = thumbnail(picture.name, picture.parent, 480)
    return render(
        "explanation.html.j2",
        title=f"{explanation.answer}: explained by HONES",
        explanation=explanation,
        picture=shown,
        heads=head_chart(explanation),
        graph=_graph(explanation),
        neurons=sheet(explanation.table("neurons")),
        maps=_maps(explanation, picture),
        places=sheet(explanation.table("places")),
    )


def overlays_of(explanation: Explanation, picture: Path | Image.Image | None) -> dict[str, bytes]:
    """where-KIND.png for every map, laid over the picture."""
    drawn = {}
    for shown, at in _overlays(explanation, picture):
        file = io.BytesIO()
        shown.save(file, format="PNG")
        drawn[f"where-{at.kind}.png"] = file.getvalue()
    return drawn


def _overlays(explanation: Explanation, picture: Path | Image.Image | None) -> list[tuple[Image.Image, PictureMap]]:
    """Every map over the picture; none where that cannot be read, which the page says of the picture itself."""
    if picture is None or not explanation.maps:
        return []
    try:
        opened = open_picture(picture) if isinstance(picture, Path) else picture
    except BadItem:
        return []
    return [(overlay_map(opened, of), of) for of in explanation.maps]


def _maps(explanation: Explanation, picture: Path | Image.Image | None) -> list[DrawnMap]:
    return [
        DrawnMap(of.title, READ[of.kind], of.words(), encoded(of.kind, shown, MAP_SIDE))
        for shown, of in _overlays(explanation, picture)
    ]


def head_chart(e: Explanation) -> Chart:
    """Layer x head: the drop of the answer's log-probability when the head is replaced."""
    top = {(h.layer, h.head) for h in e.critical}
    cells = [HeadCell(h.layer, h.head, h.log_probability_drop, _head_label(h)) for h in e.all_heads]
    caption = (
        "Drop of the answer's log-probability, in nats, when a head is replaced by the mean of its layer's others. "
        f"Orange: the answer needs the head; blue with a dash: it is likelier without. Ringed: the first {len(top)}."
    )
    return cell_map("Heads that this answer needs", caption, sheet(e.table("heads")), cells, top, e.layers)


def _head_label(h: ExplainedHead) -> str:
    return (
        f"layer {h.layer}, head {h.head}: log-probability falls by {number(h.log_probability_drop)}, probability by "
        f"{number(h.probability_drop)}"
    )


def _graph(e: Explanation) -> Markup | None:
    neurons = e.neurons[:NEURONS_SHOWN]
    fed = {(h.layer, h.head) for n in neurons for h in n.heads}
    heads = [h for h in e.critical if (h.layer, h.head) in fed]
    if not heads:
        return None
    place = {(h.layer, h.head): i for i, h in enumerate(heads)}
    tokens: dict[str, Node] = {}
    boxes = []
    edges = []
    for i, n in enumerate(neurons):
        parts = f"contribution {number(n.contribution)}, of it dependent on the heads {number(n.dependence)}"
        where = (n.layer, n.neuron, n.expert)
        boxes.append(Node(neuron_mark(*where), f"{neuron_words(*where)}: {parts}"))
        edges += [Edge(0, place[h.layer, h.head], i, h.value) for h in n.heads if (h.layer, h.head) in place]
        promoted = n.promotes[:TOKENS_SHOWN]
        for token, share in zip(promoted, shares(promoted), strict=True):
            tokens.setdefault(token.text, token_node(token))
            edges.append(Edge(1, i, [*tokens].index(token.text), share))
    columns = {
        "heads": [Node(f"L{h.layer} H{h.head}", _head_label(h)) for h in heads],
        "neurons": boxes,
        "tokens": [*tokens.values()],
    }
    return flow_svg("Heads, the neurons they feed, and tokens", columns, edges)
