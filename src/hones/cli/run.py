"""`hones demo` and `hones run`: the whole pipeline, from built-in data or from a configuration."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hones.cli.options import Fresh, GpusPerWorker, Model, Out, RayAddress, RayOptions, RayWorkers
from hones.cli.report import write

START = "Start here"
_out = Console(markup=False)
_err = Console(stderr=True, markup=False)


def register(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command(rich_help_panel=START)(demo)
    app.command(rich_help_panel=START)(run)


def demo(
    model: Model = "tiny-llava",
    out: Out = Path("hones-demo"),
    fresh: Fresh = False,
) -> None:
    """The whole pipeline on a built-in model and pictures, all four tasks, in a few minutes; ends in a report."""
    from hones.runs.demo import demo_config

    config = demo_config(model, out / Path(model).name)
    follow(config, fresh)


def run(
    config: Annotated[Path, typer.Argument(help="YAML configuration; unknown keys are errors.")],
    fresh: Fresh = False,
    ray: RayAddress = None,
    workers: RayWorkers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """All stages of all tasks from one configuration; picks up after finished stages.

    Needed keys: model, out, data: {discovery, dev, test}. Optional: tasks, limit, images (in data), candidates, top_k,
    ratio, draws, positive_part, steering, engine, max_new_tokens, batch_size, dtype, device, device_map,
    attn_implementation, trust_remote_code, revision, max_left_out,
    seed, and the stages compare: {methods: [dvp, atp], draws, curves} and analyze: {lens_items, cards, draws, limit}.
    steering: {methods: [all], seeds: [3407, 3408], also: [vqa], ood: FILE, ood_images} adds controls and evidence.
    ray: {address, workers, gpus_per_worker} is --ray, --workers and --gpus-per-worker, which go before it.
    """
    from hones.runs.config import RayConfig, read_config

    read = read_config(config)
    if ray is not None or read.ray is None:
        RayOptions(ray, workers, gpus_per_worker).check()
    given = {"address": ray, "workers": workers, "gpus_per_worker": gpus_per_worker}
    asked = {**(read.ray.model_dump() if read.ray else {}), **{k: x for k, x in given.items() if x is not None}}
    follow(read.model_copy(update={"ray": RayConfig(**asked) if asked else None}), fresh)


def follow(config, fresh: bool) -> None:
    """Run a configuration, show what each task's stages find, and write the report; exit code 1 if a task stopped."""
    from hones.log import log_to
    from hones.runs.pipeline import Outcome, run_config
    from hones.runs.record import RunFolder
    from hones.runs.study import Study, all_left_out
    from hones.views import terminal

    started = time.monotonic()
    log_to(RunFolder(config.out).path)

    def show(study: Study, outcome: Outcome) -> None:
        seconds = time.monotonic() - started
        _out.rule(f"{outcome.task} ({len(outcome.neurons)} neurons; {seconds:.0f} s so far)")
        _out.print(terminal.view(outcome.heads))
        _err.print(terminal.left_out_list([x for x in all_left_out(study) if x[0].startswith(f"{outcome.task},")]))

    stopped = []
    outcomes = run_config(config, fresh=fresh, on_outcome=show, on_stopped=stopped.append)
    _out.rule(f"{config.model}: {time.monotonic() - started:.0f} s")
    if outcomes:
        _out.print(
            terminal.show(
                terminal.together([(o.task, o.masking) for o in outcomes]),
                terminal.together([(o.task, o.steering) for o in outcomes]),
            )
        )
    for evidence in (o.evidence for o in outcomes if o.evidence is not None):
        _out.print(terminal.view(evidence))
    for comparison in (o.comparison for o in outcomes if o.comparison is not None):
        _out.print(terminal.view(comparison))
    _out.print(
        f"Artifacts: {config.out}/ (run.json, and heads.json, neurons.json, masking.json, steering/ per task; "
        "comparison.json and analysis/ where asked for)",
        soft_wrap=True,
    )
    if outcomes or (config.out / "run.json").is_file():
        write(config.out)
    for task in stopped:
        _err.print(f"hones: {task}", style="red", soft_wrap=True, highlight=False)
    if stopped:
        raise typer.Exit(1)
