"""Prove by intervention: mask what was found, compare it with what other methods find, and see what the sets share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typer import Argument, Option

from hones.cli.following import say_next, say_results
from hones.cli.options import (
    Also,
    AnswerOptions,
    Fresh,
    Ids,
    LoadingOptions,
    MaxLeftOut,
    NeuronsFile,
    Rounds,
    StageOptions,
    SweepOptions,
    TaskName,
    TopK,
    Width,
)
from hones.cli.shown import show, warn
from hones.cli.steer import Steer
from hones.errors import HonesError


@dataclass(kw_only=True)
class Mask(StageOptions, AnswerOptions):
    """Step 3: zero the selected neurons on test items, beside random neurons of the same layers.

    With --keep the other way round: only the selected neurons stay, and how much of the metric do they bring back?

    Example: hones mask --model tiny-llava --task vqa --data test.json --out runs/a
    """

    task: TaskName
    data: Annotated[Path, Option(help="Unified JSON file of the *test* items.")]
    neurons: NeuronsFile = None
    draws: Annotated[int, Option(min=1, help="Random layer-matched control sets.")] = 5
    also: Also = None
    ids: Ids = None
    keep: Annotated[bool, Option("--keep", help="Keep the selected neurons alone, all others replaced.")] = False
    rest: Annotated[str, Option(help="With --keep: what the others become, zero or mean (over --discovery).")] = "zero"
    discovery: Annotated[
        Path | None, Option(help="With --keep --rest mean: unified JSON file of the discovery items.")
    ] = None

    def execute(self) -> None:
        self._check()
        if self.keep:
            self._keep()
        else:
            self._mask()
        say_next(self, Steer, dev="DEV.json", test=self.data, also=None)
        say_results(self.out)

    def _check(self) -> None:
        """Raises HonesError for options that do not go together."""
        from hones.method.budget import check_rest

        check_rest(self.rest)
        if self.keep and self.also is not None:
            raise HonesError("--keep with --also", expected="one of them: other tasks are measured under masks")
        if not self.keep and (self.rest != "zero" or self.discovery is not None):
            raise HonesError("--rest and --discovery", expected="with --keep: a mask is 0")
        if (self.rest == "mean") != (self.discovery is not None):
            raise HonesError(
                f"--rest {self.rest} {'with' if self.discovery else 'without'} --discovery",
                expected="the discovery items for --rest mean, and for it alone",
            )
        if self.rest == "mean" and self.ray is not None:
            raise HonesError("--rest mean with --ray", expected="one of them: the means are taken in this process")

    def _keep(self) -> None:
        from hones.data.disjoint import check_disjoint
        from hones.runs.artifacts import read_neurons
        from hones.tabular import together
        from hones.tasks import make_task
        from hones.views import terminal

        task = make_task(self.task, candidates=self.candidates)
        neurons = self.found(self.neurons, task.name, "neurons")
        read_neurons(neurons, task.name)  # a bad file is named before a model is loaded
        items = self.items(self.data, self.ids)
        means_on = None if self.discovery is None else self.items(self.discovery)
        if means_on is not None:
            check_disjoint({"discovery": means_on, "test": items})
        with self.study() as study:
            study.look_first(task, items, "test", "keep")
            result = study.keep(task, items, neurons, self.draws, means_on)
            table = terminal.show(together([(task.name, result)]))
            show(study, task.name, table, self.out / task.name / "keep.json")

    def _mask(self) -> None:
        from hones.method.selectivity import ASK_OTHERS
        from hones.runs.artifacts import read_neurons
        from hones.tabular import together
        from hones.tasks import make_task, other_tasks
        from hones.views import terminal

        task = make_task(self.task, candidates=self.candidates)
        also = other_tasks(self.also, task, candidates=self.candidates)
        neurons = self.found(self.neurons, task.name, "neurons")
        read_neurons(neurons, task.name)  # a bad file is named before a model is loaded
        items = self.items(self.data, self.ids)
        with self.study() as study:
            study.look_first(task, items, "test", "mask")
            result = study.mask(task, items, neurons, self.draws, also)
            table = terminal.show(together([(task.name, result)]), *result.tables()[1:])
            show(study, task.name, table, self.out / task.name / "masking.json")
            if result.selectivity is None or not result.selectivity.others:
                warn(ASK_OTHERS)


@dataclass(kw_only=True)
class Compare(StageOptions, AnswerOptions):
    """Mask every method's neurons, found on discovery items, on the same test items: who finds what matters?

    Example: hones compare --model tiny-llava --task vqa --methods hones,dvp,atp,random --data discovery.json --test
    test.json --out runs/a
    """

    renamed: ClassVar[dict[str, str]] = {"--tasks": "--task", "--seeds": "--draws"}

    data: Annotated[Path, Option(help="Unified JSON file of the *discovery* items.")]
    test: Annotated[Path, Option(help="Unified JSON file of the *test* items; no common pictures.")]
    task: Annotated[str, Option(help="Tasks with commas (vqa, TASK.yaml, FILE.py:CLASS), or all.")] = "all"
    methods: Annotated[str, Option(help="Methods with commas, or all: every one but masks, oracle, best-of.")] = "all"
    heads_from: Annotated[
        Path | None, Option(help="Run folder with RUN/T/heads.json. [default: step 1 is done in --out]")
    ] = None
    top_k: TopK = None
    ratio: Annotated[
        float | None, Option(help="Share of all neurons to mask. [default: that of `hones neurons` in --out, or 0.01]")
    ] = None
    rounds: Rounds = None
    width: Width = None
    draws: Annotated[int, Option(min=1, help="Draws of the random methods.")] = 5
    curves: Annotated[bool, Option(help="Also mask budgets from 0.01 % to 10 %.")] = True
    both: Annotated[bool, Option("--both", help="Also keep each set alone, along the same budgets.")] = False
    rest: Annotated[str, Option(help="With --both: what the others become, zero or mean (over --data).")] = "zero"
    also: Also = None

    def execute(self) -> None:
        from hones.data.disjoint import check_disjoint
        from hones.method.budget import check_ratio, check_rest
        from hones.rivals import check_methods, check_schedule
        from hones.tasks import make_tasks, other_tasks
        from hones.views.terminal import view

        self.check_top_k(self.top_k)
        if self.ratio is not None:
            check_ratio(self.ratio)
        rest = check_rest(self.rest)
        if rest != "zero" and not self.both:
            raise HonesError(f"--rest {rest} without --both", expected="both, or neither: a mask is 0")
        if rest == "mean" and self.ray is not None:
            raise HonesError("--rest mean with --ray", expected="one of them: the means are taken in this process")
        methods = check_methods(self.methods)
        check_schedule(methods, self.rounds, self.width)
        tasks = make_tasks(self.task, candidates=self.candidates)
        also = other_tasks(self.also, several=tasks, candidates=self.candidates)
        splits = {"discovery": self.items(self.data), "test": self.items(self.test)}
        check_disjoint(splits)
        heads = {task.name: (self.heads_from or self.out) / task.name / "heads.json" for task in tasks}
        for file in heads.values():
            if self.heads_from is not None and not file.is_file():
                raise HonesError(f"no file {file}", do="run `hones heads` there first")
        shared: dict[Any, Any] = {}
        with self.study() as study:
            from hones.method.budget import BUDGETS
            from hones.method.selectivity import ASK_OTHERS
            from hones.rivals import METHODS, scheduled
            from hones.rivals.both_results import BothDirections
            from hones.runs.artifacts import read_result
            from hones.runs.comparing import ComparisonRequest, compare

            budgets = BUDGETS if self.curves else ()
            compared = scheduled([METHODS[name] for name in methods], self.rounds, self.width)
            request = ComparisonRequest(compared, self.ratio, self.draws, budgets, also, self.both, rest)
            for task in tasks:
                study.look_first(task, splits["test"], "test", "compare")
            if self.heads_from is None:
                study.heads(tasks, splits["discovery"], self.top_k)
            for task in tasks:
                file = heads[task.name]
                result = compare(study, task, splits["discovery"], splits["test"], file, request, shared)
                show(study, task.name, view(result), self.out / task.name / "comparison.json")
                if self.both:
                    kept = self.out / task.name / "both.json"
                    show(study, task.name, view(read_result(kept, BothDirections)), kept)
                selected = study.run.record.ratio_of(task.name)
                if selected not in (None, result.ratio):
                    shares = f"{100 * result.ratio:g} % of all neurons, its selection is {100 * selected:g} %"
                    warn(f"{task.name}: compared at {shares}")
            if not also:
                warn(ASK_OTHERS)
        say_results(self.out)


@dataclass(kw_only=True)
class Analyze(LoadingOptions, SweepOptions):
    """What the found sets share and do: layers, groups, cross-ablation, logit lens, neuron cards.

    Works from what a run left; a model or data that has changed is refused.

    Example: hones analyze runs/a
    """

    run: Annotated[Path, Argument(help="Run folder with heads.json and neurons.json of one task or more.")]
    data: Annotated[Path | None, Option(help="Test items. [default: those of `hones mask`]")] = None
    discovery: Annotated[Path | None, Option(help="Discovery items, if the file has moved.")] = None
    images: Annotated[Path | None, Option(help="Folder of all pictures, if it has moved.")] = None
    model: Annotated[str | None, Option(help="The run's model, if it has moved.")] = None
    task: Annotated[
        list[str] | None, Option(help="FILE.py:CLASS of a task of the run that is a Python class; repeatable.")
    ] = None
    lens_items: Annotated[int, Option(min=0, help="Items of each task under the delta logit lens.")] = 2
    cards: Annotated[int, Option(min=0, help="Neuron cards of each task.")] = 8
    draws: Annotated[int, Option(min=1, help="Random control sets per group.")] = 3
    limit: Annotated[int | None, Option(min=1, help="Mask on the first N test items only.")] = None
    dtype: Annotated[str, Option(help="auto (as the run), float32, bfloat16 or float16.")] = "auto"
    seed: Annotated[int | None, Option(min=0, help="Of bootstraps and controls. [default: the run's]")] = None
    fresh: Fresh = False
    max_left_out: MaxLeftOut = 0.05

    def execute(self) -> None:
        from hones.log import log_to
        from hones.runs.analysis import AnalysisSettings, RunStudy
        from hones.runs.source import read_run
        from hones.views.terminal import view

        run = read_run(self.run, data=self.data, discovery=self.discovery, images=self.images, classes=self.task or ())
        log_to(self.run)
        sweep = self.sweep
        dtype = run.dtype if self.dtype == "auto" else self.dtype
        vlm = self.spec_of(self.model or run.model, dtype, run.hub_revision).load()
        seed = run.seed if self.seed is None else self.seed
        study = RunStudy(vlm, run.folder, sweep, seed, self.fresh, self.max_left_out)
        for name in run.skipped:
            warn(f"{name} has no neurons yet and is left out: run `hones neurons` for it")
        settings = AnalysisSettings(lens_items=self.lens_items, cards=self.cards, draws=self.draws, limit=self.limit)
        analysis = study.analyze(run, settings)
        show(study, None, view(analysis), self.run / "analysis" / "analysis.json")
        say_results(self.run)
