"""Start here: the whole pipeline, from built-in data or from a configuration, and the self-check of a model."""

import shlex
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Argument, Exit, Option

from hones.cli.options import Changes, Fresh, Model, ModelOptions, Out, RayOptions
from hones.cli.see import look_before
from hones.cli.share import report
from hones.cli.shown import OUT, fail, name_left_out, name_remarks, say
from hones.errors import HonesError

if TYPE_CHECKING:
    from hones.runs.config import RunConfig


def demo(model: Model = "tiny-qwen2.5-vl", out: Out = Path("hones-demo"), fresh: Fresh = False) -> None:
    """The whole pipeline on a built-in model and pictures, all four tasks, in a few minutes; ends in a report."""
    from hones.runs.demo import demo_config

    follow(demo_config(model, out / Path(model).name), fresh)


def init(
    file: Annotated[
        Path | None,
        Argument(
            metavar="[FILE.yaml]", help="File to write; not one that is there. [default: hones.yaml or PAPER.yaml]"
        ),
    ] = None,
    paper: Annotated[
        str | None,
        Option(help="The paper's run on one of its models: llava-1.5-7b or qwen2.5-vl-7b.", show_default=False),
    ] = None,
) -> None:
    """Write a configuration for `hones run`, every key explained, or with --paper that of the paper's table.

    Example: hones init run.yaml
    """
    from hones.files import write_bytes
    from hones.runs.commented import commented_config
    from hones.runs.config import RunConfig
    from hones.runs.paper import paper_config

    text = commented_config(RunConfig) if paper is None else paper_config(paper)
    file = file or Path(f"{paper or 'hones'}.yaml")
    if file.exists():
        raise HonesError(f"{file} is there already", do="name another file, or remove it")
    write_bytes(file, text.encode())
    say(f"written: {file}")
    if paper is None:
        say(f"next: fill in model, out and data, then {shlex.join(['hones', 'run', str(file)])}")
    else:
        say(f"next: {shlex.join(['hones', 'plan', str(file), '--memory', '80', '--tflops', '300'])}, what it costs")
        say(f"next: {shlex.join(['hones', 'run', str(file)])}, once the data is there; the file says how")


@dataclass(kw_only=True)
class Run(RayOptions):
    """All stages of all tasks from one configuration; picks up after finished stages.

    `hones init` writes a configuration with every key explained.

    Needed keys: model, out, data: {discovery, dev, test}. Optional: tasks, limit, images (in data), candidates, top_k,
    ratio, draws, also, positive_part, steering, engine, max_new_tokens, batch_size, memory, dtype, device, device_map,
    attn_implementation, trust_remote_code, chat_template, revision, max_left_out,
    seed, anyway (sweep even at a baseline of 0), and the stages compare: {methods: [dvp, atp], draws, curves, budgets,
    rounds, width} and analyze: {lens_items, cards, draws, limit}.
    steering: {methods: [all], seeds: [3407, 3408], also: [vqa], ood: FILE, ood_images} adds controls and evidence.
    ray: {address, workers, gpus_per_worker} is --ray, --workers and --gpus-per-worker, which go before it.
    """

    config: Annotated[Path, Argument(help="YAML configuration; unknown keys are errors.")]
    changes: Changes = None
    fresh: Fresh = False

    def execute(self) -> None:
        from hones.data.content import check_there
        from hones.data.sources import Source
        from hones.models.place import check_place
        from hones.models.wordings import given_text
        from hones.runs.config import RayConfig, read_config
        from hones.tasks import is_custom, make_task

        config = read_config(self.config, self.changes or ())
        check_place(config.model)
        if config.chat_template is not None:
            given_text(config.chat_template)
        for name in config.tasks:
            if not is_custom(name):
                make_task(name)
        for file in (config.data.discovery, config.data.dev, config.data.test):
            source = Source.parse(file)
            if not source.hub:
                check_there(source.path)
        if self.ray is not None or config.ray is None:
            self.check_workers()
        options = {"address": self.ray, "workers": self.workers, "gpus_per_worker": self.gpus_per_worker}
        ray = config.ray.model_dump() if config.ray is not None else {}
        ray |= {name: value for name, value in options.items() if value is not None}
        follow(config.model_copy(update={"ray": RayConfig(**ray) if ray else None}), self.fresh)


def follow(config: "RunConfig", fresh: bool) -> None:
    """Run a configuration, show what each task's stages find, and write the report; exit code 1 if a task stopped."""
    from hones.data.items import Items
    from hones.data.unified import LeftOut
    from hones.log import log_to
    from hones.runs.pipeline import Outcome, run_config
    from hones.runs.record import RunFolder
    from hones.runs.study import Study
    from hones.tabular import together
    from hones.views import terminal
    from hones.views.selectivity import crossed

    started = time.monotonic()
    log_to(RunFolder(config.out).path)

    said: set[LeftOut] = set()  # about pictures, which several tasks show

    def read(split: str, items: Items) -> None:
        name_remarks(items.remarks, split)

    def show(study: Study, outcome: Outcome) -> None:
        seconds = time.monotonic() - started
        OUT.rule(f"{outcome.task} ({len(outcome.neurons)} neurons; {seconds:.0f} s so far)")
        OUT.print(terminal.view(outcome.heads))
        name_left_out(study, outcome.task, said)

    stopped = []
    look = partial(look_before, anyway=config.anyway)
    outcomes = run_config(config, fresh=fresh, on_read=read, look=look, on_outcome=show, on_stopped=stopped.append)
    OUT.rule(f"{config.model}: {time.monotonic() - started:.0f} s")
    if outcomes:
        masked = [(outcome.task, outcome.masking) for outcome in outcomes]
        steering = together([(outcome.task, outcome.steering) for outcome in outcomes])
        OUT.print(terminal.show(together(masked), *crossed(masked), steering))
    for result in (*(outcome.evidence for outcome in outcomes), *(outcome.comparison for outcome in outcomes)):
        if result is not None:
            OUT.print(terminal.view(result))
    say(
        f"Artifacts: {config.out}/ (run.json, and heads.json, neurons.json, masking.json, steering/ per task; "
        "comparison.json and analysis/ where asked for)"
    )
    if outcomes or RunFolder(config.out).record.stages:
        report(config.out)
    for task in stopped:
        fail(str(task))
    if stopped:
        raise Exit(1)


@dataclass(kw_only=True)
class Verify(ModelOptions):
    """Measure on a model every claim that an edit relies on; exit code 2 names the first that fails.

    Example: hones verify --model tiny-llava
    """

    renamed: ClassVar[dict[str, str]] = {"--out": "--json"}

    json: Annotated[Path | None, Option(metavar="FILE.json", help="Write the measured claims as JSON too.")] = None

    def execute(self) -> None:
        from hones.files import write_json
        from hones.sweep.verify import verify
        from hones.views.terminal import view

        verification = verify(self.load())
        OUT.print(view(verification))
        if self.json is not None:
            tables = {table.name: table.rows for table in verification.tables()}
            write_json(self.json, asdict(verification) | {"ok": not verification.failed, **tables})
            say(f"written: {self.json}")
        verification.check()
