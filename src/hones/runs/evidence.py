"""Which evidence of steering is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

from hones.data.items import Items
from hones.errors import HonesError
from hones.method.steering.controls import Steering
from hones.method.steering.settings import HONES
from hones.tasks.base import Task


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
