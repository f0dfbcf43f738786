"""What a comparison method is: from a task's discovery items to a number for every neuron, larger is more important.

z[l,i] is the input of down_proj. All methods see the same items and are cut at the same budget (`select_neurons`), so
only what they measure differs. A neuron whose number is 0 or less is never selected. Where a method needs the
probability of the answer, it is that of the gold answer and its end token, teacher forced: the target of vqa and ocr,
the first caption, Yes to the true caption.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from hones.errors import HonesError, TaskStops
from hones.method.found import HeadScore
from hones.models.vlm import VLM
from hones.rivals.known import KNOWN
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example, Task

Importance = Float[np.ndarray, "layers neurons"]
"""A number for every neuron, larger is more important."""

OTHER_TASKS = ("others", "elsewhere")
"""The fields of `Context` that hold other tasks with their examples."""


@dataclass(frozen=True)
class Context:
    """What a method may use.

    examples: the task's discovery items. heads: the task's critical heads. others: the other tasks' examples on the
    same pictures; elsewhere: on other pictures, of tasks that have none on the same. hones: the importance that the
    method `hones` found, where it is known already. shared: what methods keep for the other tasks of the same
    comparison.
    """

    vlm: VLM
    task: Task
    examples: Sequence[Example]
    heads: Sequence[HeadScore] = ()
    others: Sequence[tuple[Task, Sequence[Example]]] = ()
    elsewhere: Sequence[tuple[Task, Sequence[Example]]] = ()
    seed: int = 3407
    sweep: SweepSettings = field(default_factory=SweepSettings)
    hones: Importance | None = None
    shared: dict[Any, Any] = field(default_factory=dict)

    @property
    def jobs(self) -> list[tuple[Task, Sequence[Example]]]:
        """The task and the other tasks, each with its examples."""
        return [(self.task, self.examples), *((task, e) for task, e in self.others if e)]


class Method(ABC):
    """One method: a name, a line about it, its source, and what it needs beside the items.

    takes_other_tasks: it uses what there is of them. drawn: it is random; a comparison takes several draws. most_cells:
    neurons times items beyond which it is refused. in_rounds: it closes its budget in rounds (`hones.rivals.rounds`).
    cut_by_items: it hands shards of items to the workers itself, and sums them in `context.sweep.running_sum`. A class
    takes these from `hones.rivals.known`, or says them itself.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_heads: ClassVar[bool] = False
    needs_other_tasks: ClassVar[bool] = False
    takes_other_tasks: ClassVar[bool] = False
    drawn: ClassVar[bool] = False
    most_cells: ClassVar[int | None] = None
    in_rounds: ClassVar[bool] = False
    cut_by_items: ClassVar[bool] = False

    def __init_subclass__(cls, known: str | None = None) -> None:
        """known: the method's name in `KNOWN`."""
        super().__init_subclass__()
        if known is None:
            return
        cls.name = known
        for attribute, value in vars(KNOWN[known]).items():
            setattr(cls, attribute, value)

    def check(self, context: Context) -> None:
        """Raises HonesError where the method lacks what it needs; called before anything is computed."""
        if self.needs_heads and not context.heads:
            raise HonesError(f"the method {self.name} needs critical heads", do="run `hones heads` first")
        if self.needs_other_tasks and not any(examples for _, examples in context.others):
            raise TaskStops(
                f"the method {self.name} needs other tasks about the pictures of {context.task.name}",
                expected="items annotated for two tasks or more",
            )
        cells = context.vlm.anatomy.total_neurons * len(context.examples)
        if self.most_cells is not None and cells > self.most_cells:
            raise HonesError(
                f"the method {self.name} on {len(context.examples):,} items takes {cells:,} answers",
                expected=f"at most {self.most_cells:,}: tiny models and few items only",
                do="lower --limit, or use atp, its first-order estimate",
            )

    @property
    def options(self) -> dict[str, Any]:
        """What its numbers depend on beside the context, for run.json and resume files."""
        return {}

    def with_schedule(self, **asked: int) -> "Method":
        """The method with so many rounds, of such a width, where it is `in_rounds`; else itself."""
        return self

    def for_budget(self, ratio: float) -> "Method":
        """The method for a share of all neurons; most rank for any, and are it themselves."""
        return self

    @abstractmethod
    def importance(self, context: Context) -> Importance:
        """Every neuron's number, float32 [L, I]."""
