"""Step 4 as a stage of a run folder: each way to steer is learned on the dev items, all are tested on the others.

RUN/T/steering/WAY/scales.json           of the first seed; adapter.safetensors where that is learned in their place
RUN/T/steering/WAY/seed-N/...            of every further seed
RUN/T/steering/WAY/result.json           the first seed on the test items
RUN/T/steering/evidence.json             everything, where more than plain HONES is asked for

WAY is a name of `hones.method.steering.controls`, a dash for its colon. Plain HONES is one stage, T/steer. With
evidence, each scales file is a finished stage of its own, so a killed run goes on; HONES's first seed is what T/steer
has made, or leaves T/steer as if it had. Further ways, seeds, tasks or a file out of domain may be added later: what
was learned stays.
"""

import json
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from hones.data.items import Items
from hones.files import digest_of
from hones.method.steering.controls import CONTROLS, Learned, Steering, SteeringContext
from hones.method.steering.evaluate import SteeringResult, edit_of, evaluate_scales
from hones.method.steering.evidence import Arm, evaluate_arms, measure_elsewhere, spread
from hones.method.steering.pairs import make_plan
from hones.method.steering.results import Evidence
from hones.method.steering.settings import HONES, Scales, SteeringSettings, TrainingSummary, training_record
from hones.method.steering.trainings import Trained, TrainingJob, learn
from hones.models.sites import Site
from hones.runs.answers import STEERED
from hones.runs.artifacts import read_heads, read_result, write_result, write_scales
from hones.runs.evidence import EvidenceRequest
from hones.runs.found_on import check_found_on
from hones.runs.growing import let_grow
from hones.runs.locks import alone
from hones.runs.scales_files import ADAPTER, SCALES, ScalesFile, folder_name, read_learned, write_learned
from hones.runs.stage import Stage, Workspace
from hones.stats import UNEDITED
from hones.sweep.answer_log import AnswerLog
from hones.tasks.base import Task


@dataclass(frozen=True)
class SteeringOutcome:
    """What HONES's first seed changes on the test items, and the evidence if it was asked for."""

    result: SteeringResult
    evidence: Evidence | None = None


def steer(
    study: Workspace,
    task: Task,
    dev: Items,
    test: Items,
    neurons_file: Path,
    settings: SteeringSettings | None = None,
    request: EvidenceRequest | None = None,
) -> SteeringOutcome:
    """Every way to steer, on the dev items, tested on the others; writes scales, results and evidence.json.

    Args:
        settings: of the trainer; each of the request's seeds takes the place of its own.
        request: the evidence; None: plain HONES.

    Raises:
        HonesError: something a way needs is missing; inputs other than those of an earlier run.
    """
    with alone(study.run.path, [task.name]):
        steering = TaskSteering(study, task, dev, test, neurons_file, settings, request)
        learn(study.vlm, steering.jobs, study.sweep.workers)
        return steering.finish()


