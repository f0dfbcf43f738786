"""Steering with its controls and evidence as a stage of a run folder.

RUN/T/steering/WAY/scales.json, seed-N/scales.json   `hones.runs.scales_files`
RUN/T/steering/WAY/result.json                       the first seed on the test items
RUN/T/steering/evidence.json                         everything

Further ways, seeds, tasks or a file out of domain may be added later: what was learned stays.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from hones.data.items import Items
from hones.errors import HonesError
from hones.files import digest_of
from hones.method.steering.controls import HONES, Given, Steering
from hones.method.steering.evidence import Arm, evaluate_arms, measure_elsewhere, spread
from hones.method.steering.results import Evidence
from hones.method.steering.settings import Scales, SteeringSettings, training_record
from hones.method.steering.trainings import Begun, learn
from hones.runs.artifacts import read_result, write_result
from hones.runs.locks import alone_on
from hones.runs.prepared import Prepared
from hones.runs.scales_files import Steered, lessons, make_others, read_of, scales_files, scales_stage
from hones.runs.study import Study
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task

GROWING = ("scales", "also", "ood")


@dataclass(frozen=True)
class Wanted:
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


@alone_on(lambda task, *_, **__: [task.name])
def steer(
    study: Study,
    task: Task,
    dev: Items,
    test: Items,
    neurons_file: Path,
    settings: SteeringSettings,
    wanted: Wanted,
) -> Evidence:
    """Every way to steer, on the dev items, tested on the others; writes scales, results and evidence.json.

    Args:
        settings: of the trainer; each of the wanted seeds takes the place of its own.

    Raises:
        HonesError: something a way needs is missing; inputs other than those of an earlier run.
    """
    begun = begin(study, task, dev, test, neurons_file, settings, wanted)
    learn(study.vlm, begun.lessons, study.sweep.workers)
    return begun.end()


def begin(
    study: Study,
    task: Task,
    dev: Items,
    test: Items,
    neurons_file: Path,
    settings: SteeringSettings,
    wanted: Wanted,
) -> Begun[Evidence]:
    """`steer` up to the trainings, and what comes after them; the task's lock is the caller's."""
    wanted.check(task)
    neurons = study.sites(neurons_file)
    train, held_out = study.prepare(task, dev, "dev"), study.prepare(task, test, "test")
    methods = study.run.task(task.name) / "methods"
    given = Given(study.vlm, task, train.examples, neurons, settings, study.sweep, methods)
    for way in wanted.ways:
        way.check(given)
    others = [(other, study.prepare(other, test, "test")) for other in wanted.also]
    outside = None if wanted.ood is None else study.prepare(task, wanted.ood, "ood")
    steered = Steered(study, given, neurons_file, train, held_out)
    files, missing = scales_files(steered, wanted.ways, wanted.seeds)

    def evidence() -> Evidence:
        make_others(missing)
        return _evidence(steered, files, wanted.seeds, others, outside)

    return Begun(lessons(missing), evidence)


def _evidence(
    steered: Steered,
    files: dict[Steering, list[Path]],
    seeds: tuple[int, ...],
    others: Sequence[tuple[Task, Prepared]],
    outside: Prepared | None,
) -> Evidence:
    """Test everything, or read back what was tested."""
    study, task, stage = steered.study, steered.given.task, f"{steered.task}/evidence"
    file = steered.folder / "evidence.json"
    inputs = study.fingerprint(
        steered.held_out,
        neurons=digest_of(steered.neurons_file),
        max_scale=steered.given.settings.max_scale,
        scales={_place(steered, path): digest_of(path) for paths in files.values() for path in paths},
        also={other.name: prepared.fingerprint for other, prepared in others},
        ood={} if outside is None else outside.fingerprint,
        **study.swept(),
    )
    _let_grow(study, stage, inputs, file)
    if study.is_finished(stage, inputs):
        return read_result(file, Evidence)
    started = time.monotonic()
    arms = [Arm(way.name, tuple(read_of(study, path) for path in paths)) for way, paths in files.items()]

    def sweep(part: str) -> SweepSettings:
        return study.journalled(_journal(study, f"{task.name}.evidence.{part}", inputs), inputs)

    options = {"seed": study.seed}
    tested, first = evaluate_arms(
        study.vlm,
        task,
        steered.held_out.examples,
        arms,
        file=_file_name(steered.held_out),
        sweep=sweep("test"),
        **options,
    )
    jobs = [(other, prepared.examples) for other, prepared in others]
    elsewhere = measure_elsewhere(study.vlm, jobs, arms[0], sweep=sweep("also"), **options) if jobs else ()
    ood = None
    if outside is not None:
        name, swept = _file_name(outside), sweep("ood")
        ood, _ = evaluate_arms(study.vlm, task, outside.examples, arms, file=name, sweep=swept, **options)
    learned = [arm for arm, way in zip(arms, files, strict=True) if way.learned]
    spreads = tuple(spread(arm, steered.given.settings.max_scale) for arm in learned)
    evidence = Evidence(task.name, seeds, tested, elsewhere, ood, spreads)
    results = [paths[0].with_name("result.json") for paths in files.values()]
    hones = steered.inputs(steered.given.settings.model_copy(update={"seed": seeds[0]}))
    alone = study.is_finished(f"{task.name}/steer", hones)
    for path, arm in zip(results, arms, strict=True):
        if not (alone and arm.method == HONES):
            write_result(path, first[arm.method])
    if not alone:
        _finish_hones(steered, hones, seeds[0], started, files)
    write_result(file, evidence)
    more = {} if outside is None else {"ood": outside}
    study.finish(stage, inputs, started, [file, *results], dev=steered.train, test=steered.held_out, **more)
    for journal in [*study.journal_file("").parent.glob(f"{task.name}.evidence.*.jsonl")]:
        study.remove_journal(journal)
    return evidence


def _finish_hones(
    steered: Steered, inputs: dict[str, Any], seed: int, started: float, files: dict[Steering, list[Path]]
) -> None:
    """Record HONES's first seed as `Study.steer` would, so that `hones steer` alone finds it."""
    way, (scales, *_) = next((way, paths) for way, paths in files.items() if way.name == HONES)
    learned = steered.study.run.record.stages[scales_stage(steered.task, way, seed)].model_dump()
    details = {name: learned[name] for name in training_record(Scales({})) if name in learned}
    written = [scales, scales.with_name("result.json")]
    splits = {"dev": steered.train, "test": steered.held_out}
    steered.study.finish(f"{steered.task}/steer", inputs, started, written, **details, **splits)


def _let_grow(study: Study, stage: str, inputs: dict[str, Any], file: Path) -> None:
    """Forget evidence that is part of what is wanted now; what it holds beyond that is not thrown away.

    Raises:
        HonesError: the folder's evidence holds more ways, seeds or files than are wanted.
    """
    done = study.run.record.stages.get(stage)
    if done is None or study.fresh:
        return
    old, new = done.fingerprint, json.loads(json.dumps(inputs))
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
        study.run.forget(stage)


def _journal(study: Study, name: str, inputs: dict[str, Any]) -> Path:
    """One journal for these inputs: after a kill, ways may be added without losing what was learned."""
    digest = sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
    return study.journal_file(f"{name}.{digest}")


def _place(steered: Steered, file: Path) -> str:
    return str(file.relative_to(steered.folder))


def _file_name(prepared: Prepared) -> str:
    """A file with its folder, which often says where it is from."""
    return "" if prepared.file is None else "/".join(prepared.file.absolute().parts[-2:])
