"""All commands, in panels named by what a person wants."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from hones.cli.app import App
from hones.cli.benchmark import Planted
from hones.cli.command import Commands, DataclassCommand
from hones.cli.data import Coco, check, convert, shapes, words
from hones.cli.docs import docs
from hones.cli.find import Explain, Flips, Heads, Neurons, methods
from hones.cli.models import LISTED, get, models
from hones.cli.plan import Plan
from hones.cli.prove import Analyze, Compare, Mask
from hones.cli.see import Answers, Eval
from hones.cli.share import Export, figures, publish, push, report
from hones.cli.shown import say
from hones.cli.start import Run, Verify, demo, init
from hones.cli.steer import Ask, Steer

HELP = """Find which attention heads and FFN neurons of a vision-language model do a task, prove it by intervention, and
steer the model with that knowledge.

Start with `hones demo`. On your own model, one stage feeds the next:
heads (which heads matter) -> neurons (which neurons they drive) -> mask (proof) and steer (use).
`hones run CONFIG.yaml` does all of it and picks up where it stopped.
"""
BENCHMARK = "Score methods where the truth is known: who finds planted neurons?"
DATA = "Make, convert and check annotation files."

PANELS = {
    "Start here": (demo, init, Run, Verify, Plan, docs),
    "See": (Eval, Answers, App),
    "Find": (Heads, Flips, Neurons, methods, Explain),
    "Prove": (Mask, Compare, Analyze),
    "Steer": (Steer, Ask),
    "Share": (report, figures, publish, Export, push),
}


def add(group: typer.Typer, *commands: Callable[..., Any], panel: str | None = None) -> None:
    """Add commands: functions, or dataclasses of options that are executed."""
    for command in commands:
        kind = DataclassCommand if isinstance(command, type) else None
        group.command(cls=kind, rich_help_panel=panel)(command)


app = typer.Typer(
    cls=Commands,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)


def show_version(wanted: bool) -> None:
    """Of this installation."""
    if wanted:
        from importlib.metadata import version

        say(f"hones {version('hones')}")
        raise typer.Exit


@app.callback()
def _(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None: ...


for panel, commands in PANELS.items():
    add(app, *commands, panel=panel)

benchmark = typer.Typer(help=BENCHMARK, no_args_is_help=True)
benchmark.callback()(lambda: None)  # without it, a group of one command would be that command
add(benchmark, Planted)
app.add_typer(benchmark, name="benchmark", rich_help_panel="Prove")

data = typer.Typer(help=DATA, no_args_is_help=True)
add(data, shapes, words, Coco, convert, check)
app.add_typer(data, name="data", rich_help_panel="Data")

shipped = typer.Typer(help=LISTED, invoke_without_command=True)
shipped.callback()(models)
add(shipped, get)
app.add_typer(shipped, name="models", rich_help_panel="Start here")
