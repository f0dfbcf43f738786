"""`hones report` and `hones figures`: what a run found, as a page and as figures for papers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

SHARE = "Share"
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")]
_out = Console(markup=False)
_err = Console(stderr=True, markup=False)


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command(rich_help_panel=SHARE)(report)
    app.command(rich_help_panel=SHARE)(figures)


def report(
    run: Run, to: Annotated[Path | None, typer.Option(metavar="FILE.html", help="[default: RUN/report.html]")] = None
) -> None:
    """Everything a run found, as one HTML file that opens offline.

    Example: hones report runs/a
    """
    write(run, to)


def figures(
    run: Run,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="[default: RUN/figures]")] = None,
    form: Annotated[str, typer.Option("--format", help="pdf, svg or both.")] = "both",
) -> None:
    """The figures of a run for papers: neurons per layer, groups with their drops, head maps, comparison.

    Example: hones figures runs/a --format pdf
    """
    from hones.views.report.figures import write_figures

    _name_stale(run)
    for file in write_figures(run, to, form):
        _out.print(f"written: {file}", soft_wrap=True)


def write(run: Path, to: Path | None = None) -> None:
    """Write the report and print its path."""
    from hones.views.report.page import write_report

    _name_stale(run)
    _out.print(f"report: {write_report(run, to)}", soft_wrap=True)


def _name_stale(run: Path) -> None:
    from hones.runs.results import read_run
    from hones.runs.stale import stale

    for line in stale(read_run(run)):
        _err.print(line, style="yellow", soft_wrap=True)
