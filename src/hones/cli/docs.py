"""`hones docs`: the pages of the documentation in the terminal, as they belong to this version."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

import hones
from hones.cli.shown import OUT, say
from hones.errors import HonesError

NOT_SHOWN = ("index",)  # of the site alone


def docs(
    page: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAGE]", help="data, tasks, ... or as messages name it: docs/data.md. [default: list them]"
        ),
    ] = None,
) -> None:
    """Show a page of the documentation, or list the pages.

    Example: hones docs start
    """
    folder = pages_folder()
    pages = pages_of(folder)
    if page is None:
        _list(folder, pages)
        return
    name = page_name(page)
    if name not in pages:
        near = get_close_matches(name, pages, 3, 0.5)
        raise HonesError(
            f"no page {page!r} in the documentation",
            expected=f"perhaps {' or '.join(near)}" if near else None,
            do="`hones docs` lists them",
        )
    text = text_of(pages[name])
    if OUT.is_terminal:
        from rich.markdown import Markdown

        OUT.print(Markdown(text))
    else:
        say(text)


def _list(folder: Path, pages: dict[str, Path]) -> None:
    from rich.table import Table

    table = Table("page", "what it is about", box=None, pad_edge=False)
    for name, file in pages.items():
        table.add_row(name, title_of(file))
    OUT.print(table)
    say(f"hones docs PAGE shows one; the files and examples are in {folder}")


def pages_folder() -> Path:
    """Where the pages are: in the package where it was installed, else beside src/ of its sources.

    Raises:
        HonesError: in neither.
    """
    package = Path(hones.__file__).parent
    for folder in (package / "docs", package.parents[1] / "docs"):
        if (folder / "start.md").is_file():
            return folder
    raise HonesError(
        f"the pages of the documentation are not beside {package}", do="install hones again: `pip install` brings them"
    )


def pages_of(folder: Path) -> dict[str, Path]:
    """The pages by name, the notebooks last; these without their folder."""
    files = [*sorted(folder.glob("*.md")), *sorted(folder.glob("notebooks/*.md"))]
    return {file.stem: file for file in files if file.stem not in NOT_SHOWN}


def page_name(page: str) -> str:
    """The name of a page that was named by its file or a place in it: docs/tasks.md#metrics."""
    return page.partition("#")[0].replace("\\", "/").rpartition("/")[2].removesuffix(".md").lower()


def text_of(file: Path) -> str:
    """A page without what only the site fills in."""
    text = file.read_text(encoding="utf-8")
    return re.sub(r"\n*<!--.*?-->", "", text, flags=re.DOTALL).strip()


def title_of(file: Path) -> str:
    """Its first heading."""
    return next(line[2:] for line in text_of(file).splitlines() if line.startswith("# "))
