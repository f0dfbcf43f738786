"""The section `steering` of a configuration: the trainer's settings, and which evidence is wanted."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from hones.errors import HonesError
from hones.method.steering.settings import SteeringSettings
from hones.tasks import TASKS
from hones.tasks.loading import is_custom

if TYPE_CHECKING:
    from hones.method.steering.controls import Steering


def known_by(make: Callable[[str], object]) -> AfterValidator:
    """A name that `make` takes, or several, with commas between them."""

    def known(names: Any) -> Any:
        try:
            make(names if isinstance(names, str) else ",".join(names))
        except HonesError as error:
            raise ValueError(str(error)) from error
        return names

    return AfterValidator(known)


def _ways(names: str) -> "list[Steering]":
    """`make_steerings`, for which alone a configuration waits for torch."""
    from hones.runs.ways import make_steerings

    return make_steerings(names)


def _tasks(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in TASKS and not is_custom(name)]
    if unknown or len(set(names)) < len(names):
        raise ValueError(f"{', '.join(names)}; expected some of {', '.join(TASKS)} or tasks of your own, each once")
    return names


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{', '.join(map(str, seeds))}; expected each once")
    return seeds


class SteeringConfig(SteeringSettings):
    """Settings of the trainer, and of the evidence, which is left out unless one of the following is given.

    methods: ways to steer, see `hones.method.steering.controls`; default HONES alone. seeds: of the training, default
    its seed. also: tasks to test under the learned scales, default those of the run. ood, ood_images: annotation file
    and pictures of another source to test on.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1), known_by(_ways)] | None = Field(
        default=None, description="ways to steer, or [all]; null: hones alone", examples=[["all"]]
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)] | None = (
        Field(default=None, description="of the training; null: its seed", examples=[[3407, 3408]])
    )
    also: Annotated[tuple[str, ...], AfterValidator(_tasks)] | None = Field(
        default=None, description="other tasks to test under the learned scales; null: those of the run"
    )
    ood: Path | None = Field(default=None, description="annotations of another source to test on")
    ood_images: Path | None = Field(default=None, description="their pictures; null: images/ beside the file")

    @model_validator(mode="after")
    def _pictures_have_items(self) -> "SteeringConfig":
        if self.ood is None and self.ood_images is not None:
            raise ValueError(f"ood_images {self.ood_images} without ood; expected both")
        return self

    @property
    def sets(self) -> list[str]:
        """The compared methods whose sets are steered."""
        if self.methods is None:
            return []
        from hones.runs.ways import OtherSet

        return [way.method for way in _ways(",".join(self.methods)) if isinstance(way, OtherSet)]

    @property
    def training(self) -> SteeringSettings:
        """The trainer's settings alone."""
        return SteeringSettings(**self.model_dump(include=set(SteeringSettings.model_fields)))

    @property
    def wants_evidence(self) -> bool:
        """Whether more than HONES with one seed is wanted."""
        return any(getattr(self, name) is not None for name in ("methods", "seeds", "also", "ood"))


def as_steering_config(value: Any) -> Any:
    """Plain settings of the trainer as a section without evidence; anything else as it is."""
    plain = isinstance(value, SteeringSettings) and not isinstance(value, SteeringConfig)
    return value.model_dump(exclude_unset=True) if plain else value
