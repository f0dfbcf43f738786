"""Keeping as a stage of a run folder: RUN/T/keep.json, beside masking.json."""

from pathlib import Path
from typing import Any

from hones.data.items import Items
from hones.errors import HonesError
from hones.files import digest_of
from hones.method.budget import Rest
from hones.method.keeping import KeepingResult, evaluate_keeping, mean_activations
from hones.runs.answers import KEPT
from hones.runs.locks import alone
from hones.runs.stage import Workspace
from hones.stats import UNEDITED
from hones.sweep.answer_log import AnswerLog
from hones.tasks.base import Task


def check_means(study: Workspace, rest: Rest) -> None:
    """Whether this process has the model that the means are of.

    Raises:
        HonesError: they are asked for and the model is with workers.
    """
    if rest == "mean" and study.sweep.workers.side_by_side:
        raise HonesError("mean activations on workers", expected="this process alone, or zero for the rest")


def keep(
    study: Workspace, task: Task, test: Items, neurons_file: Path, draws: int = 5, means_on: Items | None = None
) -> KeepingResult:
    """Keep the neurons of a file alone on the test items; writes keep.json of the task.

    Args:
        means_on: discovery items over which replaced neurons take their mean; None: they become 0.

    Raises:
        HonesError: as `evaluate_keeping`; the neurons are of another model; means with workers, which have the model.
    """
    check_means(study, "zero" if means_on is None else "mean")
    with alone(study.run.path, [task.name]):
        neurons = study.sites(neurons_file, task.name)
        items = study.prepare(task, test, "test")
        details: dict[str, Any] = {"test": items}
        rest: dict[str, Any] = {"rest": "zero"}
        if means_on is not None:
            details["discovery"] = study.prepare(task, means_on, "discovery")
            rest = {"rest": "mean", "means": details["discovery"].fingerprint}
        inputs = {"neurons": digest_of(neurons_file), "draws": draws, **rest, **study.swept()}
        stage = study.stage(f"{task.name}/keep", items, **inputs)

        def compute() -> KeepingResult:
            means = None if means_on is None else mean_activations(study.vlm, details["discovery"].examples)
            log = AnswerLog({UNEDITED: UNEDITED, "kept": KEPT}.get)
            options = {"means": means, "draws": draws, "sweep": stage.journalled(answers=log), "seed": study.seed}
            result = evaluate_keeping(study.vlm, task, items.examples, neurons, **options)
            study.keep_answers(task, "test", log, lambda arm: arm == KEPT)
            return result

        return stage.once(study.run.path / task.name / "keep.json", KeepingResult, compute, **details)
