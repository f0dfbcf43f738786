"""What the site's pages hold that is made when it is built: the commands, the public names, the notebooks' outputs.

A page has a line where its part belongs, `<!-- commands -->`, which shows nothing elsewhere.
"""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMANDS = "<!-- commands -->"
NAMES = "<!-- names -->"


RESULTS = Path("bench/results")
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md")


def copy_what_lies_beside(root: Path, folder: Path) -> None:
    """Copy pages that are elsewhere: what was measured, and two files of the root. git ignores the copies."""
    for name in BESIDE:
        _copy(root / name, folder / "project" / name.lower())
    for file in sorted((root / RESULTS).glob("*.md")):
        _copy(file, folder / "results" / file.name)


def _copy(file: Path, to: Path) -> None:
    """Written where it differs, so that only what changed is built again."""
    text = file.read_text(encoding="utf-8").replace("](../../docs/", "](../")
    if not text.startswith("# "):
        text = f"# {file.stem}\n\n{text}"
    if not to.is_file() or to.read_text(encoding="utf-8") != text:
        to.parent.mkdir(exist_ok=True)
        to.write_text(text, encoding="utf-8")


def filled(page: str, text: str, folder: Path) -> str:
    """A page with what belongs into it; page: its name in the folder of pages, without ending."""
    text = re.sub(r"\]\(((?:\.\./)*)\.\./bench/results/([\w-]+\.md)", r"](\1results/\2", text)
    if page == "commands":
        return text.replace(COMMANDS, "\n".join(commands()))
    if page == "api":
        return text.replace(NAMES, "\n".join(names()))
    if page.startswith("notebooks/"):
        from notebooks import with_outputs

        made = (folder / page).with_suffix(".ipynb")
        return with_outputs(text, json.loads(made.read_text(encoding="utf-8"))) if made.is_file() else text
    return text


# Commands


def commands() -> Iterator[str]:
    """Every command: what it does, and its options as the help has them."""
    import typer

    from hones.cli.commands import app

    yield from _command("hones", typer.main.get_command(app))


def _command(words: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=words)
    pieces = " ".join(command.collect_usage_pieces(context))
    yield from (f"## {words}", "", "```", f"{words} {pieces}", "```", "")
    yield from (_help(command.help or ""), "")
    rows = [(param, param.get_help_record(context)) for param in command.params]
    shown = [(param, record) for param, record in rows if record is not None]
    panels = dict.fromkeys(param.rich_help_panel for param, _ in shown)
    for panel in panels:
        yield from (f"**{panel}**", "") if panel else ()
        yield from ("| option | meaning |", "|---|---|")
        for param, (left, right) in shown:
            if param.rich_help_panel == panel:
                yield f"| `{_cell(left)}` | {_cell(_text(right))} |"
        yield ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _command(f"{words} {name}", inner)


def _help(text: str) -> str:
    """Paragraphs; an example is code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("Example: "):
            paragraphs.append(f"```\n{paragraph.removeprefix('Example: ')}\n```")
        else:
            paragraphs.append(_text(paragraph))
    return "\n\n".join(paragraphs)


def _text(text: str) -> str:
    """Text in which nothing but code is marked up."""
    parts = text.split("`")
    return "`".join(part if n % 2 else part.translate(_MARKS) for n, part in enumerate(parts))


_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "*_[]<>$"})


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# Names

ROLES = (
    ("Functions", inspect.isfunction),
    ("Classes", lambda found: inspect.isclass(found) and not issubclass(found, Exception)),
    ("Errors", lambda found: inspect.isclass(found) and issubclass(found, Exception)),
)


def names() -> Iterator[str]:
    """Every public name, for autodoc."""
    import hones

    found = {name: getattr(hones, name) for name in sorted(vars(hones)["__all__"], key=str.lower)}
    for title, fits in ROLES:
        yield from (f"## {title}", "")
        for name, thing in found.items():
            if fits(thing):
                yield from _documented(name, thing)
    yield from (
        "## METHODS",
        "",
        "The ways to rank neurons by name, each a subclass of `Method`: [methods](methods.md).",
        "",
    )


def _documented(name: str, thing: Any) -> Iterator[str]:
    directive = "autoclass" if inspect.isclass(thing) else "autofunction"
    yield from (f"### {name}", "", "```{eval-rst}", f".. {directive}:: hones.{name}")
    yield from ("   :members:",) if inspect.isclass(thing) else ()
    yield from ("```", "")


def as_plain(lines: list[str]) -> list[str]:
    """A docstring's lines, in which only code is marked up: `*`, `|` and `_` mean themselves.

    A line that goes on with a text is no quotation, however far it is indented.
    """
    marks = str.maketrans({mark: f"\\{mark}" for mark in "*|_"})
    plain: list[str] = []
    field = False
    before = ""
    for line in lines:
        begins = not before.strip()
        before = line
        if line.startswith((":", "..")) or (field and line.startswith(" ")):
            field = True
        elif line.strip():
            field = False
            line = line if begins else line.lstrip()
        if line.startswith(".."):
            plain.append(line)
            continue
        head, colon, rest = line.partition(": ") if line.startswith(":") else ("", "", line)
        parts = rest.split("`")
        text = "`".join(part if n % 2 else part.translate(marks) for n, part in enumerate(parts))
        plain.append(f"{head}{colon}{text}")
    return plain
