"""Pages from templates. Everything is inline, nothing is fetched, and every text is escaped.

Three walls stand between hostile text and a reader: `clean` for each value, escaping by jinja2, and a content security
policy that runs only the script whose hash it names.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hones.stats import Interval
from hones.views.glossary import linked
from hones.views.sheet import Cell
from hones.views.svg import inline_svg
from hones.views.text import (
    SHORT,
    clean,
    group_name,
    includes_zero,
    metric,
    number,
    one_line,
    token_text,
    with_change,
    with_interval,
)


def render(template: str, **content: Any) -> str:
    """The page. Its texts link to the terms of `glossary`, if the content has one."""
    environment = Environment(
        loader=PackageLoader("hones.views.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("hones.views.report") / "templates"
    style, script = (Markup((folder / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(inline_svg=inline_svg, SHORT=SHORT, style=style, script=script, script_hash=digest)
    glossary = content.get("glossary", ())
    once: dict[str, set[str]] = {}

    def linked_once(text: str, part: str = "") -> Markup:
        """part: of the page, in which a term is linked once; by default the text alone."""
        return linked(text, glossary, once.setdefault(part, set()) if part else set())

    environment.filters.update(
        cell=_cell,
        group=group_name,
        change=with_change,
        interval=with_interval,
        linked=linked_once,
        metric=metric,
        number=number,
        one_line=one_line,
        token=token_text,
    )
    environment.tests.update(text=lambda value: isinstance(value, str), around_zero=includes_zero, unmoved=_unmoved)
    return environment.get_template(template).render(content)


def _unmoved(change: Interval) -> bool:
    """Whether no item's score differs: the interval has no width."""
    return change.low == change.high == 0


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else value
