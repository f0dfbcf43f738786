"""What a model says and how it scores, with or without an edit, before anything is found.

A metric of 0 (a floor) or of 1 (a ceiling) on all items says little about heads and neurons: nothing can be lost, or
nothing gained. `Evaluation.advice` says so in words, from the answers themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hones.errors import HonesError
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, default_stop_of
from hones.runs.answer_table import Answers
from hones.runs.answers import items_of
from hones.stats import UNEDITED, Interval
from hones.sweep.answer_log import AnswerLog
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tabular import Column, Table, Tabular
from hones.tasks.base import Example, Task
from hones.tasks.caption import Captioning
from hones.tasks.reading import begins_with, holds
from hones.tasks.vqa import Vqa, compared

EDITED = "edited"


@dataclass(frozen=True)
class Evaluation(Tabular):
    """The metric of the unedited model, and with an edit; its answers.

    edited, change: None where nothing was edited. of: items that there are, of which these are the first. bounded:
    whether the metric is between 0 and 1. stop: where answers end by the model's default (`hones.models.stopping`).
    """

    task: str
    metric_name: str
    items: int
    level: Interval
    edited: Interval | None
    change: Interval | None
    answers: Answers
    of: int | None = None
    bounded: bool = True
    stop: tuple[str, ...] = ()

    @property
    def stuck(self) -> Literal["floor", "ceiling"] | None:
        """Where the unedited metric is at its end on every item."""
        if not self.bounded or self.level.value not in (0.0, 1.0):
            return None
        return "floor" if self.level.value == 0 else "ceiling"

    @property
    def advice(self) -> list[str]:
        """What a floor or a ceiling means, and what would help."""
        return [*self._of_endings, *self._of_level]

    @property
    def _of_endings(self) -> list[str]:
        """Where answers end by the model's default, which a task can say otherwise."""
        if not self.stop:
            return []
        ends = " or ".join(map(repr, self.stop))
        return [f"no chat template is around the prompt, so answers end before {ends}; stop: in a TASK.yaml says where"]

    @property
    def _of_level(self) -> list[str]:
        if self.stuck == "ceiling":
            return [
                f"{self.metric_name} is 1 on {self.counted}, its ceiling: a loss will show, a gain cannot",
                "to see gains: harder items",
            ]
        texts = [(item, item.answers[UNEDITED]) for item in self.answers.items]
        wrong = [(x.answer, item.references) for item, x in texts if not x.is_right and x.margins is None]
        alike = [any(compared(answer) == compared(reference) != "" for reference in wanted) for answer, wanted in wrong]
        others = [row for row, same in zip(wrong, alike, strict=True) if not same]
        begun = sum(any(begins_with(answer, reference) for reference in wanted) for answer, wanted in others)
        held = sum(any(holds(answer, reference) for reference in wanted) for answer, wanted in others)
        said = []
        same = 0 if self.metric_name == Vqa.metric_name else sum(alike)  # whose annotators may disagree
        if same:
            remedy = "metric: vqa_exact_match in a TASK.yaml"
            said.append(
                f"{same} of {self.items} answers are the wanted text but for marks, articles or number words: {remedy}"
            )
        if begun:
            remedy = "metric: prefix, or stop: where they should end, in a TASK.yaml"
            said.append(f"{begun} of {self.items} answers begin with the wanted text and go on: {remedy}")
        if held > begun:
            said.append(f"{held} of {self.items} answers hold the wanted text: metric: contains in a TASK.yaml")
        if self.stuck is None:
            return said if 2 * (same + held) > self.items and self.metric_name != Captioning.metric_name else []
        lines = [f"{self.metric_name} is 0 on {self.counted}, its floor: no head or neuron can lower it"]
        if any(x.rank is None and x.margins is None for _, x in texts):
            lines += said
            lines.append("look at the prompt: does it say how to answer, in the words of the references?")
        lines.append("to find heads all the same: hones heads --utility logprob, by log-probability of the answer")
        return lines

    def tables(self) -> list[Table]:
        """The metric in one row; then the answers."""
        columns = (
            Column("task", "task"),
            Column("metric_name", "metric", "metric"),
            Column("items", "items", "count"),
            Column("level", "value [95 %]", "interval", full="value"),
            *((Column("edited", "edited [95 %]", "interval", full="edited"),) if self.edited is not None else ()),
            *(
                (Column("change", "change [95 %]", "interval", "+.3f", bold="change", full="change"),)
                if self.change is not None
                else ()
            ),
        )
        return [Table("evaluation", f"{self.task}, {self.counted}", columns, [vars(self)]), *self.answers.tables()]

    @property
    def counted(self) -> str:
        """How many items."""
        whole = self.of in (None, self.items)
        if not whole:
            return f"the first {self.items} of {self.of} items"
        return f"{self.items} item{'' if self.items == 1 else 's'}"


def evaluate(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    edit: Intervention | None = None,
    *,
    sweep: SweepSettings | None = None,
    seed: int = 3407,
    split: str = "test",
    of: int | None = None,
) -> Evaluation:
    """Ask the unedited model, and the edited one where there is an edit, about every example.

    Args:
        split: what the items are called in the answers. of: how many there are, where these are the first.

    Raises:
        HonesError: no examples, or a site that the model lacks.
    """
    if not examples:
        raise HonesError("no items to ask about", expected="at least one")
    log = AnswerLog({UNEDITED: UNEDITED, EDITED: EDITED}.get)
    settings = replace(sweep or SweepSettings(), answers=log)
    arms = {UNEDITED: BASELINE} if edit is None else {UNEDITED: BASELINE, EDITED: edit}
    (measured,) = measure(vlm, [(task, examples)], arms, settings, seed=seed, progress=f"{task.name}: answers")
    answers = Answers(task.name, split, items_of(log.of[task.name], split, Path()), tuple(arms))
    return Evaluation(
        task=task.name,
        metric_name=task.metric_name,
        items=measured.items,
        level=measured.level(UNEDITED),
        edited=None if edit is None else measured.level(EDITED),
        change=None if edit is None else measured.difference(EDITED, UNEDITED),
        answers=answers,
        of=of,
        bounded=task.answers != "log_probability",
        stop=default_stop_of(vlm, task, examples),
    )
