"""What a run folder has to offer the page: its model, tasks, head scores, neuron sets, scales, and changed answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hones.app.question import Question, question_of
from hones.errors import HonesError
from hones.models.spec import ModelSpec
from hones.runs.answers import AnsweredItem, Said
from hones.runs.record import RunRecord
from hones.runs.results import RunResults, TaskResults, read_results
from hones.tasks import TASKS, make_task
from hones.tasks.base import Task
from hones.tasks.custom import task_of_content

MOST_CHANGED = 60
"""Items of a gallery."""


@dataclass(frozen=True)
class TaskOffer:
    """A task that the page can ask in the words of: how --task names it, and the task."""

    given: str
    task: Task


@dataclass(frozen=True)
class ChangedItem:
    """An item whose answer an edit of the run changes. question: None for a task that makes its own prompts."""

    item: AnsweredItem
    task: str
    arms: tuple[str, ...]
    picture: Path | None
    question: Question | None

    @property
    def asked(self) -> str:
        """What was asked, without the words of the task where that is known."""
        return self.question.text if self.question is not None and self.question.text else self.item.question

    @property
    def changing(self) -> list[tuple[str, Said]]:
        """The arms of the run that change the answer, and what the model says under them."""
        there = ((arm, self.item.answers[arm]) for arm in self.arms if arm in self.item.answers)
        return [(arm, said) for arm, said in there if self.item.changed([arm])]


@dataclass(frozen=True)
class Offered:
    """What there is to choose from. results: of a run; None: there is none, and only the built-in tasks are offered.

    more: tasks that were named beside the run, as --task takes them.
    """

    results: RunResults | None = None
    more: tuple[str, ...] = ()
    skipped: list[str] = field(default_factory=list, compare=False)

    @cached_property
    def tasks(self) -> dict[str, TaskOffer]:
        """The tasks by name: the four, those of the run, those named beside it.

        A Python class of a run is no task here unless it is named: a run folder runs no code. `skipped` names it.

        Raises:
            HonesError: a task that is named cannot be made.
        """
        offers = {name: TaskOffer(name, make_task(name)) for name in TASKS}
        for given in self.more:
            task = make_task(given)
            offers[task.name] = TaskOffer(given, task)
        for name, definition in self._definitions.items():
            if name in offers:
                continue
            if definition.content is None:
                self.skipped.append(f"{name} of the run is a Python class: name it with --task {definition.given}")
                continue
            offers[name] = TaskOffer(definition.given, task_of_content(definition.content, f"run.json: {name}"))
        return offers

    @property
    def _definitions(self) -> dict[str, Any]:
        found = {}
        for stage, record in self.record.stages.items():
            for used in record.splits.values():
                if used.task is not None:
                    found[stage.partition("/")[0]] = used.task
        return found

    @property
    def record(self) -> RunRecord:
        """run.json; without stages where there is none."""
        return RunRecord(stages={}) if self.results is None else self.results.record

    def of(self, task: str) -> TaskResults | None:
        """What the run found for a task."""
        if self.results is None:
            return None
        return next((t for t in self.results.tasks if t.task == task), None)

    @cached_property
    def neurons(self) -> dict[str, Path]:
        """The neuron sets to mask, by what the page calls them."""
        if self.results is None:
            return {}
        return {
            f"{t.task}: {len(t.neurons):,} neurons": self.results.folder / t.task / "neurons.json"
            for t in self.results.tasks
            if t.neurons is not None
        }

    @cached_property
    def scales(self) -> dict[str, Path]:
        """The learned scales to switch on, by what the page calls them."""
        if self.results is None:
            return {}
        files = sorted(self.results.folder.glob("*/steering/*/scales.json"))
        return {f"{file.parents[2].name}: {file.parent.name}": file for file in files}

    @cached_property
    def changed(self) -> list[ChangedItem]:
        """The items whose answer the run's masking or steering changes, task after task, the first of each."""
        if self.results is None:
            return []
        items = []
        for results in self.results.tasks:
            answers = results.shown_answers
            offer = self.tasks.get(results.task)
            if answers is not None:
                items += [
                    self._changed(item, results.task, answers.arms, offer) for item in answers.changed[:MOST_CHANGED]
                ]
        return items

    def _changed(self, item: AnsweredItem, task: str, arms: Sequence[str], offer: TaskOffer | None) -> ChangedItem:
        assert self.results is not None
        picture = None if item.picture is None else self.results.folder / item.picture
        question = None if offer is None else question_of(offer.task, offer.given, item.prompt, picture, item.box)
        return ChangedItem(item, task, tuple(arms), picture, question)


def spec_of_run(results: RunResults) -> ModelSpec:
    """A run's model.

    Raises:
        HonesError: the run does not say its model, or is of several.
    """
    prints = [stage.fingerprint for stage in results.record.stages.values() if "model" in stage.fingerprint]
    models = {str(of["model"]): of for of in prints}
    if len(models) != 1:
        said = " and ".join(models) or "no model"
        raise HonesError(f"{results.folder}: its run.json names {said}", expected="one model", do="pass --model")
    ((name, of),) = models.items()
    revision = str(of.get("revision", "unknown"))
    on_hub = None if revision.startswith("sha256:") or revision == "unknown" else revision
    return ModelSpec(name, dtype=str(of.get("dtype", ModelSpec.dtype)), revision=on_hub)


def read_offered(run: Path | None, more: Sequence[str] = ()) -> Offered:
    """What a run folder offers, read as a whole, so that a damaged file is named at once.

    Raises:
        HonesError: no run folder, an artifact that is damaged, a task that cannot be made.
    """
    offered = Offered(None if run is None else read_results(run), tuple(more))
    _ = offered.tasks
    return offered
