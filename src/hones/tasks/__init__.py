"""The four tasks by name."""

from hones.errors import HonesError
from hones.tasks.base import Example, Task
from hones.tasks.caption import Captioning
from hones.tasks.ocr import Ocr
from hones.tasks.retrieval import Retrieval
from hones.tasks.vqa import Vqa

__all__ = ["TASKS", "TASK_NAMES", "Example", "Task", "make_task"]

TASKS: dict[str, type[Task]] = {task.name: task for task in (Vqa, Ocr, Captioning, Retrieval)}
TASK_NAMES: tuple[str, ...] = tuple(TASKS)


def make_task(name: str, *, candidates: int = 50) -> Task:
    """The task of that name; `candidates` is the number of candidates of retrieval, the true one included.

    Raises:
        HonesError: no such task, or fewer than two candidates.
    """
    if name not in TASKS:
        raise HonesError(f"no task {name!r}", expected=f"one of {', '.join(TASKS)}")
    return Retrieval(candidates) if name == Retrieval.name else TASKS[name]()
