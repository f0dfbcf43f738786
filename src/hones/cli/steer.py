"""`hones steer`: learn scales and test them, alone or beside other ways to steer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

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
    TaskName,
    open_study,
    read_items,
    sweep_settings,
    task_of,
)
from hones.cli.shown import show
from hones.cli.training import (
    Beta,
    EarlyStopping,
    Epochs,
    Gamma,
    LearningRate,
    MaxScale,
    Patience,
    StepSize,
    steering_settings,
)
from hones.errors import HonesError

Methods = Annotated[
    str | None,
    typer.Option(
        help="Ways to steer with commas: hones, no-kl, rand-neuron, fixed-amp, grid-search, ia3, set:METHOD (the "
        "neurons that a method of `hones compare` selects), or all: those without a colon. [default: hones]"
    ),
]
Seeds = Annotated[
    str | None, typer.Option(help="Seeds of the training with commas; results are averaged. [default: --seed]")
]
Also = Annotated[str | None, typer.Option(help="Other tasks to test under the learned scales, with commas, or all.")]
Ood = Annotated[
    Path | None, typer.Option(help="Unified JSON file of another source to test on; nothing is learned there.")
]
OodImages = Annotated[Path | None, typer.Option(help="Folder of its pictures. [default: images/ beside the file]")]


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    app.command(rich_help_panel=panel)(steer)


@dataclass(frozen=True)
class Asked:
    """The options, as they were given."""

    methods: str | None
    seeds: str | None
    also: str | None
    ood: Path | None
    ood_images: Path | None

    def wanted(self, task, seed: int, ood, candidates: int):
        """What they ask for, checked; None where none was given."""
        if self.ood is None and self.ood_images is not None:
            raise HonesError(f"--ood-images {self.ood_images} without --ood", expected="both")
        if self.methods is self.seeds is self.also is self.ood is None:
            return None
        from hones.method.steering.controls import HONES
        from hones.runs.steering import Wanted
        from hones.runs.ways import make_steerings
        from hones.tasks import TASKS

        seeds = (seed,) if self.seeds is None else _numbers(self.seeds)
        names = [] if self.also is None else self.also.split(",")
        if names == ["all"]:
            names = [name for name in TASKS if name != task.name]
        ways = make_steerings(HONES if self.methods is None else self.methods)
        wanted = Wanted(ways, seeds, [task_of(name, candidates) for name in names], ood)
        wanted.check(task)
        return wanted


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise HonesError(f"--seeds {text}", expected="whole numbers with commas") from error


def steer(
    model: Model,
    task: TaskName,
    neurons: Annotated[Path, typer.Option(help="neurons.json of `hones neurons`.")],
    dev: Annotated[Path, typer.Option(help="Unified JSON file to learn on.")],
    test: Annotated[Path, typer.Option(help="Unified JSON file to evaluate on; no common pictures.")],
    out: Out,
    images: Images = None,
    limit: Limit = None,
    learning_rate: LearningRate = 5e-4,
    epochs: Epochs = 2,
    beta: Beta = 0.05,
    gamma: Gamma = 1e-5,
    max_scale: MaxScale = 1.5,
    step_size: StepSize = 4,
    early_stopping: EarlyStopping = None,
    patience: Patience = 1,
    methods: Methods = None,
    seeds: Seeds = None,
    also: Also = None,
    ood: Ood = None,
    ood_images: OodImages = None,
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
    """Step 4: learn one scale per selected neuron on dev items, the backbone frozen, and evaluate on test items.

    With --methods, --seeds, --also or --ood the evidence too: controls, several seeds, the other tasks, another source.

    Example: hones steer --model tiny-llava --task vqa --neurons runs/a/vqa/neurons.json --dev dev.json --test test.json
    --out runs/a
    """
    from hones.data.disjoint import check_disjoint
    from hones.runs.steering import steer as steer_stage
    from hones.views import terminal

    settings = steering_settings(
        learning_rate=learning_rate,
        epochs=epochs,
        beta=beta,
        gamma=gamma,
        max_scale=max_scale,
        batch_size=step_size,
        seed=seed,
        early_stopping=early_stopping,
        patience=patience,
    )
    asked = Asked(methods, seeds, also, ood, ood_images)
    splits = {"dev": read_items(dev, images, None, limit), "test": read_items(test, images, None, limit)}
    if ood is not None:
        splits["ood"] = read_items(ood, ood_images, None, limit)
    check_disjoint(splits)
    chosen = task_of(task, candidates)
    wanted = asked.wanted(chosen, seed, splits.get("ood"), candidates)
    sweep = sweep_settings(engine, batch_size, max_new_tokens)
    study = open_study(model, out, dtype, device, revision, sweep, seed, fresh, max_left_out)
    if wanted is not None:
        evidence = steer_stage(study, chosen, splits["dev"], splits["test"], neurons, settings, wanted)
        show(study, chosen.name, terminal.view(evidence), out / chosen.name / "steering" / "evidence.json")
        return
    result = study.steer(chosen, splits["dev"], splits["test"], neurons, settings)
    file = out / chosen.name / "steering" / "hones" / "scales.json"
    show(study, chosen.name, terminal.show(terminal.together([(chosen.name, result)])), file)
