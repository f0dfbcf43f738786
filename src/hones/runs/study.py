"""A study: one model, one run folder, and the stages of the paper with their artifacts.

    heads      step 1, on the discovery items    heads.json, head_scores.npy
    neurons    step 2, on the discovery items    neurons.json, neuron_importance.npy
    mask       step 3, on the test items         masking.json
    keep       the other way round, likewise     keep.json
    steer      step 4, on dev and test items     steering/hones/: scales.json, result.json

Each checks its items, skips what this run folder already holds for the same inputs, computes, writes, and records in
run.json what it used (`hones.runs.stage`). Beside them stand the comparison with other methods
(`hones.runs.comparing`), controls and evidence of steering (`hones.runs.steering`) and the analysis of a finished run
(`hones.runs.analysis`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hones.data.items import Items, LeftOut
from hones.errors import HonesError
from hones.files import digest_of
from hones.log import remark
from hones.method.budget import AUTO, DEFAULT_RATIO, PositivePart, check_ratio, neuron_budget
from hones.method.head_steps import localize_heads_conditionally
from hones.method.head_subsets import localize_heads_of_tasks_by_subsets
from hones.method.head_ways import Conditional, HeadWay
from hones.method.heads import HeadResult, critical_count, localize_heads_of_tasks, race_heads
from hones.method.keeping import KeepingResult
from hones.method.masking import MaskingResult, evaluate_masking
from hones.method.neurons import RankedNeuron, attribute_neurons, select_neurons
from hones.method.smallest import smallest_budget
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.settings import SteeringSettings
from hones.models.sites import Site
from hones.rivals import METHODS, check_method
from hones.rivals.auto import Choice, choose, chosen_before
from hones.rivals.base import Method
from hones.rivals.best_of import trial_of
from hones.rivals.hones import Hones
from hones.rivals.ranked import importance_of
from hones.runs.answers import MASKED, RANDOM
from hones.runs.artifacts import read_heads, read_neurons, write_heads, write_neurons
from hones.runs.found_on import found_on
from hones.runs.growing import let_others_grow, other_jobs, without_others
from hones.runs.keeping import keep
from hones.runs.locks import alone
from hones.runs.method_inputs import at_hand, critical_heads, method_inputs
from hones.runs.stage import Stage, Workspace
from hones.runs.steering import steer
from hones.stats import UNEDITED
from hones.sweep.answer_log import AnswerLog
from hones.sweep.journal import sweep_of
from hones.sweep.racing import RaceRules
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task

CHOSEN = "chosen"
"""What run.json keeps of auto beside the stage whose method it chose."""


class Study(Workspace):
    """One model's results in one run folder; the fields are those of `hones.runs.stage.Workspace`."""

    def heads(
        self,
        tasks: Sequence[Task],
        discovery: Items,
        top_k: int | None = None,
        racing: RaceRules | None = None,
        by: HeadWay | None = None,
    ) -> list[HeadResult]:
        """Step 1 on the discovery items, all tasks in one sweep; writes heads.json and head_scores.npy of each.

        racing: the rules by which heads leave the sweep, one task at a time; an approximation.
        by: how heads are scored other than each alone; conditionally one task at a time.
        """
        k = critical_count(self.vlm, top_k)
        layers, heads, _ = self.vlm.anatomy.shape
        if racing is not None:
            racing.check()
            if by is not None:
                raise HonesError(f"--racing with --by {by.way}", expected="one of them: heads race each alone")
        by = None if by is None else by.of(len(self.vlm.anatomy.head_sites))
        with alone(self.run.path, [task.name for task in tasks]):
            if len(tasks) > 1 and (racing is not None or isinstance(by, Conditional)):
                return [result for task in tasks for result in self.heads([task], discovery, top_k, racing, by)]
            by_name = {task.name: task for task in tasks}
            prepared = {name: self.prepare(task, discovery, "discovery") for name, task in by_name.items()}
            settings = {"top_k": k, "racing": racing and asdict(racing), **self.swept()}
            if by is not None:
                settings |= {"by": by.way, by.way: by.options}
            stages = {
                name: self.stage(f"{name}/heads", prepared[name], utility=task.metric_name, **settings)
                for name, task in by_name.items()
            }
            missing = [name for name, stage in stages.items() if not stage.is_finished()]
            together = Stage(self, f"{'+'.join(sorted(by_name))}/heads", {})
            if missing:
                started = time.monotonic()
                # an unfinished journal sweeps these together, also those whose artifacts are written by now
                begun = {} if self.fresh else sweep_of(together.place(".jsonl"))
                names = sorted([name for name in by_name if f"{name}.seed" in begun] or missing)
                jobs = [(by_name[name], prepared[name].examples) for name in names]
                log = AnswerLog({UNEDITED: UNEDITED}.get)
                depends = {name: stages[name].inputs for name in names}
                options: dict[str, Any] = {"top_k": k, "seed": self.seed}
                if isinstance(by, Conditional):

                    def sweep_of_step(step: int, given: Sequence[Site]) -> SweepSettings:
                        if step == 1:
                            return together.journalled(depends, answers=log)
                        return together.journalled({**depends, "given": [*given]}, f".step-{step}")

                    options["sweep_of_step"] = sweep_of_step
                    results = [localize_heads_conditionally(self.vlm, *jobs[0], by, **options)]
                else:
                    options["sweep"] = together.journalled(depends, answers=log)
                    if racing is not None:
                        results = [race_heads(self.vlm, *jobs[0], rules=racing, **options)]
                    elif by is not None:
                        results = localize_heads_of_tasks_by_subsets(self.vlm, jobs, by, **options)
                    else:
                        results = localize_heads_of_tasks(self.vlm, jobs, **options)
                shared = {"swept_with": names} if len(names) > 1 else {}
                for name, result in zip(names, results, strict=True):
                    folder = self.run.path / name
                    write_heads(folder, result, layers, heads, found_on(self.vlm))
                    self.keep_answers(by_name[name], "discovery", log, lambda arm: False)
                    files = [folder / "heads.json", folder / "head_scores.npy"]
                    stages[name].finish(files, time.monotonic() - started, discovery=prepared[name], **shared)
            together.clean_up()
            return [read_heads(self.run.path / name / "heads.json") for name in by_name]

    def neurons(
        self,
        task: Task,
        discovery: Items,
        heads_file: Path | None,
        ratio: float | None = DEFAULT_RATIO,
        positive_part: PositivePart = "mean",
        method: Method | Choice | None = None,
    ) -> list[RankedNeuron]:
        """Step 2 on the discovery items; writes neuron_importance.npy and neurons.json.

        ratio: None: the smallest that costs half of the baseline on these items (`hones.method.smallest`).
        method: how neurons are ranked, by default as HONES does with this positive part; methods without heads need no
        heads_file. What auto chose (`choose`) is recorded, and each row of neurons.json names it.
        """
        choice = method if isinstance(method, Choice) else None
        if isinstance(method, Choice):
            method = METHODS[method.method]
        if ratio is not None:
            check_ratio(ratio)
        method = method or METHODS["hones" if positive_part == "mean" else "hones-per-item"]
        method = method.for_budget(ratio or DEFAULT_RATIO)
        with alone(self.run.path, [task.name]):
            heads = critical_heads(self.vlm, task, heads_file, [method])
            folder = self.run.path / task.name
            items = self.prepare(task, discovery, "discovery")
            rank: Callable[..., np.ndarray]
            told: Callable[[], dict[str, Any]] = dict
            if isinstance(method, Hones):
                depends = self.fingerprint(items, method=method.name, heads=heads.digest)
                reading = {"positive_part": method.positive_part, "reading": method.reading}
                rank = partial(attribute_neurons, self.vlm, task, items.examples, heads.critical, **reading)
            else:
                given = method_inputs(self, task, discovery, items.examples, heads, [method])
                depends = self.fingerprint(items, **given.fingerprint_of(method))
                rank = partial(importance_of, method, given.context)
                told = partial(trial_of, given.context, method)
            asked = {"ratio": AUTO, **self.swept()} if ratio is None else {"ratio": ratio}
            stage = Stage(self, f"{task.name}/neurons", {**depends, **asked})
            if stage.is_finished():
                return read_neurons(folder / "neurons.json")
            started = time.monotonic()
            # most sums over items do not depend on the ratio: a killed run may go on with another
            importance = rank(sweep=stage.summed(depends))
            chosen: dict[str, Any] = {} if choice is None else {CHOSEN: asdict(choice)}
            if ratio is None:

                def sweep(part: str) -> SweepSettings:
                    return stage.journalled(part=f".{part}")

                found = smallest_budget(self.vlm, task, items.examples, importance, sweep, seed=self.seed)
                ratio, chosen = found.ratio, {**chosen, AUTO: asdict(found)}
            selected = select_neurons(importance, ratio, self.vlm.anatomy.expert_of)
            named = {} if choice is None else {"method": choice.method}
            write_neurons(folder, importance, selected, {**found_on(self.vlm), **named})
            files = [folder / "neurons.json", folder / "neuron_importance.npy"]
            budget = neuron_budget(importance.size, ratio)
            stage.finish(files, time.monotonic() - started, discovery=items, budget=budget, **chosen, **told())
            return selected

    def choose(self, tasks: Sequence[Task], discovery: Items, heads_named: bool = False) -> Choice:
        """Which method ranks the neurons of these tasks (`hones.rivals.auto`); a line says it.

        What auto has chosen in this run folder before stays, so that the sets of all its tasks are of one method.
        heads_named: whether a ranking guided by certain heads is wanted.
        """
        stages = {} if self.fresh else self.run.record.stages
        before = {n: s for n, s in stages.items() if n.endswith("/neurons") and CHOSEN in s.more}
        if before:
            name, stage = next(iter(before.items()))
            choice = chosen_before(check_method(str(stage.fingerprint.get("method"))), name.removesuffix("/neurons"))
        else:
            prepared = [(task, self.prepare(task, discovery, "discovery").examples) for task in tasks]
            choice = choose([at_hand(self.vlm, task, discovery, few, heads_named) for task, few in prepared])
        remark(f"{', '.join(task.name for task in tasks)}: {choice}")
        return choice

    def mask(
        self, task: Task, test: Items, neurons_file: Path, draws: int = 5, also: Sequence[Task] = ()
    ) -> MaskingResult:
        """Step 3 on the test items; writes masking.json.

        also: other tasks that the mask is tested on; more may be added later.
        """
        with alone(self.run.path, [task.name]):
            neurons = self.sites(neurons_file, task.name)
            items = self.prepare(task, test, "test")
            others, more = other_jobs(self, task, also, test)
            digest = digest_of(neurons_file)
            stage = self.stage(f"{task.name}/mask", items, neurons=digest, draws=draws, **self.swept(), **more)
            file = self.run.path / task.name / "masking.json"
            let_others_grow(stage, file)

            def compute() -> MaskingResult:
                log = AnswerLog({UNEDITED: UNEDITED, "neurons": MASKED, "random": RANDOM}.get)
                sweep = stage.journalled(without_others(stage), answers=log)
                options = {"draws": draws, "others": others, "beside": stage.journalled(part=".also")}
                result = evaluate_masking(
                    self.vlm, task, items.examples, neurons, sweep=sweep, seed=self.seed, **options
                )
                self.keep_answers(task, "test", log, lambda arm: arm == MASKED or arm.startswith(RANDOM))
                return result

            return stage.once(file, MaskingResult, compute, test=items)

    def keep(
        self, task: Task, test: Items, neurons_file: Path, draws: int = 5, means_on: Items | None = None
    ) -> KeepingResult:
        """Step 3 the other way round, only the neurons kept, on the test items; writes keep.json.

        means_on: discovery items over which replaced neurons take their mean; None: they become 0.
        """
        return keep(self, task, test, neurons_file, draws, means_on)

    def steer(
        self, task: Task, dev: Items, test: Items, neurons_file: Path, settings: SteeringSettings | None = None
    ) -> SteeringResult:
        """Step 4: learn on the dev items, test on the others; writes scales.json and result.json in steering/hones."""
        return steer(self, task, dev, test, neurons_file, settings).result


def all_left_out(study: Workspace) -> Sequence[tuple[str, LeftOut]]:
    """Every item left out so far, with the task and split it was left out of."""
    return [(where, item) for where, items in study.left_out.items() for item in items]
