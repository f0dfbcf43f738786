"""`hones benchmark`: every method against models whose task neurons are known."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from hones.cli.options import Also, Candidates, Device, Fresh, SweepOptions, TopK
from hones.cli.shown import OUT, say, warn


@dataclass(kw_only=True)
class Planted(SweepOptions):
    """Rank the neurons of planted models by every method, and compare with what was planted.

    Your own method takes part by --method; docs/benchmark.md says how and what the columns mean.

    Example: hones benchmark planted --methods hones,dvp,atp --draws 1 --out runs/planted
    """

    renamed: ClassVar[dict[str, str]] = {"--tasks": "--task", "--seeds": "--draws"}

    out: Annotated[Path, typer.Option(help="Run folder; what it holds is not computed again.")]
    models: Annotated[
        str, typer.Option(help="Planted models with commas; all: the trained ones, hard: the constructed ones.")
    ] = "all"
    task: Annotated[str, typer.Option(help="Tasks with commas, or all.")] = "all"
    methods: Annotated[
        str, typer.Option(help="Methods with commas, all: every one but masks, oracle, best-of, or none.")
    ] = "all"
    method: Annotated[
        list[str] | None, typer.Option(help="FILE.py:FUNCTION, rank(vlm, task, items) -> [L, I]; repeatable.")
    ] = None
    draws: Annotated[int, typer.Option(min=1, help="How often discovery items are drawn anew.")] = 3
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw; the others have the next.")] = 0
    items: Annotated[int, typer.Option(min=1, help="Discovery items, to rank on.")] = 48
    test: Annotated[int, typer.Option(min=1, help="Test items, to mask on.")] = 100
    both: Annotated[bool, typer.Option("--both", help="Also keep each method's first neurons alone.")] = False
    also: Also = None
    candidates: Candidates = 8
    top_k: TopK = None
    markdown: Annotated[
        Path | None, typer.Option(help="The leaderboard as a page with charts. [default: OUT/leaderboard.md]")
    ] = None
    details: Annotated[bool, typer.Option("--details", help="Also show every model's tasks.")] = False
    device: Device = "auto"
    fresh: Fresh = False

    def execute(self) -> None:
        from hones.benchmark import run_benchmark
        from hones.benchmark.contenders import contender_of, contender_of_file
        from hones.benchmark.stage import Settings
        from hones.benchmark.variants import planted_variants, task_names
        from hones.log import log_to
        from hones.models.planted import CONSTRUCTED
        from hones.rivals import make_methods
        from hones.runs.record import RunFolder
        from hones.tasks import make_tasks, other_tasks
        from hones.views.terminal import show

        methods = [] if self.methods == "none" else make_methods(self.methods)
        contenders = [contender_of(method) for method in methods]
        contenders += [contender_of_file(file) for file in self.method or ()]
        named = {"all": None, "hard": CONSTRUCTED}
        chosen = named[self.models] if self.models in named else self.models.split(",")
        variants = planted_variants(chosen, self.device)
        tasks = make_tasks(task_names(self.task, variants), candidates=self.candidates)
        beside = None if self.also is None else task_names(self.also, variants)
        also = tuple(other_tasks(beside, candidates=self.candidates))
        seeds = tuple(range(self.seed, self.seed + self.draws))
        sweep = self.sweep
        RunFolder(self.out)
        log_to(self.out)
        page = self.markdown or self.out / "leaderboard.md"
        result = run_benchmark(
            variants,
            tasks,
            contenders,
            Settings(self.items, self.test, seeds, self.top_k, self.both, also),
            self.out,
            sweep=sweep,
            fresh=self.fresh,
            page=page,
            command=shlex.join(["hones", *sys.argv[1:]]),
        )
        for cell in result.cells:
            if cell.refused is not None:
                warn(f"{cell.model}, seed {cell.seed}: {cell.method} gives no ranking: {cell.refused}")
        for board in result.leaderboards:
            OUT.print(show(*board.narrow()))
        if self.details:
            for model in dict.fromkeys(row.model for row in result.rows):
                OUT.print(show(result.model_table(model)))
        say(f"written: {self.out / 'benchmark.json'}, {page}")
