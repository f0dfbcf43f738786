"""`hones plan`: hours and memory of a run before it is paid for."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from hones.cli.head_options import HeadWayOptions
from hones.cli.options import (
    BatchSize,
    Candidates,
    Changes,
    ChatTemplate,
    Device,
    Dtype,
    Images,
    NewTokens,
    Revision,
    Seed,
    TopK,
    TrustRemoteCode,
)
from hones.cli.shown import ERR, OUT, say
from hones.errors import HonesError

if TYPE_CHECKING:
    from hones.runs.plan.request import Request


OF_PLAN = ("config", "changes", "racing_share", "to_json")
"""What a configuration leaves to options, beside what the request of a plan adds to it."""


@dataclass(kw_only=True)
class Plan(HeadWayOptions):
    """Hours and memory of a run, before it is paid for: from the model's shapes and the data's lengths, no weights.

    Example: hones plan --model tiny-llava --data discovery.json --items 5000,2000,3000 --calibrate

    For devices elsewhere: hones plan --model FOLDER --data discovery.json --gpus 8 --memory 80 --tflops 300
    """

    renamed: ClassVar[dict[str, str]] = {"--tasks": "--task", "--seeds": "--trainings"}

    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="A run's configuration, in place of options."),
    ] = None
    changes: Changes = None
    model: Annotated[
        str | None,
        typer.Option(help="Hub id, built-in name, or a folder with config.json and the processor's files; no weights."),
    ] = None
    data: Annotated[Path | None, typer.Option(help="Annotations of the discovery items.")] = None
    dev: Annotated[Path | None, typer.Option(help="Annotations of the dev items, for steering.")] = None
    test: Annotated[Path | None, typer.Option(help="Annotations of the test items, for masking and steering.")] = None
    images: Images = None
    task: Annotated[str, typer.Option(help="vqa, ocr, caption, retrieval, your own; with commas, or all.")] = "all"
    items: Annotated[
        str | None,
        typer.Option(
            metavar="N[,DEV,TEST]",
            help="Plan for so many items, with the lengths of the files; a missing dev or test file is like --data.",
        ),
    ] = None
    gpus: Annotated[int, typer.Option(min=1, help="Devices like this one.")] = 1
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory of one device. [default: free on this one]")
    ] = None
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure here what share of the matrix rate each stage reaches; kept.")
    ] = False
    tflops: Annotated[
        float | None, typer.Option(metavar="X", help="TFLOP/s that runs reach on a device elsewhere; with --memory.")
    ] = None
    racing_share: Annotated[
        str | None,
        typer.Option(metavar="S or LOW-HIGH", help="Also a scenario: a race that runs this share of the cells."),
    ] = None
    top_k: TopK = None
    ratio: Annotated[str, typer.Option(help="Share of all neurons to select, or auto.")] = "0.01"
    method: Annotated[str, typer.Option(help="How neurons are ranked: one of `hones methods`, or auto.")] = "hones"
    draws: Annotated[int, typer.Option(min=1, help="Random control sets.")] = 5
    compare: Annotated[str | None, typer.Option(help="Methods to compare, with commas. [default: none]")] = None
    steering: Annotated[str, typer.Option(help="Ways to steer, with commas, or all.")] = "hones"
    trainings: Annotated[int, typer.Option(min=1, help="Of each learned way, each with its seed.")] = 1
    epochs: Annotated[int, typer.Option(min=1, help="Of a training.")] = 2
    step_size: Annotated[int, typer.Option(min=1, help="Pairs per training step.")] = 4
    analyze: Annotated[bool, typer.Option("--analyze", help="Also the analysis.")] = False
    load: Annotated[float, typer.Option(metavar="MINUTES", min=0, help="To load the model.")] = 0.0
    candidates: Candidates = 50
    max_new_tokens: NewTokens = 24
    batch_size: BatchSize = None
    dtype: Dtype = "auto"
    device: Device = "auto"
    revision: Revision = None
    trust_remote_code: TrustRemoteCode = False
    chat_template: ChatTemplate = None
    seed: Seed = 3407
    to_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON.")] = None

    def execute(self) -> None:
        request = self._request()  # before torch is imported: what is wrong with it is said at once
        from hones.files import write_json
        from hones.runs.plan.forecast import plan
        from hones.views.forecast import forecast_table, sentences
        from hones.views.terminal import show

        forecast = plan(request, on_calibration=lambda stage: ERR.print(f"calibrating: {stage}"))
        OUT.print(show(forecast_table(forecast)))
        for sentence in sentences(forecast):
            OUT.print(sentence)
        if self.to_json is not None:
            write_json(self.to_json, forecast.as_dict())
            say(f"written: {self.to_json}")

    def _request(self) -> "Request":
        from hones.method.budget import ratio_of_text
        from hones.rivals import check_method_or_auto
        from hones.runs.config import read_config
        from hones.runs.plan.request import make_request
        from hones.tasks import TASKS

        of_plan: dict[str, Any] = {
            "gpus": self.gpus,
            "memory": self.memory,
            "tflops": self.tflops,
            "calibrate": self.calibrate,
            "racing": None if self.racing_share is None else _shares(self.racing_share),
            "load": self.load,
        }
        if self.config is not None:
            given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            beside = [f"--{name.replace('_', '-')}" for name in given if name not in (*of_plan, *OF_PLAN)]
            if beside:
                what = f"{self.config} and {', '.join(beside)}"
                raise HonesError(what, expected="a configuration, or options in its place", do="--set changes its keys")
            config = read_config(self.config, self.changes or ())
            # how much a sweep may take changes how its work is cut, not how much there is
            asked = config.model_dump(exclude_unset=True, exclude={"memory"})
            return make_request(**asked, stand_in=True, **of_plan)
        if self.changes:
            raise HonesError("--set without a configuration", expected="the option itself in its place")
        if self.model is None or self.data is None:
            raise HonesError("nothing to plan", expected="--model and --data, or a CONFIG.yaml")
        steering = {
            "methods": self.steering.split(","),
            "seeds": range(self.seed, self.seed + self.trainings),
            "also": [],
            "epochs": self.epochs,
            "batch_size": self.step_size,
        }
        return make_request(
            model=self.model,
            data={"discovery": self.data, "dev": self.dev, "test": self.test, "images": self.images},
            tasks=tuple(TASKS) if self.task == "all" else tuple(self.task.split(",")),
            limit={} if self.items is None else _counts(self.items),
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            chat_template=self.chat_template,
            dtype=self.dtype,
            device=self.device,
            top_k=self.top_k,
            heads=self._heads(),
            ratio=ratio_of_text(self.ratio),
            method=check_method_or_auto(self.method),
            draws=self.draws,
            candidates=self.candidates,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            compare=None if self.compare is None else {"methods": self.compare.split(","), "draws": self.draws},
            steering=steering,
            analyze={} if self.analyze else None,
            seed=self.seed,
            **of_plan,
        )

    def _heads(self) -> dict[str, Any]:
        """The section of a configuration."""
        self.head_way(self.model)
        return {name: getattr(self, name) for name in ("by", "share", "subsets", "ridge", "steps")}


def _counts(text: str) -> dict[str, int]:
    """Items of discovery, dev and test."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise HonesError(f"--items {text}", expected="a number, or three with commas: 5000,2000,3000") from error
    if not 1 <= len(counts) <= 3 or min(counts) < 1:
        raise HonesError(f"--items {text}", expected="one to three numbers above 0: discovery, dev, test")
    return dict(zip(("discovery", "dev", "test"), counts, strict=False))


def _shares(text: str) -> tuple[float, float]:
    """One share, or the least and the most."""
    try:
        low, _, high = text.partition("-")
        return float(low), float(high or low)
    except ValueError as error:
        raise HonesError(f"--racing-share {text}", expected="a share such as 0.15, or 0.1-0.2") from error
