"""What a plan is asked for: a run's configuration, and what it is to run on."""

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from hones.errors import HonesError, first_invalid
from hones.method.budget import DEFAULT_RATIO
from hones.runs.config import Count, DataFiles, RunConfig
from hones.tasks import make_task


class PlannedFiles(DataFiles):
    """The annotation file of each split; all but discovery may be missing."""

    dev: Path | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    test: Path | None = None  # pyright: ignore[reportIncompatibleVariableOverride]


class Request(RunConfig):
    """Everything that a forecast depends on; `out` does not matter.

    racing: least and most share of the cells that a race is supposed to run; None: no scenario. memory: GiB of a
    device, None: this device's. tflops: reached on a device elsewhere. calibrate: measure this device now. load:
    minutes to load a copy. stand_in: plan for files that are not there yet (`hones.runs.plan.absent`).
    """

    out: Path = Path()
    data: PlannedFiles  # pyright: ignore[reportIncompatibleVariableOverride]
    racing: tuple[float, float] | None = None
    gpus: Count = 1
    memory: float | None = None
    tflops: float | None = None
    calibrate: bool = False
    load: float = Field(default=0.0, ge=0)
    stand_in: bool = False

    def model_post_init(self, _: Any) -> None:
        """Raises HonesError for sizes that mean nothing."""
        if self.memory is not None and not self.memory > 0:
            raise HonesError(f"--memory {self.memory:g}", expected="the GiB of one device, above 0")
        if self.tflops is not None and self.calibrate:
            raise HonesError("--tflops and --calibrate", expected="one of them: a given rate, or this device's")
        if self.racing is not None and not 0 < self.racing[0] <= self.racing[1] <= 1:
            shares = "{:g}-{:g}".format(*self.racing)
            raise HonesError(f"--racing-share {shares}", expected="a share of the cells such as 0.1-0.2")

    @property
    def files(self) -> dict[str, Path | None]:
        """The annotation file of each split."""
        return {**{name: getattr(self.data, name) for name in ("discovery", "dev", "test")}, "ood": self.steering.ood}

    @property
    def planned_ratio(self) -> float:
        """The share of neurons; of auto it is not known before."""
        return DEFAULT_RATIO if self.ratio is None else self.ratio

    @property
    def measured_too(self) -> set[str]:
        """Names of the tasks that are measured under the masks of the others."""
        names = self.tasks if self.also is None else self.also
        return {make_task(name, candidates=self.candidates).name for name in names}

    @property
    def tested_too(self) -> set[str]:
        """Names of the tasks that the learned scales of the others are tested on."""
        also = self.steering.also if self.steering.also is not None else self.tasks
        names = also if self.steering.wants_evidence else ()
        return {make_task(name, candidates=self.candidates).name for name in names}


def make_request(**options: Any) -> Request:
    """A request from options.

    Raises:
        HonesError: an option that is out of range.
    """
    try:
        return Request.model_validate(options)
    except ValidationError as error:
        raise HonesError(str(first_invalid(error))) from error
