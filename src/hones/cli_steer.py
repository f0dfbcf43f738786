"""`hones steer` with evidence: which ways to steer are wanted, and their tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hones.cli_options import task_of
from hones.errors import HonesError

Methods = Annotated[
    str | None,
    typer.Option(
        help="Ways to steer with commas: hones, no-kl, rand-neuron, fixed-amp, grid-search, ia3, set:METHOD (the "
        "neurons that a method of `hones compare` selects), or all: those without a colon. [default: hones]"
    ),
]
Seeds = Annotated[
    str | None, typer.Option(help="Seeds of the training with commas; results are averaged. [default: --seed]")
]
Also = Annotated[str | None, typer.Option(help="Other tasks to test under the learned scales, with commas, or all.")]
Ood = Annotated[
    Path | None, typer.Option(help="Unified JSON file of another source to test on; nothing is learned there.")
]
OodImages = Annotated[Path | None, typer.Option(help="Folder of its pictures. [default: images/ beside the file]")]


@dataclass(frozen=True)
class Asked:
    """The options, as they were given."""

    methods: str | None
    seeds: str | None
    also: str | None
    ood: Path | None
    ood_images: Path | None

    def wanted(self, task, seed: int, ood, candidates: int):
        """What they ask for, checked; None where none was given."""
        if self.ood is None and self.ood_images is not None:
            raise HonesError(f"--ood-images {self.ood_images} without --ood", expected="both")
        if self.methods is self.seeds is self.also is self.ood is None:
            return None
        from hones.steering.controls import HONES, make_steerings
        from hones.steering.stage import Wanted
        from hones.tasks import TASKS

        seeds = (seed,) if self.seeds is None else _numbers(self.seeds)
        names = [] if self.also is None else self.also.split(",")
        if names == ["all"]:
            names = [name for name in TASKS if name != task.name]
        ways = make_steerings(HONES if self.methods is None else self.methods)
        wanted = Wanted(ways, seeds, [task_of(name, candidates) for name in names], ood)
        wanted.check(task)
        return wanted


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise HonesError(f"--seeds {text}", expected="whole numbers with commas") from error


def steer(study, task, splits, neurons: Path, settings, wanted) -> list:
    """Run the stage; returns its tables."""
    from hones.steering.stage import steer as steer_stage
    from hones.steering.tables import evidence_tables

    return evidence_tables(steer_stage(study, task, splits["dev"], splits["test"], neurons, settings, wanted))
