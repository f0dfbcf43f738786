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
    with_interval,
)


def render(template: str, **content: Any) -> str:
    """The page."""
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
    environment.filters.update(
        cell=_cell,
        group=group_name,
        interval=with_interval,
        metric=metric,
        number=number,
        one_line=one_line,
        token=token_text,
    )
    environment.tests.update(text=lambda value: isinstance(value, str), around_zero=includes_zero)
    return environment.get_template(template).render(content)


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else value
