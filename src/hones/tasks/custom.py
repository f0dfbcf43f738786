"""Custom tasks in a few lines of YAML.

    name: pope                                       # also the name of the task's folder
    prompt: "Is there a {pope.object} in the image?\\nAnswer Yes or No."     # fields of the item in braces
    target: pope.answer                              # the answer that attribution looks at
    metric: yes_no_accuracy                          # how answers are scored, one of METRICS
    references: pope.answer                          # what they are scored against; default: the target
    answers: yes_no                                  # text (default), or the logits of Yes and No
    picture: none                                    # the prompt alone, no picture; default: the item's is shown
    template: none                                   # the model goes on with the prompt itself; default: its template
    lead: ""                                         # between such a prompt and its answer; default: a space
    stop: ["\\n", "Question:"]                       # an answer ends before the first of these; default: the model's
    pattern: "answer is (\\\\w+)"                       # picks what is scored from the answer; default: all of it
    box: ocr.bbox                                    # outlined in blue; default: none
    max_items: 500                                   # the first usable ones; default: all

Fields are dotted paths (`hones.tasks.fields`). What a task says is part of what its results depend on: a finished stage
of a task that has changed since is refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hones.data.items import Items
from hones.data.unified import Item, LeftOut
from hones.errors import BadItem, HonesError, from_validation
from hones.files import digest, read_yaml
from hones.tasks.base import (
    Answer,
    AnswerKind,
    BarePrompt,
    Definition,
    Example,
    Metric,
    Task,
    best_constant,
    examples_of,
    picture_of,
)
from hones.tasks.caption import Captioning
from hones.tasks.fields import PATH, fill, numbers_at, paths_in, text_at, values_at
from hones.tasks.matching import Choice, Contains, ExactMatch, Number, Prefix, Regex, VqaExactMatch
from hones.tasks.ocr import Ocr, check_box, size_of
from hones.tasks.picking import check_pattern, picked
from hones.tasks.vqa import Vqa
from hones.tasks.yes_no import YesNoAccuracy, YesNoF1

_MATCHING: tuple[Metric, ...] = (ExactMatch(), Contains(), Prefix(), Choice(), Number(), Regex(), VqaExactMatch())
_OTHERS: tuple[Metric, ...] = (Vqa(), Ocr(), Captioning(), YesNoAccuracy(), YesNoF1())
METRICS: dict[str, Metric] = {metric.metric_name: metric for metric in (*_MATCHING, *_OTHERS)}
RESERVED = ("vqa", "ocr", "caption", "retrieval", "all", "analysis", "journal", "figures", "data")
ADDED = {"picture": "shown", "template": "model"}
"""Keys younger than the first runs, with the value at which a task is what it was without them."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_name(name: str) -> str:
    """The name, if a folder of a run can have it.

    Raises:
        ValueError: it cannot, or it is taken.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a folder of a run: letters, digits, - and _, at most 64")
    if name.lower() in RESERVED:
        raise ValueError(f"the name {name!r} is taken")
    return name


def _check_template(template: str) -> str:
    paths_in(template)
    if not template.strip():
        raise ValueError("it is empty")
    return template


def _check_path(path: str) -> str:
    if not PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no field such as vqa.answer")
    return path


def _check_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"no metric {name!r}, there are {', '.join(METRICS)}")
    return name


def _check_stop(stop: str) -> str:
    if not stop:
        raise ValueError("an empty text, at which every answer would end before it begins")
    if re.fullmatch(r"(\\[nrt])+", stop):
        raise ValueError(f'a backslash and {stop[1:]!r}; YAML reads a line\'s end in double quotes: "{stop}"')
    return stop


FieldPath = Annotated[str, AfterValidator(_check_path)]
Stop = Annotated[str, AfterValidator(_check_stop)]


class TaskFile(BaseModel):
    """What a task's YAML says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(check_name)]
    prompt: Annotated[str, AfterValidator(_check_template)]
    target: FieldPath
    metric: Annotated[str, AfterValidator(_check_metric)]
    references: FieldPath | None = None
    answers: Literal["text", "yes_no"] = "text"
    picture: Literal["shown", "none"] = "shown"
    template: Literal["model", "none"] = "model"
    lead: str | None = None
    stop: Annotated[tuple[Stop, ...], BeforeValidator(lambda x: [x] if isinstance(x, str) else x)] | None = None
    pattern: Annotated[str, AfterValidator(check_pattern)] | None = None
    box: FieldPath | None = None
    max_items: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "TaskFile":
        if self.answers == "yes_no" and not self.metric.startswith("yes_no"):
            raise ValueError(f"answers: yes_no cannot be scored by {self.metric}, but by yes_no_accuracy or yes_no_f1")
        if self.stop is not None and self.answers == "yes_no":
            raise ValueError("stop with answers: yes_no, which are not written: leave out one of them")
        if self.pattern is None and self.metric == Regex.metric_name:
            raise ValueError('metric: regex without a pattern, which picks the answer: pattern: "answer is (.*)"')
        if self.pattern is not None and self.metric.startswith("yes_no"):
            raise ValueError(f"a pattern with {self.metric}, which reads whole answers: leave it out")
        if self.box is not None and self.picture == "none":
            raise ValueError("a box without a picture: leave out box, or picture: none")
        if self.template == "none":
            self._check_bare()
        elif self.lead is not None:
            raise ValueError("a lead with the model's template, whose answers start as the model starts them")
        return self

    def _check_bare(self) -> None:
        """Raises ValueError for what the model's template is needed for."""
        if self.picture != "none":
            raise ValueError("template: none shows no picture; it needs picture: none")
        if self.answers == "yes_no":
            raise ValueError("answers: yes_no reads how the model goes on after its template; it needs answers: text")
        if self.prompt[-1:].isspace() and self.lead != "":
            raise ValueError('a prompt that ends in white space is followed by more of it; end it before, or lead: ""')

    def asked(self, text: str) -> str:
        """A filled-in prompt as the model is to be asked it."""
        if self.template == "model":
            return text
        return BarePrompt(text) if self.lead is None else BarePrompt(text, self.lead)


