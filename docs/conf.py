"""The site: `make docs`. Pages are Markdown; the commands and the public names are filled in from the sources."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tools"))

from site_pages import as_plain, copy_what_lies_beside, filled  # noqa: E402

copy_what_lies_beside(HERE.parent, HERE)

project = "hones"
author = "The hones authors"
project_copyright = "2026, The hones authors"
release = version = version_of("hones")
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "examples"]
default_role = "code"

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

smartquotes = False
suppress_warnings = ["myst.header"]  # pages of measurements begin below a chapter

html_theme = "furo"
html_title = f"hones {release}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
highlight_language = "none"


def fill(app: Any, page: str, source: list[str]) -> None:
    """What is made at build time, in its page."""
    source[0] = filled(page, source[0], HERE)


def plain(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with code."""
    lines[:] = as_plain(lines)


def setup(app: Any) -> None:
    """Connects the two."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", plain)
