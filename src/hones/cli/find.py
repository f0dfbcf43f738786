"""Find: which heads matter for a task, which neurons they drive, and what one answer hangs on."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Option

from hones.cli.following import say_next
from hones.cli.head_options import HeadWayOptions
from hones.cli.options import (
    AnswerOptions,
    Data,
    Dtype,
    Ids,
    ItemOptions,
    ModelOptions,
    Rounds,
    StageOptions,
    TaskName,
    TopK,
    Width,
)
from hones.cli.prove import Mask
from hones.cli.question import QuestionOptions
from hones.cli.shown import OUT, name_prepared, say, show, warn
from hones.cli.steer import Steer
from hones.errors import HonesError


@dataclass(kw_only=True)
class Heads(HeadWayOptions, StageOptions, AnswerOptions):
    """Step 1: score every attention head by replacing it with the mean of its layer's other heads.

    Several tasks in one sweep cost little more than the dearest of them.

    Example: hones heads --model tiny-llava --task all --data discovery.json --out runs/a

    Heads that make up for each other: hones heads ... --by conditional
    """

    task: Annotated[
        str, Option(help="vqa, ocr, caption, retrieval, your TASK.yaml or FILE.py:CLASS; with commas, or all.")
    ]
    data: Data
    ids: Ids = None
    top_k: TopK = None
    utility: Annotated[
        str | None,
        Option(help="metric, or logprob: the gold answer's log-probability. [default: metric, or logprob beside --by]"),
    ] = None
    racing: Annotated[
        float | None, Option(help="Approximation: heads leave once a bound at this confidence decides them, e.g. 0.95.")
    ] = None
    racing_margin: Annotated[float, Option(help="Racing: heads this close by the metric count as equal.")] = 0.005

    def execute(self) -> None:
        from hones.method.head_ways import check_utility
        from hones.sweep.racing import RaceRules
        from hones.tasks import TASKS, make_tasks
        from hones.tasks.log_probability import LogProbability
        from hones.views.terminal import view

        self.check_top_k(self.top_k)
        way = self.head_way(self.model)
        utility = check_utility(self.utility, way)
        if self.racing is not None and way is not None:
            raise HonesError(f"--racing with --by {self.by}", expected="one of them: heads race each alone")
        tasks = make_tasks(self.task, candidates=self.candidates)
        items = self.items(self.data, self.ids)
        if utility == "logprob":
            tasks = [LogProbability(task) for task in tasks]
        rules = None if self.racing is None else RaceRules(self.racing, self.racing_margin)
        with self.study() as study:
            for task in tasks:
                study.look_first(task, items, "discovery", "heads")
            results = study.heads(tasks, items, self.top_k, rules, way)
            for task, result in zip(tasks, results, strict=True):
                if len(tasks) > 1:
                    OUT.rule(task.name)
                show(study, task.name, view(result), self.out / task.name / "heads.json")
        if study.vlm.dtype != "float32":
            say_next(self, Flips, dtype=study.vlm.dtype, limit=Flips.limit)
        for name in TASKS if self.task == "all" else self.task.split(","):
            say_next(self, Neurons, task=name)


@dataclass(kw_only=True)
class Flips(ModelOptions, AnswerOptions, ItemOptions):
    """What rounding changes: sweep the heads on a few items in float32 and in another dtype, and count what flips.

    Example: hones flips --model tiny-llava --task vqa --data discovery.json --dtype bfloat16
    """

    renamed: ClassVar[dict[str, str]] = {"--out": "--json"}

    task: Annotated[str, Option(help="As of `hones heads`: several with commas, or all.")]
    data: Data
    ids: Ids = None
    dtype: Dtype = "bfloat16"
    limit: Annotated[int | None, Option(min=1, help="Use the first N items only.")] = 8
    top_k: TopK = None
    json: Annotated[Path | None, Option(metavar="FILE.json", help="Write the counts as JSON too.")] = None

    def execute(self) -> None:
        from hones.files import write_json
        from hones.tasks import make_tasks

        self.check_top_k(self.top_k)
        tasks = make_tasks(self.task, candidates=self.candidates)
        items = self.items(self.data, self.ids)

        from hones.runs.flips import count_flips
        from hones.views.terminal import view

        found = count_flips(self.spec, tasks, items, top_k=self.top_k, sweep=self.sweep, on_prepared=name_prepared)
        OUT.print(view(found))
        if self.json is not None:
            write_json(self.json, asdict(found))
            say(f"written: {self.json}")


@dataclass(kw_only=True)
class Neurons(StageOptions):
    """Step 2: rank FFN neurons by their write-in toward the answer that depends on the critical heads.

    Example: hones neurons --model tiny-llava --task vqa --data discovery.json --out runs/a
    """

    task: TaskName
    data: Data
    heads: Annotated[
        Path | None,
        Option(help="heads.json of `hones heads`, for methods that use critical heads. [default: the one in --out]"),
    ] = None
    method: Annotated[
        str,
        Option(help="How neurons are ranked; `hones methods` lists them. auto: by what is at hand; a line says why."),
    ] = "hones"
    ratio: Annotated[
        str, Option(help="Share of all neurons to select; auto: the smallest that costs half of the metric on --data.")
    ] = "0.01"
    rounds: Rounds = None
    width: Width = None
    per_item: Annotated[bool, Option(help="Take the positive part per item, not of the mean.")] = False
    ids: Ids = None

    def execute(self) -> None:
        from hones.method.budget import DEFAULT_RATIO, neuron_budget, ratio_of_text
        from hones.rivals import METHODS, check_method_or_auto, check_schedule, scheduled
        from hones.rivals.auto import AUTO
        from hones.rivals.known import KNOWN
        from hones.tasks import make_task
        from hones.views.terminal import view

        ratio = ratio_of_text(self.ratio)
        if self.per_item and self.method not in ("hones", "hones-per-item"):
            what = f"--per-item with --method {self.method}"
            raise HonesError(what, expected="one of them: per item is a reading of hones")
        name = check_method_or_auto("hones-per-item" if self.per_item else self.method)
        check_schedule([name], self.rounds, self.width)
        task = make_task(self.task, candidates=self.candidates)
        heads = self._heads_file(task.name) if name != AUTO and KNOWN[name].needs_heads else None
        items = self.items(self.data, self.ids)
        with self.study() as study:
            if name == AUTO:
                method = study.choose([task], items, heads_named=self.heads is not None)
                heads = self._heads_file(task.name) if KNOWN[method.method].needs_heads else None
            else:
                (method,) = scheduled([METHODS[name]], self.rounds, self.width)
            neurons = study.neurons(task, items, heads, ratio, method=method)
            selected = study.run.record.ratio_of(task.name) or DEFAULT_RATIO
            budget = neuron_budget(study.vlm.anatomy.total_neurons, selected)
            if len(neurons) < budget:
                warn(f"{len(neurons)} neurons instead of {budget}: no other has a positive importance")
            show(study, task.name, view(neurons), self.out / task.name / "neurons.json")
        say_next(self, Mask, data="TEST.json", ids=None)
        say_next(self, Steer, dev="DEV.json", test="TEST.json")

    def _heads_file(self, task: str) -> Path:
        """The file with critical heads; a bad one is named before a model is loaded where the method is named."""
        from hones.runs.artifacts import read_heads

        file = self.found(self.heads, task, "heads")
        read_heads(file, task)
        return file


def methods() -> None:
    """Every method that ranks neurons, with a line and its source, and which of them to use for what."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from hones.rivals.auto import ADVICE
    from hones.rivals.known import KNOWN

    # no result's table: those wait for numpy
    table = Table(
        "method", "ranks a neuron by", title="Methods: how neurons are ranked", title_justify="left", box=SIMPLE_HEAD
    )
    for name, known in KNOWN.items():
        heads = "; needs critical heads" if known.needs_heads else ""
        tasks = "; needs items annotated for several tasks" if known.needs_other_tasks else ""
        tasks = "; uses items annotated for several tasks" if known.takes_other_tasks else tasks
        table.add_row(name, Text.assemble(known.summary, "\n", (f"{known.source}{heads}{tasks}", "dim")))
    OUT.print(table)
    advice = Table(
        "you want", "--method", "what was measured", title="Which to use", title_justify="left", box=SIMPLE_HEAD
    )
    for line in ADVICE:
        advice.add_row(line.want, line.use, Text.assemble(line.measured, "\n", (line.page, "dim")))
    OUT.print(advice)


