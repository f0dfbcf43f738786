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
from hones.views.text import SHORT, clean, metric, number, one_line, token_text, with_interval


def render(template: str, **content: Any) -> str:
    """The page."""
    style = Markup(_packaged("style.css"))
    script = Markup(_packaged("script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template(template).render(style=style, script=script, script_hash=digest, **content)


def _packaged(name: str) -> str:
    return (files("hones.views.report") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hones.views.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(inline_svg=inline_svg, SHORT=SHORT)
    environment.filters.update(
        cell=_cell, number=number, interval=with_interval, one_line=one_line, metric=metric, token=token_text
    )
    environment.tests["text"] = lambda value: isinstance(value, str)
    return environment


def _cell(value: Cell) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else value
