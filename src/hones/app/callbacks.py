"""What the page does when one of its fields changes: values of fields in, values and changes of fields out.

An error of ours is one line in place of an answer.
"""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]  of an extra

from hones.app import shown
from hones.app.desk import Desk, Form, asks_text
from hones.errors import HonesError
from hones.method.analysis.explanation import Explanation
from hones.method.found import RankedNeurons
from hones.method.steering.settings import HONES
from hones.runs.answers import MASKED
from hones.tabular import table_html
from hones.tasks.asking import takes_box

NO_SCALES = "none"
QUESTION = "What colour is the star?"
"""An example of one."""
MOST_NEURONS = 15
FIELDS = ("model", "task", "picture", "text", "fields", "box", "heads", "neurons", "scales")
"""The components whose values make a `Form`, in this order."""


class Callbacks:
    """Of a page in front of a desk. model, task: those that are chosen first."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.model = next(iter(desk.specs))
        results = desk.offered.results
        of_run = [t.task for t in results.tasks if t.task in desk.offered.tasks] if results is not None else []
        self.task = next(iter(of_run), "vqa")

    def ask(self, *values: Any) -> tuple[Any, ...]:
        """Notice, answers, map, command, JSON, whether a question was asked, no maps over the picture any more, and no
        explanation, from the values of the fields, the explanation and whether a question was asked before.
        """
        *fields, _, _ = values
        return self._answer(form_of(*fields), None)

    def follow(self, *values: Any) -> tuple[Any, ...]:
        """The same for another edit: the model is asked if it has been before, and the explanation stays."""
        *fields, explanation, asked = values
        form = form_of(*fields)
        if asked:
            return self._answer(form, explanation)
        return gr.skip(), gr.skip(), self.map(form, explanation), "", "", False, "", explanation

    def _answer(self, form: Form, explanation: Explanation | None) -> tuple[Any, ...]:
        try:
            asked = self.desk.ask(form)
            drawn = self.map(form, explanation, shown.in_brief(asked))
            content = json.dumps(self.desk.json(form), indent=1)
            return "", shown.answers(asked), drawn, self.desk.command(form), content, True, "", explanation
        except HonesError as error:
            drawn = self.map(form, explanation)
            return shown.notice(str(error)), shown.answers(None), drawn, "", "", False, "", explanation

    def click(self, heads: Sequence[str], site: str) -> list[str]:
        """The heads after a click on one of the map."""
        return toggled(heads, site)

    def take(self, payload: dict[str, Any] | None) -> tuple[Any, ...]:
        """Path, picture, notice, whether asked, answers: of an upload, which may be anything."""
        if payload is None:
            return self.without_picture()
        path = str(payload["path"])
        try:
            self.desk.take(path)
        except HonesError as error:
            return None, None, shown.notice(str(error)), False, shown.answers(None)
        return path, gr.skip(), "", False, shown.answers(None)

    def without_picture(self) -> tuple[Any, ...]:
        """The same, where the picture was taken away."""
        return None, None, "", False, shown.answers(None)

    def text(self, task: str) -> dict[str, Any]:
        """The field of the question, as the task has one or not."""
        offer = self.desk.task(task)
        if asks_text(offer):
            return {"placeholder": QUESTION, "interactive": True}
        box = " Name the box below." if takes_box(offer.task) else ""
        return {"value": "", "placeholder": f"The task asks its own.{box}", "interactive": False}

    def choose_task(self, model: str, task: str, heads: Sequence[str]) -> tuple[Any, ...]:
        """Question, map, neurons and explanation for another task."""
        form = Form(model, task, heads=heads)
        return gr.Textbox(**self.text(task)), self.map(form), self.neurons(form), None

    def choose_model(self, model: str, task: str) -> tuple[Any, ...]:
        """Notice, heads, neurons, scales, map, explanation, whether asked, answers: for another model."""
        offered = self.desk.offered
        line = ""
        try:
            fits = self.desk.fits(model)
            sites = self.sites(model)
            drawn = self.map(Form(model, task))
            if not fits:
                line = f"{model} is not the model of the run: its head scores, neurons and scales are not offered"
        except HonesError as error:
            fits, sites, drawn, line = False, [], "", str(error)
        return (
            shown.notice(line),
            gr.Dropdown(choices=sites, value=[], multiselect=True),
            gr.CheckboxGroup(value=[], visible=fits and bool(offered.neurons)),
            gr.Radio(value=NO_SCALES, visible=fits and bool(offered.scales)),
            drawn,
            None,
            False,
            shown.answers(None),
        )

    def explain(self, *fields: Any) -> tuple[Any, ...]:
        """Notice, explanation, map and neurons of the answer to what the fields ask."""
        form = form_of(*fields)
        try:
            found = self.desk.explain(form)
        except HonesError as error:
            return shown.notice(str(error)), gr.skip(), gr.skip(), gr.skip()
        return "", found, self.map(form, found), self.neurons(form, found)

    def where(self, *fields: Any) -> tuple[str, Any]:
        """Notice, and the maps over the picture of what the fields ask."""
        try:
            return "", shown.where(self.desk.where(form_of(*fields)))
        except HonesError as error:
            return shown.notice(str(error)), ""

    def choose_item(self, model: str, index: int) -> tuple[Any, ...]:
        """The fields of an item of the gallery, with the neurons masked or the scales on that change its answer.

        Path, picture, notice, whether it can be asked, then task, question, fields, box, heads, neurons, scales, the
        table of neurons and no explanation, which was of another question.
        """
        offered = self.desk.offered
        chosen = offered.changed[index]
        question = chosen.question
        try:
            if question is None:
                raise HonesError(f"{chosen.task} makes its own prompts: its items cannot be asked about here")
            picture = None if chosen.picture is None else self.desk.take(chosen.picture, question.read_box)
        except HonesError as error:
            return (None, None, shown.notice(str(error)), False, *[gr.skip()] * 9)
        fits = self.desk.fits(model)
        masks = [name for name in offered.neurons if fits and name.startswith(f"{chosen.task}: ")]
        masks = masks if chosen.item.changed([MASKED]) else []
        steered = f"{chosen.task}: {HONES}"
        scales = steered if fits and not masks and steered in offered.scales else NO_SCALES
        path = None if chosen.picture is None else str(chosen.picture)
        text = gr.Textbox(**self.text(chosen.task) | {"value": question.text})
        fields = "\n".join(question.fields)
        table = self.neurons(Form(model, chosen.task))
        return path, picture, "", True, chosen.task, text, fields, question.box, [], masks, scales, table, None

    def map(self, form: Form, explanation: Explanation | None = None, brief: str = "") -> str:
        """The map of heads: shaded by one answer, by the run where it is of the model, or not at all.

        brief: the answers in one line.
        """
        results = self.desk.offered.of(form.task)
        of_run = results.heads if results is not None and self.desk.fits(form.model) else None
        shading = explanation or of_run or self.desk.head_counts(form.model)
        return shown.head_buttons(form.task, shading, {site_of(head) for head in form.heads}, brief)

    def sites(self, model: str) -> list[str]:
        """Every head as LAYER.HEAD."""
        return [f"{layer}.{head}" for layer, head in self.desk.vlm(model).anatomy.head_sites]

    def neurons(self, form: Form, explanation: Explanation | None = None) -> str:
        """The neurons that an answer's heads feed, or those of the run where it is of the model."""
        if explanation is not None:
            return table_html(explanation.table("neurons"), MOST_NEURONS)
        results = self.desk.offered.of(form.task)
        if results is None or results.neurons is None or not self.desk.fits(form.model):
            return shown.empty(f"{form.task}: there is no run that has neurons of this task for {form.model}.")
        return table_html(RankedNeurons(results.neurons).table(), MOST_NEURONS)

    def gallery(self) -> str:
        """The items of the run whose answer its edits change; empty where there are none."""
        results, changed = self.desk.offered.results, self.desk.offered.changed
        return "" if results is None or not changed else shown.gallery(changed, results.folder)


def form_of(*values: Any) -> Form:
    """The form that the values of `FIELDS` make."""
    given: dict[str, Any] = dict(zip(FIELDS, values, strict=True))
    empty = {"text": "", "fields": "", "box": "", "heads": (), "neurons": ()}
    for name, value in empty.items():
        given[name] = value if given[name] is None else given[name]  # None: gradio, of what is not filled
    given["scales"] = None if given["scales"] == NO_SCALES else given["scales"]
    return Form(**given)


def toggled(heads: Sequence[str], site: str) -> list[str]:
    """The heads with this one, or without it where it was; in order."""
    if site in heads:
        return [head for head in heads if head != site]
    return sorted((*heads, *([site] if site else [])), key=site_of)


def site_of(head: str) -> tuple[int, int]:
    """(layer, head) of LAYER.HEAD."""
    layer, index = head.split(".")
    return int(layer), int(index)
