"""The four tasks by name, and custom ones from a YAML file or a class."""

from collections.abc import Iterable

from hones.errors import HonesError
from hones.tasks.base import Task
from hones.tasks.caption import Captioning
from hones.tasks.loading import is_custom, load_task
from hones.tasks.ocr import Ocr
from hones.tasks.retrieval import Retrieval
from hones.tasks.vqa import Vqa
from hones.tasks.words import PROMPTS, WordTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (Vqa, Ocr, Captioning, Retrieval)}
TASK_NAMES: tuple[str, ...] = tuple(TASKS)
WORD_TASK_NAMES: tuple[str, ...] = tuple(PROMPTS)
"""Of the built-in model without pictures, on the items of `hones.data.words`."""


def make_task(name: str, *, candidates: int = 50) -> Task:
    """The task of that name; `candidates` is the number of candidates of retrieval, the true one included.

    Args:
        name: vqa, ocr, caption, retrieval; one of `hones.tasks.words`; a YAML file; or a class as
            `package.module:Class` or `file.py:Class`.

    Raises:
        HonesError: no such task, or fewer than two candidates.
    """
    if is_custom(name):
        return load_task(name)
    if name in PROMPTS:
        return WordTask(name)
    if name not in TASKS:
        known = ", ".join((*TASKS, *PROMPTS))
        raise HonesError(f"no task {name!r}", expected=f"one of {known}, TASK.yaml or FILE.py:CLASS")
    return Retrieval(candidates) if name == Retrieval.name else TASKS[name]()


def make_tasks(names: str, *, candidates: int = 50) -> list[Task]:
    """Tasks with commas between them, or the four with `all`.

    Raises:
        HonesError: as `make_task`, or two tasks of one name.
    """
    tasks = [make_task(name, candidates=candidates) for name in (TASKS if names == "all" else names.split(","))]
    check_distinct(tasks)
    return tasks


def other_tasks(
    names: str | None, task: Task | None = None, *, several: Iterable[Task] = (), candidates: int = 50
) -> list[Task]:
    """The tasks that are measured beside one: as named with commas; all: the built-in ones but for itself; or none.

    Args:
        task: beside which; None where there are several.
        several: these, each of which is beside the others too; none: the four with pictures.

    Raises:
        HonesError: as `make_task`.
    """
    asked = [] if names is None else names.split(",")
    if asked == ["all"]:
        named = dict.fromkeys(name for one in several for name in names_beside(one)) or TASKS
        asked = [*named] if task is None else [name for name in names_beside(task) if name != task.name]
    return [make_task(name, candidates=candidates) for name in asked]


def names_beside(task: Task) -> tuple[str, ...]:
    """The built-in tasks whose items may be those of a task, itself among them: the four, or the four of words."""
    return WORD_TASK_NAMES if isinstance(task, WordTask) else TASK_NAMES


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
