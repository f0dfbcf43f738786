"""One question as the page holds it, and the options of `hones ask` that ask it."""

from dataclasses import dataclass
from pathlib import Path

from hones.tasks import make_task
from hones.tasks.asking import Box, ask_as, fields_in, read_box, read_fields, takes_box
from hones.tasks.base import Example, Task


@dataclass(frozen=True)
class Question:
    """A question about a picture, or about none, in the words of a task.

    task: as --task names it. text: what fills the field of its prompt that is not given. fields: others, NAME=VALUE.
    box: X,Y,W,H, in pixels.
    """

    task: str = "vqa"
    picture: Path | None = None
    text: str = ""
    fields: tuple[str, ...] = ()
    box: str = ""

    @property
    def read_fields(self) -> dict[str, str]:
        """The fields by name.

        Raises:
            HonesError: one is no NAME=VALUE.
        """
        return read_fields(self.fields)

    @property
    def read_box(self) -> Box | None:
        """The box; None where there is none.

        Raises:
            HonesError: it is no X,Y,W,H.
        """
        return read_box(self.box) if self.box.strip() else None

    @property
    def asked(self) -> str | None:
        """The text; None where there is none."""
        return self.text.strip() or None

    def example(self, task: Task | None = None) -> Example:
        """The question as the task asks it.

        Args:
            task: where it is made already.

        Raises:
            HonesError: as `hones.tasks.asking.ask_as`.
        """
        task = make_task(self.task) if task is None else task
        return ask_as(task, self.picture, self.asked, self.read_fields, self.read_box)

    def options(self) -> list[str]:
        """The options of `hones ask`, the question last."""
        words = [] if self.picture is None else ["--image", str(self.picture)]
        words += [] if self.task == "vqa" else ["--task", self.task]
        for field in self.fields:
            words += ["--field", field]
        words += ["--box", self.box.strip()] if self.box.strip() else []
        text = self.asked
        if text is not None and text.startswith("-"):
            words.append("--")  # a question that begins like an option
        return words + ([] if text is None else [text])


def question_of(task: Task, named: str, prompt: str, picture: Path | None, box: Box | None) -> Question | None:
    """The question that a run has asked an item, from its prompt; None for a task that makes its own prompts.

    Args:
        named: the task as --task names it.
    """
    fields = fields_in(task, prompt)
    if fields is None:
        return None
    first = next(iter(fields.items()), None)
    others = tuple(f"{name}={value}" for name, value in fields.items() if first is None or name != first[0])
    outlined = "" if box is None or not takes_box(task) else ",".join(f"{x:g}" for x in box)
    return Question(named, picture, "" if first is None else first[1], others, outlined)