class TaskSteering:
    """One task's steering, in two steps: the training jobs that it lacks, which may run beside those of other tasks,
    and `finish` after them. The task's lock is the caller's.
    """

    def __init__(
        self,
        study: Workspace,
        task: Task,
        dev: Items,
        test: Items,
        neurons_file: Path,
        settings: SteeringSettings | None = None,
        request: EvidenceRequest | None = None,
    ) -> None:
        self.study = study
        self.task = task
        settings = settings or SteeringSettings(seed=study.seed)
        self.evidence = request is not None
        self.request = request or EvidenceRequest([CONTROLS[HONES]], (settings.seed,))
        self.request.check(task)
        neurons = study.sites(neurons_file, task.name)
        self.neurons_digest = digest_of(neurons_file)
        self.train = study.prepare(task, dev, "dev")
        self.settings = settings.for_steps(len(make_plan(task, self.train.examples, settings).steps))
        self.held_out = study.prepare(task, test, "test")
        self.folder = study.run.path / task.name / "steering"
        methods = study.run.path / task.name / "methods"
        self.context = SteeringContext(
            study.vlm, task, self.train.examples, neurons, self.settings, study.sweep, methods, heads=self._heads()
        )
        for way in self.request.ways:
            way.check(self.context)
        self.others = [(other, study.prepare(other, test, "test")) for other in self.request.also]
        self.outside = None if self.request.ood is None else study.prepare(task, self.request.ood, "ood")
        # T/steer, of HONES's first seed
        self.plain = study.stage(
            f"{task.name}/steer",
            self.held_out,
            neurons=self.neurons_digest,
            dev=self.train.fingerprint,
            settings=self._with_seed(self.request.seeds[0]).model_dump(exclude_none=True),
            **study.swept(),
        )
        self.plain_is_finished = self.plain.is_finished()
        self.plain_training: Trained | None = None
        self.files = [file for way in self.request.ways for file in self._files_of(way)]
        finished = [self.plain_is_finished if x.stage is None else x.stage.is_finished() for x in self.files]
        self.missing = [file for file, there in zip(self.files, finished, strict=True) if not there]
        self.jobs = [self._job(file, file.way) for file in self.missing if isinstance(file.way, Learned)]

    def finish(self) -> SteeringOutcome:
        """What comes after the jobs: the scales that are not learned, and the tests.

        Raises:
            TaskStops: one of the trainings could not be.
        """
        for job in self.jobs:
            job.check()
        if not self.evidence:
            return SteeringOutcome(self._test_plain())
        for file in self.missing:
            if file.stage is not None and not isinstance(file.way, Learned):
                started = time.monotonic()
                made = file.way.make(replace(file.context, sweep=file.stage.journalled()))
                self._write(file.stage, file.file, made.scales, time.monotonic() - started, made.details)
        evidence = self._test_all()
        return SteeringOutcome(read_result(self.folder / HONES / "result.json", SteeringResult), evidence)

    def _with_seed(self, seed: int) -> SteeringSettings:
        return self.settings.model_copy(update={"seed": seed})

    def _heads(self) -> list[Site]:
        """The critical heads that the run found for the task; none where no way needs them, or none were found."""
        file = self.study.run.path / self.task.name / "heads.json"
        if not any(way.needs_heads for way in self.request.ways) or not file.is_file():
            return []
        check_found_on(self.study.vlm, file)
        return [(head.layer, head.head) for head in read_heads(file).critical]

    def _files_of(self, way: Steering) -> list[ScalesFile]:
        """One per seed, or one where the way is not learned."""
        name = folder_name(way.name)
        found = []
        for number, seed in enumerate(self.request.seeds if way.learned else self.request.seeds[:1]):
            place = self.folder / name / (f"seed-{seed}" if number else "") / (SCALES if way.shared else ADAPTER)
            context = replace(self.context, settings=self._with_seed(seed))
            first_of_hones = way.name == HONES and number == 0
            if first_of_hones and (self.plain_is_finished or not self.evidence):
                found.append(ScalesFile(way, context, place))
                continue
            inputs = {
                "method": way.name,
                "neurons": self.neurons_digest,
                "file": str(place.relative_to(self.study.run.path)),
                **way.depends(context),
            }
            step = f"seed-{seed}" if way.learned else "scales"
            stage = self.study.stage(f"{self.plain.name}/{name}/{step}", self.train, **inputs)
            found.append(ScalesFile(way, context, place, stage))
        return found

    def _job(self, file: ScalesFile, way: Learned) -> TrainingJob:
        """The training of a scales file, which is written as soon as it has ended; plain HONES waits for its test."""
        stage = file.stage

        def take(trained: Trained) -> None:
            if stage is None:
                self.plain_training = trained
            else:
                self._write(stage, file.file, trained.scales, trained.seconds, training_record(trained.scales))

        checkpoint = (stage or self.plain).resume_file(".safetensors")
        return way.job(replace(file.context, checkpoint=checkpoint), take)

    def _write(self, stage: Stage, file: Path, scales: Scales, seconds: float, details: dict[str, Any]) -> None:
        write_learned(file, scales)
        stage.finish([file], seconds, dev=self.train, **details)

    def _test_plain(self) -> SteeringResult:
        """Plain HONES on the test items."""
        files = [self.folder / HONES / "scales.json", self.folder / HONES / "result.json"]
        trained = self.plain_training
        if trained is None:
            return read_result(files[1], SteeringResult)
        started = time.monotonic() - trained.seconds
        study = self.study
        examples = self.held_out.examples
        log = AnswerLog({UNEDITED: UNEDITED, STEERED: STEERED}.get)
        sweep = replace(study.sweep, answers=log)
        result = evaluate_scales(study.vlm, self.task, examples, trained.scales, sweep=sweep, seed=study.seed)
        study.keep_answers(self.task, "test", log, lambda arm: arm == STEERED)
        write_scales(files[0], trained.scales)
        write_result(files[1], result)
        record = training_record(trained.scales)
        self.plain.finish(files, time.monotonic() - started, **record, dev=self.train, test=self.held_out)
        return result

    def _test_all(self) -> Evidence:
        """Every way, seed, task and file; or what was measured of them."""
        study = self.study
        file = self.folder / "evidence.json"
        stage = study.stage(
            f"{self.task.name}/evidence",
            self.held_out,
            neurons=self.neurons_digest,
            max_scale=self.settings.max_scale,
            scales={str(x.file.relative_to(self.folder)): digest_of(x.file) for x in self.files},
            also={other.name: prepared.fingerprint for other, prepared in self.others},
            ood={} if self.outside is None else self.outside.fingerprint,
            **study.swept(),
        )
        let_grow(stage, file, ("scales", "also", "ood"))
        if stage.is_finished():
            return read_result(file, Evidence)
        results = [self.folder / folder_name(way.name) / "result.json" for way in self.request.ways]
        splits = {"dev": self.train, "test": self.held_out}
        if self.outside is not None:
            splits["ood"] = self.outside
        with stage.writing(file, *results, **splits):
            started = time.monotonic()
            evidence, of_ways = self._measure(stage)
            for way, place in zip(self.request.ways, results, strict=True):
                if not (self.plain_is_finished and way.name == HONES):
                    write_result(place, of_ways[way.name])
            first = self.files[0]
            if first.stage is not None:
                # recorded as T/steer would, so that `hones steer` alone finds it
                record = study.run.record.stages[first.stage.name].model_dump()
                details = {name: record[name] for name in training_record(Scales({})) if name in record}
                seconds = time.monotonic() - started
                self.plain.finish([first.file, results[0]], seconds, **details, dev=self.train, test=self.held_out)
            write_result(file, evidence)
        for suffix in (".*.jsonl", ".*.lock"):
            pattern = stage.place(suffix)
            for left in pattern.parent.glob(pattern.name):
                left.unlink(missing_ok=True)
        return evidence

    def _measure(self, stage: Stage) -> tuple[Evidence, dict[str, SteeringResult]]:
        """The evidence, and each way's first seed on the test items."""
        study = self.study
        arms = []
        for way in self.request.ways:
            scales = [self._read(x.file) for x in self.files if x.way is way]
            arms.append(Arm(way.name, tuple(scales)))
        # a journal for these inputs: after a kill, ways may be added without losing what was learned
        digest = sha256(json.dumps(stage.inputs, sort_keys=True).encode()).hexdigest()[:8]

        def options(part: str, log: AnswerLog | None = None) -> dict[str, Any]:
            return {"sweep": stage.journalled(part=f".{part}.{digest}", answers=log), "seed": study.seed}

        names = {arm.method: STEERED if arm.method == HONES else f"{STEERED}:{arm.method}" for arm in arms}
        log = AnswerLog({UNEDITED: UNEDITED, **names}.get)
        how = {"file": self.held_out.label, **options("test", log)}
        tested, of_ways = evaluate_arms(study.vlm, self.task, self.held_out.examples, arms, **how)
        study.keep_answers(self.task, "test", log, lambda arm: arm.startswith(STEERED))
        jobs = [(other, prepared.examples) for other, prepared in self.others]
        elsewhere = measure_elsewhere(study.vlm, jobs, arms[0], **options("also")) if jobs else ()
        ood = None
        if self.outside is not None:
            how = {"file": self.outside.label, **options("ood")}
            ood, _ = evaluate_arms(study.vlm, self.task, self.outside.examples, arms, **how)
        learned = [arm for arm, way in zip(arms, self.request.ways, strict=True) if way.learned and way.shared]
        spreads = tuple(spread(arm, self.settings.max_scale) for arm in learned)
        return Evidence(self.task.name, self.request.seeds, tested, elsewhere, ood, spreads), of_ways

    def _read(self, file: Path) -> Scales:
        """Scales with what run.json says of their training."""
        scales = read_learned(file)
        edit_of(scales).check(self.study.vlm.anatomy)
        place = str(file.relative_to(self.study.run.path))
        stages = self.study.run.record.stages.values()
        made = next((stage for stage in stages if place in stage.artifacts), None)
        if made is None:
            return scales
        learned = made.more.get("learned")
        return replace(scales, epoch=made.epoch, learned=None if learned is None else TrainingSummary(**learned))
