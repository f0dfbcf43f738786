"""`hones verify`: what an intervention relies on, measured on one model."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hones.cli.options import Device, Dtype, Model, Revision, load

_out = Console(markup=False)


def add_command(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    app.command(rich_help_panel=panel)(verify)


def verify(
    model: Model,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the measured claims as JSON.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
) -> None:
    """Measure on a model every claim that an edit relies on; exit code 2 names the first that fails.

    Example: hones verify --model tiny-llava
    """
    from hones.files import write_json
    from hones.sweep.verify import verify as measure
    from hones.views.terminal import view

    found = measure(load(model, dtype, device, revision))
    _out.print(view(found))
    if out is not None:
        write_json(
            out, asdict(found) | {"ok": not found.failed, **{table.name: table.rows for table in found.tables()}}
        )
        _out.print(f"written: {out}", soft_wrap=True)
    found.check()
