"""A matplotlib figure as SVG inside a page: text stays text, colours follow the page, marks speak.

Every mark becomes <g class="mark" role="img" aria-label=...><title>...</title>; script.js moves between marks with the
arrow keys. Ids are made unique per chart; elements are rebuilt, so nothing but shapes and text gets through.
"""

import io
import re
import warnings
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup

from hones.views.charts import Chart
from hones.views.style import CSS_COLOURS, RC
from hones.views.text import clean

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"font(-family)?: (?:(?P<size>[\d.]+px) )?'[^;]*(;|$)")


@mpl.rc_context(RC)
def figure_svg(chart: Chart) -> bytes:
    """The figure as matplotlib writes it, without a date."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # text stays text: the viewer has its own fonts
        chart.drawing.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def inline_svg(chart: Chart) -> Markup:
    """The figure for the page."""
    root = ElementTree.fromstring(figure_svg(chart))
    values = " ".join(v for e in root.iter() for k, v in e.attrib.items() if k != "id")
    _rebuild(root, chart, set(re.findall(r"#([\w.-]+)", values)))
    del root.attrib["version"], root.attrib["height"]
    width = float(root.attrib.pop("width").removesuffix("pt"))
    label = f"{clean(chart.title)}. Arrow keys move between {len(chart.drawing.labels)} marks."
    style = f"--natural: {width * 4 / 3:.0f}px"
    root.attrib.update({"style": style, "class": "chart", "role": "group", "tabindex": "0", "aria-label": label})
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _rebuild(element: ElementTree.Element, chart: Chart, referenced: set[str]) -> None:
    for child in list(element):
        if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
            element.remove(child)
        else:
            _rebuild(child, chart, referenced)
    element.tag = element.tag.removeprefix(_SVG)
    element.tail = None
    if element.tag not in ("text", "title"):
        element.text = None
    label = chart.drawing.labels.get(element.get("id", ""))
    for key, value in list(element.attrib.items()):
        if key == "id":
            del element.attrib[key]
            if value in referenced:
                element.set("id", f"{chart.name}-{value}")
        elif key == _LINK:
            del element.attrib[key]
            element.set("href", f"#{chart.name}-{value.removeprefix('#')}")
        else:
            element.set(key, _restyled(key, value, chart.name))
    if label is not None:
        element.attrib.update({"class": "mark", "role": "img", "tabindex": "-1", "aria-label": label})
        title = ElementTree.Element("title")
        title.text = label
        element.insert(0, title)


def _restyled(key: str, value: str, name: str) -> str:
    value = value.replace("url(#", f"url(#{name}-")
    if key in ("d", "x", "y", "transform", "points"):
        return _DECIMALS.sub(lambda m: f"{float(m.group()):.2f}", value.replace("\n", " "))
    if key in ("style", "fill", "stroke"):
        value = _FONT.sub(lambda m: f"font-size: {m['size']}{m[3]}" if m["size"] else "", value)
        for colour, css in CSS_COLOURS.items():
            value = value.replace(colour, css)
    return value
