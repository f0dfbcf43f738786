"""Which evidence of steering is asked for, and that a run folder's evidence may grow but never shrink."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hones.data.items import Items
from hones.errors import HonesError
from hones.method.steering.controls import Steering
from hones.method.steering.settings import HONES
from hones.runs.stage import Stage
from hones.tasks.base import Task

GROWING = ("scales", "also", "ood")


@dataclass(frozen=True)
class EvidenceRequest:
    """What is measured. ways: HONES first. also: other tasks, on the test items. ood: items of another source."""

    ways: Sequence[Steering]
    seeds: tuple[int, ...]
    also: Sequence[Task] = ()
    ood: Items | None = None

    def check(self, task: Task) -> None:
        """Raises HonesError where it cannot be meant."""
        if [way.name for way in self.ways][:1] != [HONES]:
            raise HonesError("ways to steer without hones", expected="hones first: the others are compared with it")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise HonesError(f"seeds {', '.join(map(str, self.seeds))}", expected="distinct numbers from 0")
        names = [other.name for other in self.also]
        if task.name in names or len(set(names)) < len(names):
            raise HonesError(f"also {', '.join(names)}", expected=f"tasks other than {task.name}, each once")


def let_grow(stage: Stage, file: Path) -> None:
    """Forget evidence that is part of what is asked for now; what it holds beyond that is not thrown away.

    Raises:
        HonesError: the folder's evidence holds more ways, seeds or files than are asked for.
    """
    done = stage.workspace.run.record.stages.get(stage.name)
    if done is None or stage.workspace.fresh:
        return
    old = done.fingerprint
    new = json.loads(json.dumps(stage.inputs))
    missing = [name for key in GROWING for name in old[key] if name not in new[key]]
    if missing:
        raise HonesError(
            f"{file} also holds {', '.join(missing)}",
            expected="at least the ways, seeds, tasks and file that it was made with",
            do="name them too, or use a new --out",
        )
    same = all(old.get(key) == value for key, value in new.items() if key not in GROWING)
    kept = all(new[key][name] == value for key in GROWING for name, value in old[key].items())
    if same and kept and any(len(new[key]) > len(old[key]) for key in GROWING):
        stage.workspace.run.forget(stage.name)