@dataclass(kw_only=True)
class Explain(ModelOptions, AnswerOptions, QuestionOptions):
    """Why does the model answer this? The heads its answer hangs on, the neurons they feed, the tokens these promote.

    Example: hones explain --model tiny-llava --image photo.jpg "What colour is the star?"
    """

    renamed: ClassVar[dict[str, str]] = {"--out": "--to"}

    answer: Annotated[str | None, Option(help="The answer to explain. [default: the model's own]")] = None
    raw: Annotated[bool, Option("--raw", help="Ask the bare question, not as vqa words it.")] = False
    top_k: Annotated[int | None, Option(min=1, help="Heads that may feed neurons. [default: 3 %, >= 5]")] = None
    neurons: Annotated[int, Option(min=1, help="Neurons to name.")] = 12
    where: Annotated[bool, Option("--where/--no-where", help="Map where in the picture the answer comes from.")] = True
    to: Annotated[
        Path | None,
        Option(help="Folder for explanation.html, explanation.json and maps as PNG. [default: the terminal alone]"),
    ] = None

    def execute(self) -> None:
        self.check_top_k(self.top_k)
        if self.raw and self.task != "vqa":
            raise HonesError(f"--raw with --task {self.task}", expected="one of them: raw is vqa without its words")
        asked = self.asked()

        from hones.files import write_bytes
        from hones.method.analysis.explain import explain
        from hones.runs.artifacts import write_result
        from hones.views.report.explain import overlays_of, render_explanation
        from hones.views.terminal import view

        sweep = self.sweep
        explanation = explain(
            self.load(),
            self.image,
            self.question,
            answer=self.answer,
            top_k=self.top_k,
            neurons=self.neurons,
            raw=self.raw,
            where=self.where,
            settings=sweep,
            **asked,
        )
        OUT.print(view(explanation))
        if self.to is not None:
            page = self.to / "explanation.html"
            write_result(self.to / "explanation.json", explanation)
            write_bytes(page, render_explanation(explanation, self.image).encode())
            drawn = overlays_of(explanation, self.image)
            for name, png in drawn.items():
                write_bytes(self.to / name, png)
            say(f"written: {page}, {', '.join(['explanation.json', *drawn])}")