class FieldTask(Task):
    """A task that a YAML file says.

    Args:
        file: its content.
        given: how the user named it.
    """

    def __init__(self, file: TaskFile, given: str) -> None:
        self.file = file
        self.metric = METRICS[file.metric]
        self.name = file.name  # pyright: ignore[reportAttributeAccessIssue]
        self.answers: AnswerKind = file.answers  # pyright: ignore[reportIncompatibleVariableOverride]
        self.metric_name = file.metric  # pyright: ignore[reportAttributeAccessIssue]
        self.statistic_names = self.metric.statistic_names  # pyright: ignore[reportAttributeAccessIssue]
        self.stop = file.stop  # pyright: ignore[reportAttributeAccessIssue]
        without = {key for key in ADDED if getattr(file, key) == ADDED[key]}
        content = file.model_dump(mode="json", exclude_none=True, exclude=without)
        meant = json.dumps(content | _meaning(self.metric), sort_keys=True)
        self.definition = Definition(given, digest(meant.encode()), content)

    @property
    def _describes(self) -> bool:
        """Whether the target is several references, as that of captions is."""
        return isinstance(self.metric, Captioning)

    def example(self, item: Item, images: Path) -> Example:
        """The item with its fields in the prompt; for BLEU-4, the target is all texts at its path.

        Raises:
            BadItem: a field is missing, empty or of the wrong kind; there is no picture; the box cannot be drawn.
        """
        file = self.file
        texts = values_at(item, file.target) if self._describes else [text_at(item, file.target)]
        target = " ".join(self.metric.references_among(texts))
        return Example(
            id=item.id,
            image=None if file.picture == "none" else picture_of(item, images),
            prompts=(file.asked(fill(file.prompt, item)),),
            target=target.capitalize() if file.answers == "yes_no" else target,
            references=self.metric.references_among(values_at(item, file.references or file.target)),
            box=None if file.box is None else _box(item, file.box),
            size=None if file.box is None else size_of(item.image_info),
        )

    def examples(self, items: Items) -> tuple[list[Example], list[LeftOut]]:
        """The first `max_items` usable items in order, and those left out before the last of them."""
        return examples_of(items, lambda item: self.example(item, items.images), self.file.max_items)

    def statistics(self, example: Example, answer: Answer) -> Float[np.ndarray, " k"]:
        """Those of the metric, of what the pattern picks where there is one."""
        if self.file.pattern is not None and isinstance(answer, str):
            answer = picked(self.file.pattern, answer)
        return self.metric.statistics(example, answer)

    def guess(self, examples: Sequence[Example]) -> float:
        """The score of the best answer that does not depend on the picture, as if the pattern had picked it."""
        return best_constant(self.metric, examples)

    def score(self, sums: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """The metric, in [0, 1]; NaN where no item was summed."""
        return self.metric.score(sums)

    def score_alone(self, statistics: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch"]:
        """As the metric."""
        return self.metric.score_alone(statistics)

    def details(self, sums: Float[np.ndarray, " k"]) -> dict[str, float]:
        """Those of the metric."""
        return self.metric.details(sums)

    def token_weights(self, targets: Sequence[Sequence[int]]) -> list[Float[np.ndarray, " tokens"]]:
        """Those of the metric."""
        return self.metric.token_weights(targets)

    def answers_to_learn(self, example: Example) -> tuple[str, ...]:
        """The references for BLEU-4, else the target."""
        return example.references if self._describes else (example.target,)


def _meaning(metric: Metric) -> dict[str, int]:
    """Which meaning of a metric's name a digest is of; nothing for its first, as in older run folders."""
    return {} if metric.meaning == 1 else {"meaning": metric.meaning}


def task_of_content(content: Any, given: str) -> FieldTask:
    """The task of a YAML file's content.

    Raises:
        HonesError: a key is missing, unknown or of the wrong kind.
    """
    if not isinstance(content, Mapping):
        raise HonesError(f"{given} holds a {type(content).__name__}", expected="keys: name, prompt, target, metric")
    try:
        return FieldTask(TaskFile.model_validate(dict(content)), given)
    except ValidationError as error:
        raise from_validation(error, given, keys=TaskFile, do="see docs/tasks.md") from error


def task_of_file(given: str) -> FieldTask:
    """The task of a YAML file.

    Raises:
        HonesError: no such file, not YAML, or not a task.
    """
    file = Path(given)
    content = read_yaml(file, "keys: name, prompt, target, metric", "check --task", what="the task ")
    return task_of_content(content, given)


def _box(item: Item, path: str) -> tuple[float, float, float, float]:
    numbers = numbers_at(item, path)
    if len(numbers) != 4:
        raise BadItem(f"its box {path} has {len(numbers)} numbers, four are needed: x, y, width, height")
    x, y, width, height = numbers
    check_box((x, y, width, height), item.image_info)
    return x, y, width, height
