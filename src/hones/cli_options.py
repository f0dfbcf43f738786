"""The options that several commands share: their types, bounds and help, and what they are turned into.

Modules that import torch are imported inside, so that help and bad arguments answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from hones.errors import HonesError

Model = Annotated[str, typer.Option(help="Hub id, local folder, or built in: tiny-llava, tiny-qwen2.5-vl.")]
TaskName = Annotated[str, typer.Option("--task", help="vqa, ocr, caption, retrieval, TASK.yaml or FILE.py:CLASS.")]
Data = Annotated[Path, typer.Option(help="Unified JSON annotation file.")]
Out = Annotated[Path, typer.Option(help="Run folder; created if need be.")]
Images = Annotated[Path | None, typer.Option(help="Folder of the pictures. [default: images/ beside the file]")]
Ids = Annotated[Path | None, typer.Option(help="Text file of image ids to keep, one per line.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first N items only.")]
Candidates = Annotated[int, typer.Option(min=2, help="Retrieval: captions per picture, one of them true.")]
NewTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Pictures at once. [default: by the device's memory]")]
EngineOption = Annotated[str, typer.Option(help="replay (fast) or naive (the definition); the numbers are the same.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub.")]
Seed = Annotated[int, typer.Option(min=0, help="Of bootstraps, controls and training.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Compute again what the run folder already holds.")]
MaxLeftOut = Annotated[float, typer.Option(min=0, max=1, help="Share of unusable items beyond which a stage stops.")]


def task_of(name: str, candidates: int):
    """--task and --candidates."""
    from hones.tasks import make_task

    return make_task(name, candidates=candidates)


def read_items(file: Path, images: Path | None, ids: Path | None, limit: int | None):
    """--data, --images, --ids and --limit."""
    from hones.data.items import load_items

    wanted = None
    if ids is not None:
        try:
            wanted = [line.strip() for line in ids.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise HonesError(f"cannot read {ids} ({error})", expected="image ids, one per line") from error
    return load_items(file, images=images, ids=wanted, limit=limit)


def sweep_settings(engine: str, batch_size: int | None, max_new_tokens: int = 24):
    """--engine, --batch-size and --max-new-tokens."""
    from hones.sweep import ENGINES, SweepSettings

    if engine not in ENGINES:
        raise HonesError(f"no engine {engine!r}", expected=" or ".join(ENGINES))
    return SweepSettings(engine, batch_size, max_new_tokens)


def open_study(
    model: str,
    out: Path,
    dtype: str,
    device: str,
    revision: str | None,
    sweep,
    seed: int,
    fresh: bool,
    max_left_out: float,
):
    """--model and --out with all that a study depends on; the model is loaded and checked."""
    from hones.log import log_to
    from hones.models.loading import load_vlm
    from hones.store import RunFolder
    from hones.study import Study

    folder = RunFolder(out)
    log_to(out)
    vlm = load_vlm(model, dtype=dtype, device=device, revision=revision)
    return Study(vlm, folder, sweep, seed, fresh, max_left_out)
