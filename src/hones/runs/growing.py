"""What a finished stage may have more of: evidence of steering and the other tasks of a mask grow, never shrink."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hones.data.items import Items
from hones.errors import HonesError
from hones.runs.former import as_recorded
from hones.runs.stage import Stage, Workspace
from hones.sweep.run import Job
from hones.tasks.base import Task

ALSO = "also"


def let_grow(stage: Stage, file: Path, growing: Sequence[str]) -> None:
    """Forget a result that is part of what is asked for now; what it holds beyond that is not thrown away.

    Args:
        growing: those of the stage's inputs that may have more entries than before.

    Raises:
        HonesError: the result holds more of these than is asked for.
    """
    done = stage.workspace.run.record.stages.get(stage.name)
    if done is None or stage.workspace.fresh:
        return
    old = done.fingerprint
    new = json.loads(json.dumps(as_recorded(stage.workspace.vlm, stage.inputs, old)))
    before, after = ({key: of.get(key, {}) for key in growing} for of in (old, new))
    missing = [name for key in growing for name in before[key] if name not in after[key]]
    if missing:
        raise HonesError(
            f"{file} also holds {', '.join(missing)}",
            expected="at least the ways, seeds, tasks and file that it was made with",
            do="name them too, or use a new --out",
        )
    same = all(old.get(key) == value for key, value in new.items() if key not in growing)
    kept = all(after[key][name] == value for key in growing for name, value in before[key].items())
    if same and kept and any(len(after[key]) > len(before[key]) for key in growing):
        stage.workspace.run.forget(stage.name)


def other_jobs(study: Workspace, task: Task, also: Sequence[Task], test: Items) -> tuple[list[Job], dict[str, Any]]:
    """The other tasks that a mask is tested on too, and what the stage depends on because of them.

    Raises:
        HonesError: one of them is the task itself. TaskStops: items that a task cannot use.
    """
    if task.name in [other.name for other in also]:
        raise HonesError(f"also {task.name}", expected=f"tasks other than {task.name}")
    prepared = {other.name: study.prepare(other, test, "test") for other in also}
    jobs: list[Job] = [(other, prepared[other.name].examples) for other in also]
    return jobs, {ALSO: {name: items.fingerprint for name, items in prepared.items()}} if also else {}


def let_others_grow(stage: Stage, file: Path) -> None:
    """`let_grow` of the other tasks; where none is asked, a finished result stays with those that it has.

    Raises:
        HonesError: as `let_grow`.
    """
    done = stage.workspace.run.record.stages.get(stage.name)
    if ALSO in stage.inputs:
        let_grow(stage, file, (ALSO,))
    elif done is not None and ALSO in done.fingerprint and not stage.workspace.fresh:
        stage.inputs[ALSO] = done.fingerprint[ALSO]
        if not stage.is_finished():  # its file is gone
            del stage.inputs[ALSO]


def without_others(stage: Stage) -> dict[str, Any]:
    """What the sweep of the task itself depends on."""
    return {key: value for key, value in stage.inputs.items() if key != ALSO}
