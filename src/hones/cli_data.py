"""`hones data`: make and check annotation files."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_out = Console(markup=False)

Images = Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: images/ beside the file]")]
Candidates = Annotated[int, typer.Option(min=2, help="Retrieval: captions per picture, one of them true.")]

data_app = typer.Typer(help="Make and check annotation files.", no_args_is_help=True)


@data_app.command()
def shapes(
    to: Annotated[Path, typer.Option(help="Folder for the pictures and the annotation files.")],
    discovery: Annotated[int, typer.Option(min=1)] = 500,
    dev: Annotated[int, typer.Option(min=1)] = 200,
    test: Annotated[int, typer.Option(min=1)] = 500,
    seed: Annotated[int, typer.Option(help="Another seed gives other pictures.")] = 0,
    source: Annotated[
        str, typer.Option(help="shapes, or signs: other fonts, tones, backgrounds and layout, for tests out of domain.")
    ] = "shapes",
) -> None:
    """Write built-in pictures with annotations for all four tasks, in three picture-disjoint splits."""
    from hones.data.shapes import write_shapes
    from hones.store import RunFolder

    RunFolder(to)
    for split, file in write_shapes(to, {"discovery": discovery, "dev": dev, "test": test}, seed, source).items():
        _out.print(f"{split}: {file}", soft_wrap=True)


@data_app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Unified JSON annotation file.")],
    images: Images = None,
    pictures: Annotated[bool, typer.Option(help="Open every picture too.")] = True,
    candidates: Candidates = 50,
) -> None:
    """Count the items that each task can use and name the problems."""
    from rich.table import Table

    from hones.data.items import load_items
    from hones.tables import left_out_list
    from hones.tasks import TASKS, make_task
    from hones.tasks.base import with_readable_pictures

    items = load_items(file, images=images)
    table = Table("task", "usable items", "left out", title=f"{file}: {len(items)} items")
    problems = [("file", b) for b in items.left_out]
    for name in TASKS:
        examples, bad = make_task(name, candidates=candidates).examples(items)
        if pictures:
            examples, unreadable = with_readable_pictures(examples)
            bad = [*bad, *unreadable]
        problems += [(name, b) for b in bad]
        table.add_row(name, str(len(examples)), str(len(bad) + len(items.left_out)))
    _out.print(left_out_list(problems), table)
