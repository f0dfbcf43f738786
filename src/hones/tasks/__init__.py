"""The four tasks by name, and custom ones from a YAML file or a class."""

from collections.abc import Iterable

from hones.errors import HonesError
from hones.tasks.base import Task
from hones.tasks.caption import Captioning
from hones.tasks.loading import is_custom, load_task
from hones.tasks.ocr import Ocr
from hones.tasks.retrieval import Retrieval
from hones.tasks.vqa import Vqa

TASKS: dict[str, type[Task]] = {task.name: task for task in (Vqa, Ocr, Captioning, Retrieval)}
TASK_NAMES: tuple[str, ...] = tuple(TASKS)


def make_task(name: str, *, candidates: int = 50) -> Task:
    """The task of that name; `candidates` is the number of candidates of retrieval, the true one included.

    Args:
        name: vqa, ocr, caption, retrieval; a YAML file; or a class as `package.module:Class` or `file.py:Class`.

    Raises:
        HonesError: no such task, or fewer than two candidates.
    """
    if is_custom(name):
        return load_task(name)
    if name not in TASKS:
        raise HonesError(f"no task {name!r}", expected=f"one of {', '.join(TASKS)}, TASK.yaml or FILE.py:CLASS")
    return Retrieval(candidates) if name == Retrieval.name else TASKS[name]()


def make_tasks(names: str, *, candidates: int = 50) -> list[Task]:
    """Tasks with commas between them, or the four with `all`.

    Raises:
        HonesError: as `make_task`, or two tasks of one name.
    """
    tasks = [make_task(name, candidates=candidates) for name in (TASKS if names == "all" else names.split(","))]
    check_distinct(tasks)
    return tasks


def other_tasks(names: str | None, task: str, *, candidates: int = 50) -> list[Task]:
    """The tasks that are measured beside one: as named with commas; all: the built-in ones but for itself; or none.

    Raises:
        HonesError: as `make_task`.
    """
    asked = [] if names is None else names.split(",")
    if asked == ["all"]:
        asked = [name for name in TASKS if name != task]
    return [make_task(name, candidates=candidates) for name in asked]


def check_distinct(tasks: Iterable[Task]) -> None:
    """Raises HonesError where two tasks have one name and so one folder."""
    seen: set[str] = set()
    for task in tasks:
        if task.name.lower() in seen:
            raise HonesError(f"two tasks are named {task.name}", expected="each task once")
        seen.add(task.name.lower())


def in_order(names: Iterable[str]) -> list[str]:
    """Task names without repetition: the four in their order, then custom ones by name."""
    return sorted(set(names), key=lambda name: (TASK_NAMES.index(name) if name in TASKS else len(TASKS), name))
