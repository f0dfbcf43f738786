"""`hones benchmark`: every method against models whose task neurons are known."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hones.cli.options import BatchSize, Candidates, Device, EngineOption, Fresh, sweep_settings

_out = Console(markup=False)
_err = Console(stderr=True, markup=False)

benchmark_app = typer.Typer(
    help="Score methods where the truth is known: who finds planted neurons?", no_args_is_help=True
)


def register(app: typer.Typer, panel: str) -> None:
    """Add the group."""
    app.add_typer(benchmark_app, name="benchmark", rich_help_panel=panel)


@benchmark_app.callback()
def group() -> None:
    """Score methods where the truth is known: who finds planted neurons?"""


@benchmark_app.command()
def planted(
    out: Annotated[Path, typer.Option(help="Run folder; what it holds is not computed again.")],
    models: Annotated[str, typer.Option(help="Planted models with commas, or all.")] = "all",
    tasks: Annotated[str, typer.Option(help="Tasks with commas, or all.")] = "all",
    methods: Annotated[str, typer.Option(help="Methods with commas, all: every one but oracle, or none.")] = "all",
    method: Annotated[
        list[str] | None, typer.Option(help="FILE.py:FUNCTION, rank(vlm, task, items) -> [L, I]; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often discovery items are drawn anew.")] = 3,
    first_seed: Annotated[int, typer.Option("--seed", min=0, help="The first of them.")] = 0,
    items: Annotated[int, typer.Option(min=1, help="Discovery items, to rank on.")] = 48,
    test: Annotated[int, typer.Option(min=1, help="Test items, to mask on.")] = 100,
    candidates: Candidates = 8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Critical heads. [default: 3 %, at least 5]")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="The leaderboard as a page with charts. [default: OUT/leaderboard.md]")
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Also show every model's tasks.")] = False,
    batch_size: BatchSize = None,
    engine: EngineOption = "replay",
    device: Device = "auto",
    fresh: Fresh = False,
) -> None:
    """Rank the neurons of planted models by every method, and compare with what was planted.

    Your own method takes part by --method; docs/benchmark.md says how and what the columns mean.

    Example: hones benchmark planted --methods hones,dvp,atp --seeds 1 --out runs/planted
    """
    from hones.benchmark import run_benchmark
    from hones.benchmark.contenders import contender_of, contender_of_file
    from hones.benchmark.stage import Settings
    from hones.benchmark.variants import planted_variants
    from hones.log import log_to
    from hones.rivals import make_methods
    from hones.runs.record import RunFolder
    from hones.tasks import make_tasks
    from hones.views.terminal import show

    contenders = [] if methods == "none" else [contender_of(chosen) for chosen in make_methods(methods)]
    contenders += [contender_of_file(given) for given in method or ()]
    chosen = make_tasks(tasks, candidates=candidates)
    variants = planted_variants(None if models == "all" else models.split(","), device)
    settings = Settings(items, test, tuple(range(first_seed, first_seed + seeds)), top_k)
    sweep = sweep_settings(engine, batch_size)
    RunFolder(out)
    log_to(out)
    page = markdown or out / "leaderboard.md"
    how: dict[str, Any] = {
        "sweep": sweep,
        "fresh": fresh,
        "page": page,
        "command": shlex.join(["hones", *sys.argv[1:]]),
    }
    found = run_benchmark(variants, chosen, contenders, settings, out, **how)
    for cell in found.cells:
        if cell.refused is not None:
            _err.print(
                f"{cell.model}, seed {cell.seed}: {cell.method} gives no ranking: {cell.refused}", style="yellow"
            )
    for board in found.leaderboards:
        _out.print(show(board.table()))
    if details:
        for model in dict.fromkeys(row.model for row in found.rows):
            _out.print(show(found.model_table(model)))
    _out.print(f"written: {out / 'benchmark.json'}, {page}", soft_wrap=True)
