"""The commands `methods` and `compare`: every way to rank neurons, and all of them on the same test items."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hones.cli.options import (
    BatchSize,
    Candidates,
    Device,
    Dtype,
    EngineOption,
    Fresh,
    Images,
    Limit,
    MaxLeftOut,
    Model,
    NewTokens,
    Out,
    Revision,
    Seed,
    open_study,
    read_items,
    sweep_settings,
)
from hones.cli.shown import show
from hones.errors import HonesError

_out = Console(markup=False)


def methods() -> None:
    """Every method that ranks neurons, with a line and its source."""
    from hones.rivals import METHODS
    from hones.views.terminal import methods_table, show

    _out.print(show(methods_table(METHODS.values())))


def compare(
    model: Model,
    data: Annotated[Path, typer.Option(help="Unified JSON file of the *discovery* items.")],
    test: Annotated[Path, typer.Option(help="Unified JSON file of the *test* items; no common pictures.")],
    out: Out,
    tasks: Annotated[str, typer.Option(help="Tasks with commas (vqa, TASK.yaml, FILE.py:CLASS), or all.")] = "all",
    methods: Annotated[str, typer.Option(help="Methods with commas, or all: every one but oracle.")] = "all",
    heads_from: Annotated[
        Path | None, typer.Option(help="Run folder with RUN/T/heads.json. [default: step 1 is done in --out]")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Critical heads. [default: 3 %, at least 5]")] = None,
    ratio: Annotated[float, typer.Option(help="Share of all neurons to mask.")] = 0.01,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of the random methods.")] = 5,
    curves: Annotated[bool, typer.Option(help="Also mask budgets from 0.1 % to 10 %.")] = True,
    images: Images = None,
    limit: Limit = None,
    candidates: Candidates = 50,
    max_new_tokens: NewTokens = 24,
    batch_size: BatchSize = None,
    engine: EngineOption = "replay",
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
    seed: Seed = 3407,
    fresh: Fresh = False,
    max_left_out: MaxLeftOut = 0.05,
) -> None:
    """Mask every method's neurons, found on discovery items, on the same test items: who finds what matters?

    Example: hones compare --model tiny-llava --tasks vqa --methods hones,dvp,atp,random --data discovery.json --test
    test.json --out runs/a
    """
    from hones.data.disjoint import check_disjoint
    from hones.method.neurons import check_ratio
    from hones.rivals import make_methods
    from hones.rivals.compare import BUDGETS
    from hones.runs.comparing import compare as compare_stage
    from hones.tasks import make_tasks
    from hones.views.terminal import view

    check_ratio(ratio)
    chosen = make_methods(methods)
    asked = make_tasks(tasks, candidates=candidates)
    splits = {"discovery": read_items(data, images, None, limit), "test": read_items(test, images, None, limit)}
    check_disjoint(splits)
    source = heads_from or out
    for name in (task.name for task in asked):
        if heads_from is not None and not (heads_from / name / "heads.json").is_file():
            raise HonesError(f"no file {heads_from / name / 'heads.json'}", do="run `hones heads` there first")
    sweep = sweep_settings(engine, batch_size, max_new_tokens)
    study = open_study(model, out, dtype, device, revision, sweep, seed, fresh, max_left_out)
    if heads_from is None:
        study.heads(asked, splits["discovery"], top_k)
    shared: dict[Any, Any] = {}
    for task in asked:
        result = compare_stage(
            study,
            task,
            splits["discovery"],
            splits["test"],
            chosen,
            source / task.name / "heads.json",
            ratio=ratio,
            draws=seeds,
            budgets=BUDGETS if curves else (),
            shared=shared,
        )
        show(study, task.name, view(result), out / task.name / "comparison.json")
