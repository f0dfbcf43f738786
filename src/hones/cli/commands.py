"""The command line: parse, call a stage, print a table.

Results go to standard output, progress and errors to standard error. Exit code 0: done; 2: a bad argument, file or
item, named in one line.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hones.cli import benchmark as cli_benchmark
from hones.cli import plan as cli_plan
from hones.cli import report as cli_report
from hones.cli import run as cli_run
from hones.cli import share as cli_share
from hones.cli import steer as cli_steer
from hones.cli.analyze import add_commands as add_analysis
from hones.cli.compare import compare, methods
from hones.cli.data import data_app
from hones.cli.options import (
    BatchSize,
    Candidates,
    Data,
    Device,
    Dtype,
    EngineOption,
    Fresh,
    Ids,
    Images,
    Limit,
    MaxLeftOut,
    Model,
    NewTokens,
    Out,
    Revision,
    Seed,
    TaskName,
    add_loading_options,
    open_study,
    read_items,
    sweep_settings,
    task_of,
)
from hones.cli.run import START
from hones.cli.shown import show
from hones.cli.verify import add_command as add_verify
from hones.errors import HonesError

HELP = """Find which attention heads and FFN neurons of a vision-language model do a task, prove it by intervention, and
steer the model with that knowledge.

Start with `hones demo`. On your own model, one stage feeds the next:
heads (which heads matter) -> neurons (which neurons they drive) -> mask (proof) and steer (use).
`hones run CONFIG.yaml` does all of it and picks up where it stopped.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown", add_completion=False
)
app.add_typer(data_app, name="data", rich_help_panel="Data")
cli_run.register(app)
_out = Console(markup=False)
_err = Console(stderr=True, markup=False)

FIND, PROVE, STEER = "Find", "Prove", "Steer"


@app.command(rich_help_panel=FIND)
def heads(
    model: Model,
    task: Annotated[
        str, typer.Option(help="vqa, ocr, caption, retrieval, your TASK.yaml or FILE.py:CLASS; with commas, or all.")
    ],
    data: Data,
    out: Out,
    images: Images = None,
    ids: Ids = None,
    limit: Limit = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Critical heads. [default: 3 %, at least 5]")] = None,
    utility: Annotated[
        str, typer.Option(help="metric, or logprob: an approximation by the gold answer's log-probability.")
    ] = "metric",
    racing: Annotated[
        float | None,
        typer.Option(help="Approximation: heads leave once a bound at this confidence decides them, e.g. 0.95."),
    ] = None,
    racing_margin: Annotated[
        float, typer.Option(help="Racing: heads this close by the metric count as equal.")
    ] = 0.005,
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
    """Step 1: score every attention head by replacing it with the mean of its layer's other heads.

    Several tasks in one sweep cost little more than the dearest of them.

    Example: hones heads --model tiny-llava --task all --data discovery.json --out runs/a
    """
    from hones.sweep.racing import RaceRules
    from hones.tasks import make_tasks
    from hones.tasks.log_probability import LogProbability
    from hones.views import terminal

    chosen, items = make_tasks(task, candidates=candidates), read_items(data, images, ids, limit)
    if utility not in ("metric", "logprob"):
        raise HonesError(f"--utility {utility}", expected="metric or logprob")
    if utility == "logprob":
        chosen = [LogProbability(one) for one in chosen]
    sweep = sweep_settings(engine, batch_size, max_new_tokens)
    study = open_study(model, out, dtype, device, revision, sweep, seed, fresh, max_left_out)
    rules = None if racing is None else RaceRules(racing, racing_margin)
    results = study.heads(chosen, items, top_k, rules)
    for name, result in zip([one.name for one in chosen], results, strict=True):
        if len(chosen) > 1:
            _out.rule(name)
        show(study, name, terminal.view(result), out / name / "heads.json")


@app.command(rich_help_panel=FIND)
def neurons(
    model: Model,
    task: TaskName,
    data: Data,
    out: Out,
    heads: Annotated[
        Path | None, typer.Option(help="heads.json of `hones heads`, for methods that use critical heads.")
    ] = None,
    method: Annotated[str, typer.Option(help="How neurons are ranked; `hones methods` lists them.")] = "hones",
    ratio: Annotated[float, typer.Option(help="Share of all neurons to select.")] = 0.01,
    per_item: Annotated[bool, typer.Option(help="Take the positive part per item, not of the mean.")] = False,
    images: Images = None,
    ids: Ids = None,
    limit: Limit = None,
    candidates: Candidates = 50,
    batch_size: BatchSize = None,
    engine: EngineOption = "replay",
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
    seed: Seed = 3407,
    fresh: Fresh = False,
    max_left_out: MaxLeftOut = 0.05,
) -> None:
    """Step 2: rank FFN neurons by their write-in toward the answer that depends on the critical heads.

    Example: hones neurons --model tiny-llava --task vqa --data discovery.json --heads runs/a/vqa/heads.json --out
    runs/a
    """
    from hones.method.neurons import neuron_budget
    from hones.rivals import make_method
    from hones.views import terminal

    if per_item and method not in ("hones", "hones-per-item"):
        raise HonesError(f"--per-item with --method {method}", expected="one of them: per item is a reading of hones")
    ranked_by = make_method("hones-per-item" if per_item else method)
    if ranked_by.needs_heads and heads is None:
        raise HonesError(f"--method {ranked_by.name} without --heads", expected="heads.json of `hones heads`")
    chosen, items = task_of(task, candidates), read_items(data, images, ids, limit)
    sweep = sweep_settings(engine, batch_size)
    study = open_study(model, out, dtype, device, revision, sweep, seed, fresh, max_left_out)
    selected = study.neurons(chosen, items, heads, ratio, method=ranked_by)
    budget = neuron_budget(study.vlm.anatomy.total_neurons, ratio)
    if len(selected) < budget:
        _err.print(f"{len(selected)} neurons instead of {budget}: no other has a positive importance", style="yellow")
    show(study, chosen.name, terminal.view(selected), out / chosen.name / "neurons.json")


@app.command(rich_help_panel=PROVE)
def mask(
    model: Model,
    task: TaskName,
    data: Annotated[Path, typer.Option(help="Unified JSON file of the *test* items.")],
    neurons: Annotated[Path, typer.Option(help="neurons.json of `hones neurons`.")],
    out: Out,
    draws: Annotated[int, typer.Option(min=1, help="Random layer-matched control sets.")] = 5,
    images: Images = None,
    ids: Ids = None,
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
    """Step 3: zero the selected neurons on test items, beside random neurons of the same layers.

    Example: hones mask --model tiny-llava --task vqa --data test.json --neurons runs/a/vqa/neurons.json --out runs/a
    """
    from hones.views import terminal

    chosen, items = task_of(task, candidates), read_items(data, images, ids, limit)
    sweep = sweep_settings(engine, batch_size, max_new_tokens)
    study = open_study(model, out, dtype, device, revision, sweep, seed, fresh, max_left_out)
    result = study.mask(chosen, items, neurons, draws)
    show(
        study,
        chosen.name,
        terminal.show(terminal.together([(chosen.name, result)])),
        out / chosen.name / "masking.json",
    )


app.command(rich_help_panel=FIND)(methods)
app.command(rich_help_panel=PROVE)(compare)
cli_benchmark.register(app, PROVE)


cli_steer.register(app, STEER)
add_analysis(app, PROVE, FIND)
add_verify(app, START)
cli_report.register(app)
cli_share.register(app)
add_loading_options(app)
cli_plan.register(app, START)
