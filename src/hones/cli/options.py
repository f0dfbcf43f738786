"""The options that several commands share, in groups that say what they mean: a model, a sweep, items, workers, a run.

A command is a dataclass that inherits the groups it needs and adds its own options; the command line constructs it and
calls `execute`. Modules that import torch are imported inside, after all that can be checked without it, so that help
and bad arguments answer at once.

Names mean one thing each: --task is a task (or several with commas), --seed and --seeds are of random numbers, --draws
is how often something random is drawn, --out is a run folder, --to any other file or folder that is written.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Option

from hones.cli.shown import name_remarks, warn
from hones.errors import HonesError
from hones.files import read_text

if TYPE_CHECKING:
    from hones.data.items import Items
    from hones.models.spec import ModelSpec
    from hones.models.vlm import VLM
    from hones.runs.study import Study
    from hones.sweep.run import SweepSettings

Model = Annotated[str, Option(help="Hub id, local folder, or built in: tiny-llava, tiny-qwen2.5-vl, tiny-text.")]
TaskName = Annotated[str, Option("--task", help="vqa, ocr, caption, retrieval, TASK.yaml or FILE.py:CLASS.")]
Data = Annotated[Path, Option(help="Annotations: unified JSON or another format of docs/data.md.")]
NeuronsFile = Annotated[Path | None, Option(help="neurons.json of `hones neurons`. [default: the one in --out]")]
Also = Annotated[str | None, Option(help="Other tasks to measure under the same masks, with commas, or all.")]
Out = Annotated[Path, Option(help="Run folder; created if need be.")]
Images = Annotated[Path | None, Option(help="Folder of the pictures. [default: images/ beside the file]")]
Ids = Annotated[Path | None, Option(help="Text file of image ids to keep, one per line.")]
Candidates = Annotated[int, Option(min=2, help="Retrieval: captions per picture, one of them true.")]
TopK = Annotated[int | None, Option(min=1, help="Critical heads. [default: 3 %, at least 5]")]
NewTokens = Annotated[int, Option(min=1, help="Longest answer, in tokens.")]
BatchSize = Annotated[int | None, Option(min=1, help="Pictures at once. [default: by the device's memory]")]
Memory = Annotated[float | None, Option(min=0.001, help="Of sweeps, in GiB. [default: what is free]")]
Dtype = Annotated[
    str,
    Option(help="auto (float32 on a CPU), float32, bfloat16, float16; fast: bfloat16 where there are units for it."),
]
Device = Annotated[str, Option(help="auto, cpu, cuda, cuda:N.")]
Revision = Annotated[str | None, Option(help="Branch, tag or commit of the model on the hub.")]
TrustRemoteCode = Annotated[bool, Option("--trust-remote-code", help="Run the model's own code from the hub.")]
ChatTemplate = Annotated[
    str | None,
    Option(help="File with a Jinja template, or llava-1.5. [default: the model's own]", show_default=False),
]
Seed = Annotated[int, Option(min=0, help="Of bootstraps, controls and training.")]
Rounds = Annotated[
    int | None,
    Option(min=1, help="Of methods that close in rounds: how many. [default: 6; of coax: 2]", show_default=False),
]
Width = Annotated[
    int | None,
    Option(min=1, help="And neurons closed in each. [default: the selection over the rounds]", show_default=False),
]
Fresh = Annotated[bool, Option("--fresh/--resume", help="Compute again what the run folder already holds.")]
Changes = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="In place of what the configuration says: limit.test=100. Repeatable."),
]
MaxLeftOut = Annotated[float, Option(min=0, max=1, help="Share of unusable items beyond which a stage stops.")]


class Checked:
    """A group of options that checks them as soon as they are typed, each group what is its own, without torch."""

    panel: ClassVar[str]

    def __post_init__(self) -> None:
        """Raises HonesError where an option makes no sense."""


@dataclass(kw_only=True)
class LoadingOptions(Checked):
    """How a model is loaded, whichever it is."""

    panel: ClassVar[str] = "Model"
    device: Device = "auto"
    device_map: Annotated[
        str | None, Option(help="auto: spread the layers over all GPUs; in place of --device.", show_default=False)
    ] = None
    attention: Annotated[
        str | None, Option(help="eager, sdpa or flash_attention_2. [default: the model's]", show_default=False)
    ] = None
    trust_remote_code: TrustRemoteCode = False
    chat_template: ChatTemplate = None

    def __post_init__(self) -> None:
        from hones.models.wordings import given_text

        super().__post_init__()
        if self.chat_template is not None:
            given_text(self.chat_template)

    def spec_of(self, model: str, dtype: str, revision: str | None) -> "ModelSpec":
        """A model, loaded so."""
        from hones.models.spec import ModelSpec

        return ModelSpec(
            model,
            dtype=dtype,
            device=self.device,
            revision=revision,
            device_map=self.device_map,
            attention=self.attention,
            trust_remote_code=self.trust_remote_code,
            chat_template=self.chat_template,
        )


@dataclass(kw_only=True)
class ModelOptions(LoadingOptions):
    """A model."""

    model: Model
    dtype: Dtype = "auto"
    revision: Revision = None

    def __post_init__(self) -> None:
        from hones.models.place import check_place

        super().__post_init__()
        check_place(self.model)

    @property
    def spec(self) -> "ModelSpec":
        """The model that is named, not loaded yet."""
        return self.spec_of(self.model, self.dtype, self.revision)

    def check_top_k(self, top_k: int | None) -> None:
        """Raises HonesError for more heads than the model has, where its config.json is on this machine."""
        from hones.method.budget import check_top_k
        from hones.models.place import heads_by_config

        if (heads := heads_by_config(self.model)) is not None:
            check_top_k(top_k, heads)

    def load(self) -> "VLM":
        """The model, loaded and checked."""
        return self.spec.load()


@dataclass(kw_only=True)
class SweepOptions(Checked):
    """How a sweep over edits is computed."""

    panel: ClassVar[str] = "Speed"
    batch_size: BatchSize = None
    memory: Memory = None
    engine: Annotated[str, Option(help="replay (fast) or naive (the definition); the numbers are the same.")] = "replay"

    def __post_init__(self) -> None:
        from hones.sweep.names import check_engine

        super().__post_init__()
        check_engine(self.engine)

    @property
    def sweep(self) -> "SweepSettings":
        """The settings."""
        from hones.sweep.names import check_engine
        from hones.sweep.run import SweepSettings

        return SweepSettings(check_engine(self.engine), self.batch_size, memory=self.memory)


@dataclass(kw_only=True)
class AnswerOptions(SweepOptions):
    """A sweep in which the model writes answers."""

    panel: ClassVar[str] = "Data"
    max_new_tokens: NewTokens = 24

    @property
    def sweep(self) -> "SweepSettings":
        """As without answers, and their length."""
        return replace(super().sweep, max_new_tokens=self.max_new_tokens)


@dataclass(kw_only=True)
class ItemOptions:
    """Which items are read, and how a task that needs several of them takes them."""

    panel: ClassVar[str] = "Data"
    images: Images = None
    limit: Annotated[int | None, Option(min=1, help="Use the first N items only.")] = None
    candidates: Candidates = 50

    def items(self, file: Path, ids: Path | None = None) -> "Items":
        """The items of a file; ids: a file of those to keep."""
        from hones.data.items import check_pictures, load_items

        kept = None
        if ids is not None:
            lines = re.split(r"\r\n?|\n", read_text(ids, do="--ids takes image ids, one per line"))
            kept = [line.strip() for line in lines if line.strip()]
            if not kept:
                raise HonesError(f"--ids {ids} names no item", expected="image ids, one per line")
        items = load_items(file, images=self.images, ids=kept, limit=self.limit)
        check_pictures(items)
        name_remarks(items.remarks)
        return items


@dataclass(kw_only=True)
class RayOptions:
    """The workers that a stage runs on."""

    panel: ClassVar[str] = "Cluster"
    ray: Annotated[
        str | None,
        Option(help="Compute on Ray workers: local, auto, or HOST:PORT of a cluster's head.", show_default=False),
    ] = None
    workers: Annotated[int | None, Option(help="Ray: how many, a replica each. [default: 1]", show_default=False)] = (
        None
    )
    gpus_per_worker: Annotated[
        float | None,
        Option(help="Ray: several spread a model, a part shares one. [default: 1, or 0 where there are none]"),
    ] = None

    def check_workers(self) -> None:
        """Raises HonesError where they make no sense."""
        from hones.sweep.ray import check_request

        check_request(self.ray, self.workers, self.gpus_per_worker)


@dataclass(kw_only=True)
class RunOptions:
    """The run folder of a stage."""

    panel: ClassVar[str] = "Run"
    out: Out
    seed: Seed = 3407
    fresh: Fresh = False
    max_left_out: MaxLeftOut = 0.05
    anyway: Annotated[bool, Option("--anyway", help="Go on even where the unedited model scores 0, or to steer 1.")] = (
        False
    )


@dataclass(kw_only=True)
class StageOptions(RayOptions, RunOptions, ModelOptions, SweepOptions, ItemOptions):
    """A stage of a run: all of the above."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_workers()

    def found(self, given: Path | None, task: str, name: str) -> Path:
        """What an earlier stage found: the file that was named, else the one of this run; a line says that.

        Raises:
            HonesError: there is none.
        """
        if given is not None:
            return given
        file = self.out / task / f"{name}.json"
        if not file.is_file():
            raise HonesError(
                f"--{name} is not given, and there is no file {file}",
                do=f"run `hones {name}` with the same --out first, or name its {name}.json with --{name}",
            )
        warn(f"--{name} {file}, as this run has it")
        return file

    @contextmanager
    def study(self) -> Iterator["Study"]:
        """The model, loaded and checked, or workers that have it, and the run folder. Workers end with the context."""
        from hones.log import log_to
        from hones.runs.record import RunFolder

        folder = RunFolder(self.out)
        log_to(self.out)

        from hones.cli.see import look_before
        from hones.runs.study import Study
        from hones.sweep.ray import open_pool

        sweep = self.sweep

        def study(vlm: "VLM", sweep: "SweepSettings") -> Study:
            look = partial(look_before, anyway=self.anyway)
            return Study(vlm, folder, sweep, self.seed, self.fresh, self.max_left_out, look)

        if self.ray is None:
            yield study(self.load(), sweep)
            return
        with open_pool(self.spec, self.ray, self.workers, self.gpus_per_worker) as pool:
            yield study(pool.vlm, replace(sweep, workers=pool))
