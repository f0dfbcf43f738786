"""`hones export`, `hones push` and `hones ask`: learned scales in other people's hands."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hones.cli.options import Device, Dtype, Model, NewTokens, Revision, load
from hones.errors import HonesError

SHARE, STEER = "Share", "Steer"
_out = Console(markup=False)


def register(app: typer.Typer) -> None:
    """Add the three commands."""
    app.command(rich_help_panel=STEER)(ask)
    app.command(rich_help_panel=SHARE)(export)
    app.command(rich_help_panel=SHARE)(push)


def export(
    scales: Annotated[Path, typer.Argument(metavar="SCALES.json", help="scales.json of `hones steer`.")],
    model: Model,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; new or empty.")],
    form: Annotated[
        str, typer.Option("--format", help="merged (a plain checkpoint), ia3 or lora (PEFT adapters), json.")
    ] = "merged",
    run: Annotated[
        Path | None, typer.Option(help="Run folder that wrote the file, if the file was copied from there.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in DIR.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Load the export again and compare its logits.")
    ] = True,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16. [default: merged: as the model is stored; else auto]"),
    ] = None,
    device: Device = "auto",
    revision: Revision = None,
) -> None:
    """Write scales as a folder that other software loads, with a model card.

    Example: hones export runs/a/vqa/steering/hones/scales.json --model tiny-llava --format lora --to vqa-lora
    """
    from hones.log import LOG, log_to
    from hones.runs.artifacts import read_scales
    from hones.sharing.base import stored_dtype
    from hones.sharing.export import check_request, export_scales
    from hones.sharing.origin import run_of
    from hones.views.terminal import view

    check_request(form, to, overwrite)
    read_scales(scales)  # a bad file is named before a model is loaded
    if (of_run := run or run_of(scales)) is not None and (of_run / "run.json").is_file():
        log_to(of_run)
    dtype = dtype or (stored_dtype(model, revision) if form == "merged" else "auto")
    vlm = load(model, dtype, device, revision)
    done = export_scales(vlm, scales, to, format=form, run=run, overwrite=overwrite, check=check)
    LOG.info("exported %s to %s as %s", scales, to, form)
    _out.print(view(done))
    _out.print(f"written: {to}", soft_wrap=True)


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `hones export` wrote.")],
    to: Annotated[str, typer.Option(metavar="USER/REPO", help="Repository on the hub; created if need be.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload. [default: only say what would be uploaded]")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    token_from_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with the token. [default: huggingface_hub's login]"),
    ] = None,
) -> None:
    """Upload an export to the hub; a dry run unless --yes.

    Example: hones push vqa-lora --to me/llava-vqa-lora
    """
    from hones.log import LOG, log_to
    from hones.sharing.push import push_export
    from hones.views.terminal import view

    within = next((parent for parent in folder.resolve().parents if (parent / "run.json").is_file()), None)
    if within is not None:
        log_to(within)
    done = push_export(folder, to, yes=yes, private=private, token_from_env=token_from_env)
    LOG.info("%s %s to %s", "uploaded" if done.url else "would upload", folder, to)
    _out.print(view(done))
    said = f"uploaded: {done.url}" if done.url else "nothing was uploaded: this is a dry run, add --yes to upload"
    _out.print(said, soft_wrap=True)


def ask(
    model: Model,
    question: Annotated[str | None, typer.Argument(help="What to ask about the picture; for vqa.")] = None,
    image: Annotated[Path | None, typer.Option(help="The picture. [default: the question alone]")] = None,
    scales: Annotated[
        Path | None, typer.Option(help="scales.json; both answers are shown. [default: the model as it is]")
    ] = None,
    task: Annotated[str, typer.Option(help="How to ask: vqa, ocr or caption.")] = "vqa",
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="ocr: the box to read, in pixels.")] = None,
    max_new_tokens: NewTokens = 24,
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
) -> None:
    """Ask about a picture: the answers without and with steering, side by side.

    Example: hones ask --model tiny-llava --scales scales.json --image photo.jpg "What is this?"
    """
    from hones.runs.artifacts import read_scales
    from hones.sharing.ask import ask as ask_model
    from hones.sharing.ask import read_question
    from hones.views.terminal import view

    corners = None if box is None else _box(box)
    read_question(image, question, task, corners)
    if scales is not None:
        read_scales(scales)
    vlm = load(model, dtype, device, revision)
    options = {"scales": scales, "task": task, "box": corners, "max_new_tokens": max_new_tokens}
    _out.print(view(ask_model(vlm, image, question, **options)))


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise HonesError(f"--box {text}", expected="four numbers X,Y,W,H") from error
    return x, y, width, height
