"""A study: one model, one run folder, and the four stages with their artifacts.

Each stage checks its items, skips what this run folder already holds for the same inputs, computes, writes, and
records in run.json what it used (`hones.runs.stages`). The command line and `hones run` call nothing else.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hones.data.items import Items, LeftOut
from hones.files import digest_of
from hones.method.heads import HeadResult, critical_count, localize_heads_of_tasks, race_heads
from hones.method.masking import MaskingResult, evaluate_masking
from hones.method.neurons import PositivePart, RankedNeuron, neuron_budget, select_neurons
from hones.method.steering.evaluate import SteeringResult, evaluate_scales
from hones.method.steering.settings import SteeringSettings, training_record
from hones.method.steering.trainings import Begun, Lesson, Trained, Training, learn
from hones.rivals import METHODS
from hones.rivals.base import Method
from hones.rivals.ranked import importance_of
from hones.runs.artifacts import (
    read_heads,
    read_neurons,
    read_result,
    write_heads,
    write_neurons,
    write_result,
    write_scales,
)
from hones.runs.given import critical_heads, give
from hones.runs.locks import alone_on
from hones.runs.prepared import Prepared
from hones.runs.stages import DEFAULT_SEED as DEFAULT_SEED
from hones.runs.stages import Stages
from hones.sweep.journal import sweep_of
from hones.sweep.racing import RaceRules
from hones.tasks.base import Task

DEFAULT_RATIO = 0.01


def _its_name(task: Task, *_: Any, **__: Any) -> list[str]:
    """The part of the run folder that a stage of one task writes."""
    return [task.name]


class Study(Stages):
    """One model's results in one run folder; the fields are those of `hones.runs.stages.Stages`."""

    @alone_on(lambda tasks, *_, **__: [task.name for task in tasks])
    def heads(
        self, tasks: Sequence[Task], discovery: Items, top_k: int | None = None, racing: RaceRules | None = None
    ) -> list[HeadResult]:
        """Step 1 on the discovery items, all tasks in one sweep; writes heads.json and head_scores.npy of each.

        racing: the rules by which heads leave the sweep, one task at a time; an approximation.
        """
        k = critical_count(self.vlm, top_k)
        if racing is not None:
            racing.check()
        if racing is not None and len(tasks) > 1:
            return [result for task in tasks for result in self.heads([task], discovery, top_k, racing)]
        layers, heads, _ = self.vlm.anatomy.shape
        by_name = {task.name: task for task in tasks}
        prepared = {name: self.prepare(task, discovery, "discovery") for name, task in by_name.items()}
        settings = {"top_k": k, "racing": racing and asdict(racing), **self.swept()}
        inputs = {
            name: self.fingerprint(prepared[name], utility=task.metric_name, **settings)
            for name, task in by_name.items()
        }
        missing = [name for name in by_name if not self.is_finished(f"{name}/heads", inputs[name])]
        journal = self.journal_file(f"{'+'.join(sorted(by_name))}.heads")
        if missing:
            started = time.monotonic()
            names = sorted(self._tasks_of(journal, by_name) or missing)
            sweep = self.journalled(journal, {name: inputs[name] for name in names})
            jobs = [(by_name[name], prepared[name].examples) for name in names]
            options: dict[str, Any] = {"top_k": k, "sweep": sweep, "seed": self.seed}
            if racing is None:
                results = localize_heads_of_tasks(self.vlm, jobs, **options)
            else:
                results = [race_heads(self.vlm, *jobs[0], rules=racing, **options)]
            for name, result in zip(names, results, strict=True):
                folder = self.run.task(name)
                write_heads(folder, result, layers, heads)
                files = [folder / "heads.json", folder / "head_scores.npy"]
                shared = {"swept_with": names} if len(names) > 1 else {}
                self.finish(f"{name}/heads", inputs[name], started, files, discovery=prepared[name], **shared)
        self.remove_journal(journal)
        return [read_heads(self.run.task(name) / "heads.json") for name in by_name]

    def _tasks_of(self, journal: Path, requested: Iterable[str]) -> list[str]:
        """The tasks that an unfinished journal sweeps together, also those whose artifacts are written by now."""
        begun = sweep_of(journal)
        return [] if begun is None or self.fresh else [n for n in requested if f"{n}.seed" in begun]

    @alone_on(_its_name)
    def neurons(
        self,
        task: Task,
        discovery: Items,
        heads_file: Path | None,
        ratio: float = DEFAULT_RATIO,
        positive_part: PositivePart = "mean",
        method: Method | None = None,
    ) -> list[RankedNeuron]:
        """Step 2 on the discovery items; writes neuron_importance.npy and neurons.json.

        method: how neurons are ranked, by default as HONES does with this positive part; methods without heads need no
        heads_file.
        """
        method = method or METHODS["hones" if positive_part == "mean" else "hones-per-item"]
        budget = neuron_budget(self.vlm.anatomy.total_neurons, ratio)
        heads = critical_heads(self.vlm, task, heads_file, [method])
        folder, items = self.run.task(task.name), self.prepare(task, discovery, "discovery")
        given = give(self.vlm, task, discovery, items.examples, heads, [method], self.seed, self.sweep)
        depends = self.fingerprint(items, **given.fingerprint_of(method))
        inputs = {**depends, "ratio": ratio}
        if self.is_finished(f"{task.name}/neurons", inputs):
            return read_neurons(folder / "neurons.json")
        started, checkpoint = time.monotonic(), self.checkpoint_file(f"{task.name}.neurons")
        sweep = self.summed(checkpoint, {**depends, **self.swept()})
        importance = importance_of(method, replace(given.context, sweep=sweep))
        selected = select_neurons(importance, ratio)
        write_neurons(folder, importance, selected)
        files = [folder / "neurons.json", folder / "neuron_importance.npy"]
        self.finish(f"{task.name}/neurons", inputs, started, files, discovery=items, budget=budget)
        self.remove_journal(checkpoint)
        return selected

    @alone_on(_its_name)
    def mask(self, task: Task, test: Items, neurons_file: Path, draws: int = 5) -> MaskingResult:
        """Step 3 on the test items; writes masking.json."""
        neurons = self.sites(neurons_file)
        file, items = self.run.task(task.name) / "masking.json", self.prepare(task, test, "test")
        inputs = self.fingerprint(items, neurons=digest_of(neurons_file), draws=draws, **self.swept())
        if self.is_finished(f"{task.name}/mask", inputs):
            return read_result(file, MaskingResult)
        started = time.monotonic()
        result = evaluate_masking(
            self.vlm,
            task,
            items.examples,
            neurons,
            draws=draws,
            sweep=self.journalled(self.journal_file(f"{task.name}.mask"), inputs),
            seed=self.seed,
        )
        write_result(file, result)
        self.finish(f"{task.name}/mask", inputs, started, [file], test=items)
        self.remove_journal(self.journal_file(f"{task.name}.mask"))
        return result

    @alone_on(_its_name)
    def steer(
        self, task: Task, dev: Items, test: Items, neurons_file: Path, settings: SteeringSettings | None = None
    ) -> SteeringResult:
        """Step 4: learn on the dev items, test on the others; writes scales.json and result.json in steering/hones."""
        begun = self.begin_steering(task, dev, test, neurons_file, settings)
        learn(self.vlm, begun.lessons, self.sweep.workers)
        return begun.end()

    def begin_steering(
        self, task: Task, dev: Items, test: Items, neurons_file: Path, settings: SteeringSettings | None = None
    ) -> Begun[SteeringResult]:
        """`steer` up to the training, and what comes after it; the task's lock is the caller's."""
        settings = settings or SteeringSettings(seed=self.seed)
        neurons = self.sites(neurons_file)
        folder = self.run.task(task.name) / "steering" / "hones"
        train, held_out = self.prepare(task, dev, "dev"), self.prepare(task, test, "test")
        inputs = self.steered(train, held_out, neurons_file, settings)
        if self.is_finished(f"{task.name}/steer", inputs):
            return Begun((), lambda: read_result(folder / "result.json", SteeringResult))
        checkpoint = self.checkpoint_file(f"{task.name}.steer")
        learned: list[Trained] = []

        def evaluate() -> SteeringResult:
            (trained,) = learned
            started, scales = time.monotonic() - trained.seconds, trained.scales
            options: dict[str, Any] = {"sweep": self.sweep, "seed": self.seed}
            result = evaluate_scales(self.vlm, task, held_out.examples, scales, **options)
            write_scales(folder / "scales.json", scales)
            write_result(folder / "result.json", result)
            files, splits = [folder / "scales.json", folder / "result.json"], {"dev": train, "test": held_out}
            self.finish(f"{task.name}/steer", inputs, started, files, **training_record(scales), **splits)
            self.remove_journal(checkpoint)
            return result

        training = Training(neurons, settings, checkpoint)
        return Begun([Lesson(task, train.examples, training, learned.append)], evaluate)

    def steered(
        self, train: Prepared, held_out: Prepared, neurons_file: Path, settings: SteeringSettings
    ) -> dict[str, Any]:
        """What the result of HONES's steering depends on."""
        found = {
            "neurons": digest_of(neurons_file),
            "dev": train.fingerprint,
            "settings": settings.model_dump(exclude_none=True),
        }
        return self.fingerprint(held_out, **found, **self.swept())


def all_left_out(study: Study) -> Sequence[tuple[str, LeftOut]]:
    """Every item left out so far, with the task and split it was left out of."""
    return [(where, item) for where, items in study.left_out.items() for item in items]
