"""The options that several commands share: their types, bounds and help, and what they are turned into.

Modules that import torch are imported inside, so that help and bad arguments answer at once.
"""

from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from hones.errors import HonesError

Model = Annotated[str, typer.Option(help="Hub id, local folder, or built in: tiny-llava, tiny-qwen2.5-vl.")]
TaskName = Annotated[str, typer.Option("--task", help="vqa, ocr, caption, retrieval, TASK.yaml or FILE.py:CLASS.")]
Data = Annotated[Path, typer.Option(help="Annotations: unified JSON or another format of docs/data.md.")]
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
DeviceMap = Annotated[
    str | None, typer.Option(help="auto: spread the layers over all GPUs; in place of --device.", show_default=False)
]
Attention = Annotated[
    str | None, typer.Option(help="eager, sdpa or flash_attention_2. [default: the model's]", show_default=False)
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run the model's own code from the hub.")]
Seed = Annotated[int, typer.Option(min=0, help="Of bootstraps, controls and training.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Compute again what the run folder already holds.")]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Compute on Ray workers: local, auto, or HOST:PORT of a cluster's head.", show_default=False),
]
RayWorkers = Annotated[int | None, typer.Option(help="Ray: how many, a replica each. [default: 1]", show_default=False)]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(help="Ray: several spread a model, a part shares one. [default: 1, or 0 where there are none]"),
]
ON_WORKERS = ("heads", "neurons", "mask", "compare", "steer")
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
    from hones.sweep.run import ENGINES, SweepSettings

    if engine not in ENGINES:
        raise HonesError(f"no engine {engine!r}", expected=" or ".join(ENGINES))
    return SweepSettings(engine, batch_size, max_new_tokens)


@dataclass(frozen=True)
class RayOptions:
    """--ray, --workers and --gpus-per-worker, as they were given."""

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None

    def check(self) -> None:
        """Raises HonesError where they make no sense."""
        from hones.sweep.ray import check_request

        check_request(self.address, self.workers, self.gpus_per_worker)

    def open(self, recipe, stack: ExitStack):
        """The pool of workers that they ask for, which ends with the stack; None without --ray."""
        if self.address is None:
            return None
        from hones.sweep.ray import open_pool

        return stack.enter_context(open_pool(recipe, self.address, self.workers, self.gpus_per_worker))


_loading: ContextVar[dict[str, Any]] = ContextVar("_loading", default={})  # noqa: B039
_on_workers: ContextVar[tuple[RayOptions, ExitStack] | None] = ContextVar("_on_workers", default=None)


def load(model: str, dtype: str, device: str, revision: str | None):
    """--model with all that its loading depends on."""
    from hones.models.loading import load_vlm

    return load_vlm(model, dtype=dtype, device=device, revision=revision, **_loading.get())


def add_loading_options(app: typer.Typer) -> None:
    """Give every command that loads a model the options that only `load` needs, so that no stage hands them on.

    Commands that sweep also get those of `hones.sweep.ray`.
    """
    options = {"device_map": DeviceMap, "attention": Attention, "trust_remote_code": TrustRemoteCode}
    cluster = {"ray": RayAddress, "workers": RayWorkers, "gpus_per_worker": GpusPerWorker}
    for command in app.registered_commands:
        own = command.callback
        if own is not None and "dtype" in signature(own).parameters:
            command.callback = _with_options(own, {**options, **(cluster if own.__name__ in ON_WORKERS else {})})


def _with_options(own: Callable[..., None], options: dict[str, Any]) -> Callable[..., None]:
    @wraps(own)
    def command(device_map: str | None, attention: str | None, trust_remote_code: bool, **others: Any) -> None:
        asked = RayOptions(*(others.pop(name, None) for name in ("ray", "workers", "gpus_per_worker")))
        asked.check()
        loading = {"device_map": device_map, "attn_implementation": attention, "trust_remote_code": trust_remote_code}
        with ExitStack() as stack:
            stack.callback(_loading.reset, _loading.set(loading))
            stack.callback(_on_workers.reset, _on_workers.set((asked, stack)))
            own(**others)

    given = signature(own)
    more = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=False if name == "trust_remote_code" else None, annotation=kind)
        for name, kind in options.items()
    ]
    command.__signature__ = given.replace(parameters=[*given.parameters.values(), *more])  # pyright: ignore
    command.__annotations__ = {**own.__annotations__, **options}
    return command


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
    from hones.runs.record import RunFolder
    from hones.runs.study import Study

    folder = RunFolder(out)
    log_to(out)
    pool = _pool(model, dtype, device, revision)
    if pool is not None:
        return Study(pool.vlm, folder, replace(sweep, workers=pool), seed, fresh, max_left_out)
    vlm = load(model, dtype, device, revision)
    return Study(vlm, folder, sweep, seed, fresh, max_left_out)


def _pool(model: str, dtype: str, device: str, revision: str | None):
    """The workers that --ray asks for; None without it. They end with the command."""
    asked = _on_workers.get()
    if asked is None or asked[0].address is None:
        return None
    from hones.models.spec import ModelSpec

    options, stack = asked
    loading = dict(_loading.get())
    loading["attention"] = loading.pop("attn_implementation")
    return options.open(ModelSpec(model, dtype, device, revision, **loading), stack)
