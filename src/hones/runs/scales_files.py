"""The scales files of a task's steering: what each way and seed needs, and what is not there yet.

RUN/T/steering/WAY/scales.json           of the first seed; each is a finished stage of its own, so a killed run goes on
RUN/T/steering/WAY/seed-N/scales.json    of every further seed

WAY is a name of `hones.method.steering.controls`, a dash for its colon. HONES's first seed is what `hones steer` alone makes,
and is taken from there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hones.files import digest_of
from hones.method.steering.controls import HONES, Given, Learned, Made, Steering
from hones.method.steering.settings import Scales, SteeringSettings, training_record
from hones.method.steering.trainings import Lesson, Trained
from hones.runs.artifacts import read_scales, write_scales
from hones.runs.prepared import Prepared
from hones.runs.study import Study


@dataclass(frozen=True)
class Steered:
    """A task's inputs."""

    study: Study
    given: Given
    neurons_file: Path
    train: Prepared
    held_out: Prepared

    @property
    def task(self) -> str:
        return self.given.task.name

    @property
    def folder(self) -> Path:
        return self.study.run.task(self.task) / "steering"

    def inputs(self, settings: SteeringSettings) -> dict[str, Any]:
        """Those of HONES's result, as `Study.steer` records them."""
        return self.study.steered(self.train, self.held_out, self.neurons_file, settings)


@dataclass(frozen=True)
class Making:
    """One scales file that is not there yet."""

    steered: Steered
    way: Steering
    given: Given
    file: Path

    @property
    def stage(self) -> str:
        return scales_stage(self.steered.task, self.way, self.given.settings.seed)

    @property
    def inputs(self) -> dict[str, Any]:
        place = str(self.file.relative_to(self.steered.study.run.path))
        found = {"method": self.way.name, "neurons": digest_of(self.steered.neurons_file), "file": place}
        return self.steered.study.fingerprint(self.steered.train, **found, **self.way.depends(self.given))

    @property
    def journal(self) -> Path:
        return self.steered.study.journal_file(self.stage.replace("/", "."))

    def learned(self, trained: Trained) -> None:
        """Write what a training learned."""
        made = Made(trained.scales, training_record(trained.scales))
        self.finish(made, time.monotonic() - trained.seconds)

    def finish(self, made: Made, started: float) -> None:
        """Write the file and record it."""
        study = self.steered.study
        write_scales(self.file, made.scales)
        study.finish(self.stage, self.inputs, started, [self.file], dev=self.steered.train, **made.details)
        study.remove_journal(self.journal)
        study.remove_journal(self.journal.with_suffix(".safetensors"))


def scales_files(
    steered: Steered, ways: Sequence[Steering], seeds: Sequence[int]
) -> tuple[dict[Steering, list[Path]], list[Making]]:
    """The scales files of every way, one per seed or one where it is not learned; and those that are not there yet."""
    files: dict[Steering, list[Path]] = {}
    missing = []
    for way in ways:
        folder = steered.folder / folder_name(way.name)
        files[way] = [folder / "scales.json"]
        if way.learned:
            files[way] += [folder / f"seed-{seed}" / "scales.json" for seed in seeds[1:]]
        for seed, file in zip(seeds, files[way], strict=False):
            settings = steered.given.settings.model_copy(update={"seed": seed})
            by_itself = way.name == HONES and file == files[way][0]
            if by_itself and steered.study.is_finished(f"{steered.task}/steer", steered.inputs(settings)):
                continue
            one = Making(steered, way, replace(steered.given, settings=settings), file)
            if not steered.study.is_finished(one.stage, one.inputs):
                missing.append(one)
    return files, missing


def lessons(missing: Sequence[Making]) -> list[Lesson]:
    """The trainings among what is missing; each file is written as soon as it is learned."""
    found = []
    for one in missing:
        if isinstance(one.way, Learned):
            checkpoint = one.steered.study.checkpoint_file(one.stage.replace("/", "."))
            training = one.way.training(replace(one.given, checkpoint=checkpoint))
            found.append(Lesson(one.given.task, one.given.examples, training, one.learned))
    return found


def make_others(missing: Sequence[Making]) -> None:
    """Make and write what is missing and is not learned, one after the other."""
    for one in missing:
        if not isinstance(one.way, Learned):
            started, sweep = time.monotonic(), one.steered.study.journalled(one.journal, one.inputs)
            one.finish(one.way.make(replace(one.given, sweep=sweep)), started)


def folder_name(way: str) -> str:
    """The folder of a way: its name with a dash for the colon."""
    return way.replace(":", "-")


def scales_stage(task: str, way: Steering, seed: int) -> str:
    """The name of the stage that makes a way's scales of a seed."""
    return f"{task}/steer/{folder_name(way.name)}/{f'seed-{seed}' if way.learned else 'scales'}"


def read_of(study: Study, file: Path) -> Scales:
    """Scales with the epoch that run.json says they are of."""
    scales, place = read_scales(file), str(file.relative_to(study.run.path))
    for site in scales.values:
        study.vlm.anatomy.check_neuron(*site)
    stages = study.run.record.stages.values()
    return replace(scales, epoch=next((stage.epoch for stage in stages if place in stage.artifacts), None))
