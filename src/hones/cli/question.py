"""The options of a command that asks one question."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from hones.cli.shown import name_remarks


@dataclass(kw_only=True)
class QuestionOptions:
    """One question in the words of a task, without an annotation file."""

    question: Annotated[
        str | None, Argument(help="What to ask: it fills the one field of the task's prompt that is not given.")
    ] = None
    image: Annotated[Path | None, Option(help="The picture. [default: the question alone]")] = None
    task: Annotated[
        str, Option(help="How to ask: vqa, ocr, caption, retrieval (a candidate), TASK.yaml or FILE.py:CLASS.")
    ] = "vqa"
    field: Annotated[
        list[str] | None, Option(metavar="NAME=VALUE", help="Another field of the task's prompt; repeatable.")
    ] = None
    box: Annotated[
        str | None, Option(metavar="X,Y,W,H", help="The box to outline, in pixels; for ocr and tasks with a box.")
    ] = None

    def asked(self) -> dict[str, Any]:
        """The task, fields and box as `ask` and `explain` take them, checked before a model is loaded."""
        from hones.data.pictures import remarks_of
        from hones.data.unified import LeftOut
        from hones.tasks import make_task
        from hones.tasks.asking import ask_as, read_box, read_fields

        fields = read_fields(self.field or ())
        box = None if self.box is None else read_box(self.box)
        task = make_task(self.task)
        opened = ask_as(task, self.image, self.question, fields, box).open_picture()
        if opened is not None and self.image is not None:
            name_remarks([LeftOut(self.image.name, reason, kind) for kind, reason in remarks_of(opened)])
        return {"task": task, "fields": fields, "box": box}
