"""Tasks of a run that cannot go on: named, recorded in run.json, shown in the report; the other tasks go on.

A task stops where its own items or its own results leave nothing to do (`TaskStops`): no head lowers its metric, no
item is annotated for it. What concerns the whole run (model, disk, items that cannot be used) stops the run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from hones.errors import HonesError, TaskStops
from hones.log import LOG
from hones.runs.record import RunFolder


@dataclass(frozen=True)
class Stopped:
    """A task, the stage in which it stopped, and why."""

    task: str
    stage: str
    why: str

    def __str__(self) -> str:
        return f"{self.task} stopped at {self.stage}: {self.why}"


@dataclass
class Stops:
    """The tasks of one run that have stopped. on_stopped hears of each as it stops."""

    run: RunFolder
    on_stopped: Callable[[Stopped], None] | None = None
    stopped: list[Stopped] = field(default_factory=list)

    @contextmanager
    def of(self, task: str, stage: str) -> Iterator[None]:
        """A stage of a task; if it stops the task, that is recorded and `TaskStops` goes on."""
        try:
            yield
        except TaskStops as error:
            found = Stopped(task, stage, str(error))
            LOG.error("%s", found, exc_info=True)
            self.run.stop(task, asdict(found))
            self.stopped.append(found)
            if self.on_stopped is not None:
                self.on_stopped(found)
            raise

    def check(self) -> None:
        """Raises HonesError naming every task that has stopped."""
        if self.stopped:
            raise HonesError("; ".join(map(str, self.stopped)), do="the other tasks have run to their end")
