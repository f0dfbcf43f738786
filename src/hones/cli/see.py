"""See: what the model says and how that scores, before anything is found and after everything that is done to it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hones.cli.options import AnswerOptions, Data, Ids, ItemOptions, ModelOptions, TaskName
from hones.cli.shown import ERR, OUT, name_prepared, say, warn
from hones.errors import HonesError, TaskStops

if TYPE_CHECKING:
    from hones.models.interventions import Intervention
    from hones.models.vlm import VLM
    from hones.runs.answer_table import Answers as RunAnswers
    from hones.runs.evaluation import Evaluation
    from hones.sharing.edits import EditNames

EXAMPLES = 3
"""Answers on the screen before a sweep."""

Rows = Annotated[int, typer.Option(min=0, help="Answers to show.")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE.csv", help="Write all answers as CSV too.")]


@dataclass(kw_only=True)
class Eval(ModelOptions, AnswerOptions, ItemOptions):
    """What the model says and how it scores: the first thing to look at. No sweep over heads or neurons.

    With --heads, --neurons or --scales the same items under that edit too: critical heads replaced, neurons masked,
    neurons scaled; several together are one edit.

    Example: hones eval --model tiny-llava --task vqa --data test.json --limit 20
    """

    task: TaskName
    data: Data
    ids: Ids = None
    heads: Annotated[Path | None, typer.Option(help="heads.json: replace its critical heads.")] = None
    neurons: Annotated[Path | None, typer.Option(help="neurons.json: mask its neurons.")] = None
    scales: Annotated[Path | None, typer.Option(help="scales.json: scale its neurons.")] = None
    rows: Rows = 10
    csv: Csv = None

    def execute(self) -> None:
        from hones.tasks import make_task

        task = make_task(self.task, candidates=self.candidates)
        self.names.check(task.name)  # a bad file is named before a model is loaded
        items = self.items(self.data, self.ids)

        from hones.runs.evaluation import evaluate
        from hones.runs.prepared import prepare

        sweep = self.sweep
        vlm = self.load()
        prepared = prepare(vlm, task, items, "given", sweep.max_new_tokens)
        name_prepared(task, prepared)
        if not prepared.examples:
            what = f"{self.data}: none of its {len(items)} items can be asked about for {task.name}"
            raise HonesError(what, do="see the reasons above, or `hones data check` of the file")
        edit = self.edit(vlm, task.name)
        found = evaluate(vlm, task, prepared.examples, edit, sweep=sweep, split="given")
        show_evaluation(found, self.rows)
        if self.csv is not None:
            write_csv(found.answers, self.csv)

    @property
    def names(self) -> "EditNames":
        """What is named to be edited."""
        from hones.sharing.edits import EditNames

        return EditNames(self.heads or (), () if self.neurons is None else (self.neurons,), self.scales)

    def edit(self, vlm: "VLM", task: str) -> "Intervention | None":
        """What is done to the model; None: nothing."""
        return self.names.of(vlm, task) if self.names else None


@dataclass(kw_only=True)
class Answers:
    """What the model said in the stages of a run: unedited, masked, steered; the items that changed first.

    Example: hones answers runs/a --task vqa --changed
    """

    run: Annotated[Path, typer.Argument(help="Run folder with answers.jsonl of one task or more.")]
    task: Annotated[str | None, typer.Option(help="Of one task. [default: of all]")] = None
    split: Annotated[str | None, typer.Option(help="discovery or test. [default: test where there is one]")] = None
    arms: Annotated[
        str | None, typer.Option(help="With commas, e.g. unedited,random. [default: unedited, masked, steered]")
    ] = None
    changed: Annotated[bool, typer.Option("--changed", help="Only items that an edit changes.")] = False
    wrong: Annotated[bool, typer.Option("--wrong", help="Only items that the unedited model gets wrong.")] = False
    rows: Rows = 20
    csv: Csv = None

    def execute(self) -> None:
        from hones.runs.answer_table import answers_of
        from hones.runs.answers import FILE
        from hones.tasks import in_order
        from hones.views.terminal import show

        if not self.run.is_dir():
            raise HonesError(f"no run folder {self.run}", expected="what `hones run` or the stages wrote")
        names = [self.task] if self.task is not None else in_order(x.parent.name for x in self.run.glob(f"*/{FILE}"))
        if not names:
            raise HonesError(f"{self.run} has no answers", do="run a stage, with --fresh where it has finished already")
        arms = () if self.arms is None else self.arms.split(",")
        several = []
        for name in names:
            answers = answers_of(self.run, name, self.split, arms)
            total = len(answers.items)
            chosen = answers.items
            if self.changed:
                chosen = answers.changed
            if self.wrong:
                wrong = {id(item) for item in answers.wrong}
                chosen = [item for item in chosen if id(item) in wrong]
            answers = replace(answers, items=chosen, shown=self.rows)
            several.append(answers)
            if not chosen:
                asked = " and ".join(word for word, on in (("changed", self.changed), ("wrong", self.wrong)) if on)
                say(f"{name}: none of {total} {answers.split} items is {asked}")
                continue
            OUT.print(show(*answers.tables()))
            if len(chosen) > self.rows:
                say(f"... and {len(chosen) - self.rows} more: --rows {len(chosen)}, or --csv FILE.csv")
        if self.csv is not None:
            write_csv(several, self.csv)


def write_csv(several: "RunAnswers | list[RunAnswers]", file: Path) -> None:
    """All answers as CSV, a row per item."""
    from hones.files import write_bytes
    from hones.views.sheet import answers_csv

    write_bytes(file, answers_csv(several if isinstance(several, list) else [several]).encode())
    say(f"written: {file}")


def show_evaluation(found: "Evaluation", rows: int) -> None:
    """The metric and some answers; what a floor or a ceiling means."""
    from hones.views.terminal import show

    level, *answers = replace(found, answers=replace(found.answers, shown=rows)).tables()
    OUT.print(show(level, *(answers if rows else ())))
    total = len(found.answers.items)
    if 0 < rows < total:
        say(f"... and {total - rows} more; changed and wrong ones stand first: --rows {total}, or --csv FILE.csv")
    for line in found.advice:
        warn(line)


def look_before(found: "Evaluation", stage: str, anyway: bool) -> None:
    """Before a stage: the baseline and some answers on standard error.

    Raises:
        TaskStops: the stage can find nothing, and was not asked for with --anyway: a loss where the metric is 0, a gain
            by steering where it is 1.
    """
    from hones.views.terminal import show

    title = f"{found.task} as the model is: {found.metric_name} {found.level:.3f} on {found.counted}"
    ERR.print(show(replace(found.answers.table(), title=title, caption="", shown=EXAMPLES)))
    for line in found.advice:
        warn(line)
    hopeless, change = ("ceiling", "gained") if stage == "steer" else ("floor", "lost")
    if found.stuck == hopeless and not anyway:
        what = f"{found.task}: {found.metric_name} is {found.level.value:g} on {found.counted}: nothing can be {change}"
        if found.of not in (None, found.items):
            what += " there"
        raise TaskStops(what, do="mend the task or its items as said above, or --anyway")
