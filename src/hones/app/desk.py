"""What the page asks for, as plain functions of plain values: one model at a time, one request after the other.

An edit lives in hooks on the model, so two requests at once would see each other's: a lock keeps them apart, however
many pages are open. The model that was asked last stays loaded; a page that asks another one waits for it to load.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock

import numpy as np
from PIL import Image

from hones.app.edit import Edit
from hones.app.offered import Offered, TaskOffer
from hones.app.question import Question
from hones.data.pictures import open_picture
from hones.errors import BadItem, HonesError
from hones.method.analysis.explain import explain
from hones.method.analysis.explanation import Explanation
from hones.method.analysis.picture_map import PictureMap
from hones.method.analysis.where import drop_map, layout_of
from hones.models.interventions import BASELINE
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.runs.former import is_revision
from hones.sharing.ask import Asked, ask
from hones.sweep.names import MAX_NEW_TOKENS
from hones.sweep.run import SweepSettings
from hones.tasks.asking import Box, template_of
from hones.tasks.fields import paths_in
from hones.views.overlay import overlay

NEURONS_OF_ANSWER = 12


@dataclass(frozen=True)
class Form:
    """What stands in the page's fields.

    task: its name among those offered. fields: NAME=VALUE, one a line. heads: LAYER.HEAD. neurons, scales: what the
    page calls them.
    """

    model: str
    task: str = "vqa"
    picture: str | None = None
    text: str = ""
    fields: str = ""
    box: str = ""
    heads: Sequence[str] = ()
    neurons: Sequence[str] = ()
    scales: str | None = None


class Desk:
    """The models that can be asked, what a run offers, and the answers.

    Args:
        specs: the models, the first one loaded first.
        offered: of the run folder, or of none.
    """

    def __init__(self, specs: Sequence[ModelSpec], offered: Offered, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.offered = offered
        self.max_new_tokens = max_new_tokens
        self.lock = RLock()
        self._loaded: tuple[str, VLM] | None = None
        self._fits: dict[str, bool] = {}

    def vlm(self, model: str) -> VLM:
        """A model, loaded unless it is already.

        Raises:
            HonesError: it is none of those that can be asked, or cannot be loaded.
        """
        with self.lock:
            if self._loaded is None or self._loaded[0] != model:
                if model not in self.specs:
                    raise HonesError(f"no model {model!r} on this page", expected=f"one of {', '.join(self.specs)}")
                self._loaded = None  # so that two models never share the memory
                self._loaded = (model, self.specs[model].load())
            return self._loaded[1]

    def fits(self, model: str) -> bool:
        """Whether the run's heads, neurons and scales are of this model, as far as run.json says."""
        if model not in self._fits:
            stages = self.offered.record.stages.values()
            revisions = {str(stage.fingerprint["revision"]) for stage in stages if "revision" in stage.fingerprint}
            vlm = self.vlm(model)
            self._fits[model] = not revisions or any(is_revision(vlm, revision) for revision in revisions)
        return self._fits[model]

    def head_counts(self, model: str) -> tuple[int, ...]:
        """How many heads each of its decoder's layers has."""
        return self.vlm(model).anatomy.head_counts

    def task(self, name: str) -> TaskOffer:
        """A task that is offered.

        Raises:
            HonesError: it is not.
        """
        offers = self.offered.tasks
        if name not in offers:
            raise HonesError(f"no task {name!r} on this page", expected=f"one of {', '.join(offers)}")
        return offers[name]

    def question(self, form: Form) -> Question:
        """The question that the fields make.

        Raises:
            HonesError: the task needs a text and there is none.
        """
        offer = self.task(form.task)
        lines = tuple(line.strip() for line in form.fields.splitlines() if line.strip())
        question = Question(
            task=offer.given,
            picture=None if form.picture is None else Path(form.picture),
            text=form.text if asks_text(offer) else "",
            fields=lines,
            box=form.box,
        )
        left = [name for name in paths_in(template_of(offer.task) or "") if name not in question.read_fields]
        if left and question.asked is None:
            raise HonesError("there is no question yet", expected=f"a text for {', '.join(left)}")
        return question

    def edit(self, form: Form) -> Edit:
        """The edit that the fields make.

        Raises:
            HonesError: a head, a neuron set or scales that the run does not offer.
        """
        heads = [tuple(map(int, head.split("."))) for head in form.heads]
        return Edit(
            heads=tuple(sorted((layer, head) for layer, head in heads)),
            neurons=tuple(_named(self.offered.neurons, name, "neuron set") for name in form.neurons),
            scales=None if form.scales is None else _named(self.offered.scales, form.scales, "scales"),
        )

    def ask(self, form: Form) -> Asked:
        """The answers of the model as it is and, with an edit, of the edited one.

        Raises:
            HonesError: something in the fields cannot be asked or done; the line says what.
        """
        offer, question, edit = self.task(form.task), self.question(form), self.edit(form)
        with self.lock:
            vlm = self.vlm(form.model)
            return ask(
                vlm,
                question.picture,
                question.asked,
                edit=edit.intervention(vlm, offer.task.name),
                task=offer.task,
                fields=question.read_fields,
                box=question.read_box,
                max_new_tokens=self.max_new_tokens,
            )

    def explain(self, form: Form) -> Explanation:
        """The heads that the unedited model's answer hangs on, and the neurons they feed.

        Raises:
            HonesError: as `ask`, or the answer is empty.
        """
        offer, question = self.task(form.task), self.question(form)
        with self.lock:
            return explain(
                self.vlm(form.model),
                question.picture,
                question.asked,
                task=offer.task,
                fields=question.read_fields,
                box=question.read_box,
                neurons=NEURONS_OF_ANSWER,
                where=False,
                settings=SweepSettings(max_new_tokens=self.max_new_tokens),
            )

    def where(self, form: Form) -> list[tuple[PictureMap, Image.Image]]:
        """What each model's own answer loses without a patch of the picture, and that over the picture, on one scale.

        Raises:
            HonesError: as `ask`, there is no picture, an answer is empty, or it is not known where the patches stand.
        """
        offer, question = self.task(form.task), self.question(form)
        example = question.example(offer.task)
        picture = example.open_picture()
        if picture is None:
            raise HonesError("there is no picture yet", expected="one to show where in it the answer comes from")
        with self.lock:
            asked = self.ask(form)
            vlm = self.vlm(form.model)
            layout = layout_of(vlm, example)
            edits = (BASELINE, self.edit(form).intervention(vlm, offer.task.name))
            maps = []
            for reply, edit in zip(asked.replies, edits, strict=False):  # without an edit there is one reply
                if not reply.answer:
                    raise HonesError("the answer is empty", expected="one that comes from somewhere in the picture")
                answered = replace(example, target=reply.answer, references=(reply.answer,))
                with edit.on(vlm.model):
                    maps.append(drop_map(vlm, answered, layout=layout))
        largest = max(float(np.nanmax(np.abs(of.values), initial=0)) for of in maps) or None
        return [(of, overlay(picture, of.values, of.box, largest)) for of in maps]

    def take(self, file: str | Path, box: Box | None = None) -> Image.Image:
        """A picture as the model gets it: upright, RGB, with the box outlined.

        Raises:
            HonesError: it is no picture, or too large; the line has its name alone.
        """
        path = Path(file)
        with self.lock:  # reading turns Python's warnings, which all threads share, into errors
            try:
                return open_picture(path, box)
            except BadItem as error:
                raise HonesError(str(error).replace(str(path), path.name), do="choose another file") from error

    def command(self, form: Form) -> str:
        """The `hones ask` that does the same."""
        edit, question = self.edit(form), self.question(form)
        return edit.as_command(self.specs[form.model], question, self.max_new_tokens)

    def json(self, form: Form) -> dict[str, object]:
        """The question and the edit, with every neuron and scale."""
        return self.edit(form).as_json(self.specs[form.model], self.question(form))


def asks_text(offer: TaskOffer) -> bool:
    """Whether the task's prompt has a field that a question can fill."""
    return bool(paths_in(template_of(offer.task) or ""))


def _named(there: dict[str, Path], name: str, what: str) -> Path:
    if name not in there:
        raise HonesError(f"no {what} {name!r} in the run", expected=f"one of {', '.join(there) or 'none'}")
    return there[name]
