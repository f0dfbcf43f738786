"""`hones analyze` and `hones explain`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hones.cli.options import (
    BatchSize,
    Device,
    Dtype,
    EngineOption,
    Fresh,
    MaxLeftOut,
    Model,
    NewTokens,
    Revision,
    load,
    sweep_settings,
)
from hones.cli.shown import show

_out = Console(markup=False)
_err = Console(stderr=True, markup=False)


def analyze(
    run: Annotated[Path, typer.Argument(help="Run folder with heads.json and neurons.json of one task or more.")],
    data: Annotated[Path | None, typer.Option(help="Test items. [default: those of `hones mask`]")] = None,
    discovery: Annotated[Path | None, typer.Option(help="Discovery items, if the file has moved.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of all pictures, if it has moved.")] = None,
    model: Annotated[str | None, typer.Option(help="The run's model, if it has moved.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="FILE.py:CLASS of a task of the run that is a Python class; repeatable.")
    ] = None,
    lens_items: Annotated[int, typer.Option(min=0, help="Items of each task under the delta logit lens.")] = 2,
    cards: Annotated[int, typer.Option(min=0, help="Neuron cards of each task.")] = 8,
    draws: Annotated[int, typer.Option(min=1, help="Random control sets per group.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="Mask on the first N test items only.")] = None,
    batch_size: BatchSize = None,
    engine: EngineOption = "replay",
    dtype: Annotated[str, typer.Option(help="auto (as the run), float32, bfloat16 or float16.")] = "auto",
    device: Device = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="Of bootstraps and controls. [default: the run's]")] = None,
    fresh: Fresh = False,
    max_left_out: MaxLeftOut = 0.05,
) -> None:
    """What the found sets share and do: layers, groups, cross-ablation, logit lens, neuron cards.

    Works from what a run left; a model or data that has changed is refused.

    Example: hones analyze runs/a
    """
    from hones.log import log_to
    from hones.runs.analysis import AnalysisSettings, RunStudy
    from hones.runs.source import read_run
    from hones.views.terminal import view

    found = read_run(run, data=data, discovery=discovery, images=images, classes=task or ())
    log_to(run)
    sweep = sweep_settings(engine, batch_size)
    dtype = found.dtype if dtype == "auto" else dtype
    vlm = load(model or found.model, dtype, device, found.hub_revision)
    study = RunStudy(vlm, found.folder, sweep, found.seed if seed is None else seed, fresh, max_left_out)
    for name in found.skipped:
        _err.print(f"{name} has no neurons yet and is left out: run `hones neurons` for it", style="yellow")
    settings = AnalysisSettings(lens_items=lens_items, cards=cards, draws=draws, limit=limit)
    analysis = study.analyze(found, settings)
    show(study, None, view(analysis), run / "analysis" / "analysis.json")


def explain(
    question: Annotated[str, typer.Argument(help="What to ask about the picture.")],
    model: Model,
    image: Annotated[Path | None, typer.Option(help="The picture. [default: the question alone]")] = None,
    answer: Annotated[str | None, typer.Option(help="The answer to explain. [default: the model's own]")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Ask the bare question, not as the vqa task words it.")] = False,
    top_k: Annotated[int | None, typer.Option(min=1, help="Heads that may feed neurons. [default: 3 %, >= 5]")] = None,
    neurons: Annotated[int, typer.Option(min=1, help="Neurons to name.")] = 12,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for explanation.html and explanation.json. [default: the terminal alone]"),
    ] = None,
    max_new_tokens: NewTokens = 24,
    batch_size: BatchSize = None,
    engine: EngineOption = "replay",
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
) -> None:
    """Why does the model answer this? The heads its answer hangs on, the neurons they feed, the tokens these promote.

    Example: hones explain --model tiny-llava --image photo.jpg "What colour is the star?"
    """
    from hones.files import write_bytes
    from hones.method.analysis.explain import explain as explain_answer
    from hones.runs.artifacts import write_result
    from hones.views.report.explain import render_explanation
    from hones.views.terminal import view

    sweep = sweep_settings(engine, batch_size, max_new_tokens)
    vlm = load(model, dtype, device, revision)
    options = {"answer": answer, "top_k": top_k, "neurons": neurons, "raw": raw}
    found = explain_answer(vlm, image, question, **options, settings=sweep)
    _out.print(view(found))
    if out is not None:
        write_result(out / "explanation.json", found)
        write_bytes(out / "explanation.html", render_explanation(found, image).encode())
        _out.print(f"written: {out / 'explanation.html'} and explanation.json", soft_wrap=True)


def add_commands(app: typer.Typer, analyze_panel: str, explain_panel: str) -> None:
    """Put both commands on the command line."""
    app.command(rich_help_panel=analyze_panel)(analyze)
    app.command(rich_help_panel=explain_panel)(explain)
