"""Steer with what was found: learn scales and test them, alone or beside other ways to steer; ask a steered model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Option

from hones.cli.following import say_next, say_results
from hones.cli.options import AnswerOptions, ModelOptions, NeuronsFile, NewTokens, StageOptions, TaskName
from hones.cli.question import QuestionOptions
from hones.cli.see import Eval
from hones.cli.shown import OUT, show
from hones.errors import HonesError, first_invalid

if TYPE_CHECKING:
    from hones.data.items import Items
    from hones.method.steering.settings import SteeringSettings
    from hones.runs.evidence import EvidenceRequest
    from hones.tasks.base import Task


@dataclass(kw_only=True)
class TrainingOptions:
    """How scales are learned."""

    panel: ClassVar[str] = "Training"
    learning_rate: Annotated[
        float | None,
        Option(
            help="Of AdamW, falling by a cosine to a tenth. [default: the paper's 5e-4 from 1,000 steps on, 0.05 up to "
            "200 steps, between them in between]"
        ),
    ] = None
    epochs: Annotated[int, Option(min=1, help="Passes over the dev items.")] = 2
    beta: Annotated[float, Option(min=0, help="Weight of the KL divergence from the original model.")] = 0.05
    gamma: Annotated[float, Option(min=0, help="Weight of the mean squared scale.")] = 1e-5
    max_scale: Annotated[float, Option(help="Bound of each |s|, kept after every step.")] = 1.5
    step_size: Annotated[int, Option(min=1, help="Items per training step.")] = 4
    early_stopping: Annotated[
        float | None, Option(help="Share of dev pictures to hold out; the best epoch by their objective is kept.")
    ] = None
    patience: Annotated[
        int, Option(min=1, help="Early stopping: epochs without improvement after which training ends.")
    ] = 1

    def training(self, seed: int) -> "SteeringSettings":
        """The settings of a training.

        Raises:
            HonesError: a value out of range; the line names the option.
        """
        from pydantic import ValidationError

        from hones.method.steering.settings import SteeringSettings

        settings = {name: getattr(self, name) for name in ("learning_rate", "epochs", "beta", "gamma", "max_scale")}
        settings |= {"batch_size": self.step_size, "seed": seed}
        if self.early_stopping is not None:
            settings["early_stopping"] = {"share": self.early_stopping, "patience": self.patience}
        try:
            return SteeringSettings.model_validate(settings)
        except ValidationError as error:
            invalid = first_invalid(error)
            field = str(invalid.where[-1])
            option = {"batch_size": "step_size", "share": "early_stopping"}.get(field, field).replace("_", "-")
            raise HonesError(f"--{option} {invalid.value}: {invalid.problem}") from error


@dataclass(kw_only=True)
class EvidenceOptions:
    """What scales are tested beside, and on what else."""

    panel: ClassVar[str] = "Evidence"
    methods: Annotated[
        str | None,
        Option(
            help="Ways to steer with commas: hones, no-kl, rand-neuron, fixed-amp, grid-search, ia3, or all: these. "
            "Further lora-1, lora-8 (in the layers of the neurons), head-offset, head-scale (of the critical heads), "
            "set:METHOD (the neurons that a method of `hones compare` selects). [default: hones]"
        ),
    ] = None
    seeds: Annotated[
        str | None, Option(help="Seeds of the training with commas; results are averaged. [default: --seed]")
    ] = None
    also: Annotated[str | None, Option(help="Other tasks to test under the learned scales, with commas, or all.")] = (
        None
    )
    ood: Annotated[
        Path | None, Option(help="Unified JSON file of another source to test on; nothing is learned there.")
    ] = None
    ood_images: Annotated[Path | None, Option(help="Folder of its pictures. [default: images/ beside the file]")] = None

    def request(self, task: "Task", seed: int, ood: "Items | None", candidates: int) -> "EvidenceRequest | None":
        """What is asked for, checked; None where nothing is."""
        if self.ood is None and self.ood_images is not None:
            raise HonesError(f"--ood-images {self.ood_images} without --ood", expected="both")
        if self.methods is self.seeds is self.also is self.ood is None:
            return None
        from hones.method.steering.settings import HONES
        from hones.runs.evidence import EvidenceRequest
        from hones.runs.ways import make_steerings
        from hones.tasks import other_tasks

        try:
            seeds = (seed,) if self.seeds is None else tuple(int(part) for part in self.seeds.split(","))
        except ValueError as error:
            raise HonesError(f"--seeds {self.seeds}", expected="whole numbers with commas") from error
        ways = make_steerings(HONES if self.methods is None else self.methods)
        request = EvidenceRequest(ways, seeds, other_tasks(self.also, task, candidates=candidates), ood)
        request.check(task)
        return request


@dataclass(kw_only=True)
class Steer(StageOptions, AnswerOptions, EvidenceOptions, TrainingOptions):
    """Step 4: learn one scale per selected neuron on dev items, the backbone frozen, and evaluate on test items.

    With --methods, --seeds, --also or --ood the evidence too: controls, several seeds, the other tasks, another source.

    Example: hones steer --model tiny-llava --task vqa --dev dev.json --test test.json --out runs/a
    """

    task: TaskName
    neurons: NeuronsFile = None
    dev: Annotated[Path, Option(help="Unified JSON file to learn on.")]
    test: Annotated[Path, Option(help="Unified JSON file to evaluate on; no common pictures.")]

    def execute(self) -> None:
        from hones.data.disjoint import check_disjoint
        from hones.data.items import check_pictures, load_items
        from hones.runs.artifacts import read_neurons
        from hones.tabular import together
        from hones.tasks import make_task
        from hones.views import terminal

        settings = self.training(self.seed)
        task = make_task(self.task, candidates=self.candidates)
        neurons = self.found(self.neurons, task.name, "neurons")
        read_neurons(neurons, task.name)  # a bad file is named before a model is loaded
        splits = {"dev": self.items(self.dev), "test": self.items(self.test)}
        if self.ood is not None:
            splits["ood"] = load_items(self.ood, images=self.ood_images, limit=self.limit)
            check_pictures(splits["ood"])
        check_disjoint(splits)
        request = self.request(task, self.seed, splits.get("ood"), self.candidates)
        folder = self.out / task.name / "steering"
        with self.study() as study:
            from hones.runs.steering import steer

            study.look_first(task, splits["test"], "test", "steer")
            steered = steer(study, task, splits["dev"], splits["test"], neurons, settings, request)
            if steered.evidence is not None:
                show(study, task.name, terminal.view(steered.evidence), folder / "evidence.json")
            else:
                table = terminal.show(together([(task.name, steered.result)]))
                show(study, task.name, table, folder / "hones" / "scales.json")
        say_next(self, Eval, data=self.test, scales=folder / "hones" / "scales.json")
        say_results(self.out)


@dataclass(kw_only=True)
class Ask(ModelOptions, QuestionOptions):
    """Ask about a picture: the answers without and with steering or another edit, side by side.

    Example: hones ask --model tiny-llava --scales scales.json --image photo.jpg "What is this?"

    In the words of a task: hones ask --model tiny-llava --task docs/examples/pope.yaml --image photo.jpg "red circle"

    Heads replaced and neurons masked: hones ask --model tiny-llava --heads 3.2,4.0 --neurons neurons.json ...
    """

    scales: Annotated[
        Path | None, Option(help="scales.json; both answers are shown. [default: the model as it is]")
    ] = None
    heads: Annotated[
        str | None,
        Option(metavar="L.H,...", help="Replace heads: LAYER.HEAD with commas, or the critical ones of a heads.json."),
    ] = None
    neurons: Annotated[list[Path] | None, Option(help="neurons.json: mask its neurons; repeatable.")] = None
    max_new_tokens: NewTokens = 24

    def execute(self) -> None:
        from hones.sharing.edits import EditNames, named_heads

        heads = () if self.heads is None else named_heads(self.heads)
        names = EditNames(heads, tuple(self.neurons or ()), self.scales)
        asked = self.asked()
        names.check(asked["task"].name)  # a bad file is named before torch is imported

        from hones.sharing.ask import ask
        from hones.views.terminal import view

        vlm = self.load()
        edit = names.of(vlm, asked["task"].name)
        tokens = self.max_new_tokens
        answers = ask(vlm, self.image, self.question, edit=edit, max_new_tokens=tokens, **asked)
        OUT.print(view(answers))
