"""One question in the words of a task, without an annotation file: what `hones ask` and `hones explain` ask.

A prompt is a template: the question fills its one field that is not given by name. vqa has the field question,
retrieval candidate (one caption, answered Yes or No); ocr, caption and a YAML task whose prompt has no field ask their
own. A task that is a Python class makes its prompt of an item, which holds the named fields and the picture.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

from hones.data.names import place_of
from hones.data.unified import LeftOut, parse_rows
from hones.errors import BadItem, HonesError
from hones.tasks import caption, ocr, retrieval, vqa
from hones.tasks.base import Example, Task
from hones.tasks.custom import FieldTask
from hones.tasks.fields import paths_in

PROMPTS: dict[type[Task], str] = {
    vqa.Vqa: vqa.PROMPT,
    ocr.Ocr: ocr.PROMPT,
    caption.Captioning: caption.PROMPT,
    retrieval.Retrieval: retrieval.PROMPT,
}
ID = "question"

Box = tuple[float, float, float, float]


def ask_as(
    task: Task,
    picture: str | Path | None,
    question: str | None,
    fields: Mapping[str, str] | None = None,
    box: Box | None = None,
) -> Example:
    """The question as the task asks it, without target and references.

    Args:
        picture: None: the prompt alone, for vqa and for tasks that show none.
        question: what fills the field of the prompt that is not given; None for a prompt that has none left.
        fields: values of fields of the prompt by their paths; of an item, where the task is a Python class.
        box: [x, y, width, height] to outline in blue, for ocr and tasks with a box.

    Raises:
        HonesError: a field without a value or the other way round, a picture that is missing, not wanted or cannot be
            read, a box for a task without one.
    """
    given = {name: value.strip() for name, value in (fields or {}).items()}
    if question is not None and not question.strip():
        raise HonesError(f"the question {question!r} is empty", expected="what to ask about the picture")
    empty = next((name for name, value in given.items() if not value), None)
    if empty is not None:
        raise HonesError(f"--field {empty} is empty", expected="its value")
    template = template_of(task)
    boxed = takes_box(task)
    if box is not None and not boxed:
        raise HonesError(f"a box for {task.name}", expected="a box for ocr, or a task that outlines one")
    image = None if picture is None else place_of(picture)
    if template is None:
        example = _of_class(task, image, question, given)
    else:
        prompt = _filled(task, template, question, given)
        if isinstance(task, FieldTask):
            prompt = task.file.asked(prompt)  # some without the model's template
        example = Example(ID, image, (prompt,), "", (), box)
        hidden = isinstance(task, FieldTask) and task.file.picture == "none"
        if image is None and not hidden and not isinstance(task, vqa.Vqa):
            raise HonesError(f"no picture for {task.name}", expected="the one to ask about, with --image")
        if isinstance(task, FieldTask) and boxed and box is None:
            raise HonesError(f"no box for {task.name}", expected="the one to outline, with --box X,Y,W,H")
        if hidden and image is not None:
            raise _not_shown(task)
    try:
        example.open_picture()
    except BadItem as error:
        raise HonesError(str(error), expected="a picture") from error
    return example


def read_fields(given: Iterable[str]) -> dict[str, str]:
    """Fields of a prompt, as NAME=VALUE.

    Raises:
        HonesError: one is of another form, or a name stands twice.
    """
    fields: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or name.strip() in fields:
            raise HonesError(f"--field {text}", expected="NAME=VALUE, each name once")
        fields[name.strip()] = value
    return fields


def read_box(given: str) -> Box:
    """A box, as X,Y,W,H.

    Raises:
        HonesError: it is of another form.
    """
    try:
        x, y, width, height = (float(part) for part in given.split(","))
    except ValueError as error:
        raise HonesError(f"--box {given}", expected="four numbers X,Y,W,H") from error
    return (x, y, width, height)


def template_of(task: Task) -> str | None:
    """The prompt with its fields; None for a Python class, which makes its own."""
    return task.file.prompt if isinstance(task, FieldTask) else PROMPTS.get(type(task))


def fields_in(task: Task, prompt: str) -> dict[str, str] | None:
    """What the fields of a prompt of the task are filled with, by their paths; None where it is no such prompt.

    The way back from `ask_as`, for prompts that a run has kept. Where several fields leave room for more than one
    reading, the first ones are as short as they can be.
    """
    template = template_of(task)
    if template is None:
        return None
    groups: dict[str, str] = {}
    pattern = ""
    for text, name, _, _ in Formatter().parse(template):
        pattern += re.escape(text)
        if name is None:
            continue
        pattern += f"(?P={groups[name]})" if name in groups else f"(?P<f{len(groups)}>.+?)"
        groups.setdefault(name, f"f{len(groups)}")
    found = re.fullmatch(pattern, prompt, re.DOTALL)
    return None if found is None else {name: found[group] for name, group in groups.items()}


def takes_box(task: Task) -> bool:
    """Whether the task outlines a box in the picture."""
    return task.file.box is not None if isinstance(task, FieldTask) else isinstance(task, ocr.Ocr)


def _not_shown(task: Task) -> HonesError:
    return HonesError(f"a picture for {task.name}", expected="none: the task shows none")


def _filled(task: Task, template: str, question: str | None, given: dict[str, str]) -> str:
    """The template with its values."""
    names = [*dict.fromkeys(paths_in(template))]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        there = ", ".join(names) or "none"
        raise HonesError(f"--field {unknown}: no field of the prompt of {task.name}", expected=there)
    left = [name for name in names if name not in given]
    if question is None and left:
        by_name = " ".join(f"--field {name}=VALUE" for name in left)
        raise HonesError(
            f"no question for {task.name}", expected=f"what its prompt has at {', '.join(left)}", do=by_name
        )
    if question is not None and not left:
        raise HonesError(f"a question with {task.name}", expected="none: the task asks its own")
    if question is not None and len(left) > 1:
        raise HonesError(
            f"one question for {len(left)} fields of the prompt of {task.name}: {', '.join(left)}",
            expected="one that is not named",
            do=f"name the others: --field {left[0]}=VALUE",
        )
    if question is not None:
        given = {**given, left[0]: question.strip()}
    parts = Formatter().parse(template)
    return "".join(text + ("" if name is None else given[name]) for text, name, _, _ in parts)


def _of_class(task: Task, image: Path | None, question: str | None, given: dict[str, str]) -> Example:
    """What a Python class asks about an item with these fields."""
    if question is not None:
        raise HonesError(
            f"a question with {task.name}",
            expected="none: a Python class makes its prompt of an item's fields",
            do="name the field that it reads: --field vqa.question=VALUE",
        )
    row: dict[str, Any] = {"item_id": ID}
    for path, value in given.items():
        *folders, name = path.split(".")
        place = row
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise HonesError(f"--field {path} beside --field {folder}", expected="one of them")
        place[name] = value
    if image is not None:
        row |= {"image_id": ID, "image_info": {"file_name": image.name}}
    (item,) = parse_rows([row])
    if isinstance(item, LeftOut):
        raise HonesError(f"{task.name} cannot be asked so: {item.reason}", do="mend --field")
    try:
        example = task.example(item, Path() if image is None else image.parent)
    except BadItem as error:
        raise HonesError(
            f"{task.name} cannot be asked so: {error}", do="give what its items hold: --field NAME=VALUE, --image"
        ) from error
    if len(example.prompts) != 1:
        raise HonesError(f"{task.name} has {len(example.prompts)} prompts for an item", expected="one to ask")
    if image is not None and example.image is None:
        raise _not_shown(task)
    return replace(example, target="", references=())
