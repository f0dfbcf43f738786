"""The stages of a run, each with its work, memory and shards, counted from the lengths of its items.

heads and the analysis ask all tasks in one sweep; the other stages one task after the other.

    hours on one copy of the model    operations / (matrix rate x share that the stage reaches)
    hours on N devices                R = N // G copies (G devices each) take the shards of a stage, all alike:
                                      hours on one copy x ceil(shards / R) / shards

A copy that is spread over G devices is as fast as one: its layers work one after the other. Shards are the groups of
a sweep and the trainings of steering. Left out: the messages of the workers, reading and decoding of pictures, scoring
and the bootstrap (on the CPU beside the device), and loading unless `load` says how long it takes.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from hones.method.head_ways import Subsets, check_utility
from hones.method.heads import default_top_k
from hones.method.smallest import MOST, STEPS
from hones.method.steering.controls import GRID, GridSearch
from hones.method.steering.settings import HONES
from hones.rivals import METHODS
from hones.rivals.reading import ROWS_WITH_GRADIENT
from hones.runs.plan.head_sweeps import step_edits, subset_edits
from hones.runs.plan.lengths import Job
from hones.runs.plan.rates import HEADS, MASK, NEURONS, STEER, Rates
from hones.runs.plan.request import Request
from hones.runs.plan.shapes import Memory, Number, Shapes, Work
from hones.runs.plan.sweeping import LEAST, Edits, Sweep, masks, only_gold, only_read, sweep_plan
from hones.runs.plan.training import PASSES, pairs_of, prompts_of, rankings_work, train, working_with_gradient
from hones.runs.ways import make_steerings


@dataclass(frozen=True)
class Stage:
    """One stage: its cells (answers, or trained pairs), work, memory, and the shards that it falls into.

    parts: work by the kind whose share of the rate was measured. release: the same done one item at a time, the picture
    encoded for each cell. race: a scenario that is not part of the total, the least and the most of the cells run.
    """

    name: str
    tasks: tuple[str, ...]
    cells: Number
    parts: Mapping[str, Work]
    memory: Memory
    least: Memory
    shards: int
    release: Work | None = None
    race: tuple[float, float] | None = None

    @property
    def work(self) -> Work:
        """In the middle of a race."""
        return sum(self.parts.values(), Work()) * (sum(self.race or (1, 1)) / 2)

    def hours(self, rates: Rates, copies: int = 1) -> Float[np.ndarray, "3"]:
        """(middle, least, most) on so many copies of the model; the last shards leave some of them idle."""
        low, high = self.race or (1, 1)
        seconds = sum((rates.seconds(kind, work.flop) for kind, work in self.parts.items()), np.zeros(3))
        share = np.array([(low + high) / 2, low, high])
        return seconds * share * math.ceil(self.shards / copies) / self.shards / 3600


@dataclass
class Bill:
    """What the stages are counted from: shapes, the lengths of every split that there is, and the free memory.

    method: by which neurons are ranked; auto has chosen.
    """

    request: Request
    shapes: Shapes
    device: str
    free: Number
    splits: Mapping[str, Mapping[str, Job]]
    method: str = HONES

    def stages(self) -> list[Stage]:
        """Every stage that the request asks for and has items for."""
        request, shapes = self.request, self.shapes
        discovery, dev, test, outside = (self.splits.get(split, {}) for split in ("discovery", "dev", "test", "ood"))
        each_head = Edits({layer: count for layer, count in enumerate(shapes.head_counts) if count}, heads=1)
        stages = self._heads([*discovery.values()], each_head)
        if request.racing is not None:  # one task at a time
            low, high = request.racing
            alone = [self._swept("heads", HEADS, [job], each_head) for job in discovery.values()]
            raced = replace(
                alone[0],
                name=f"heads, racing: if {low:.0%} to {high:.0%} of the cells run",
                tasks=stages[0].tasks,
                cells=stages[0].cells * (low + high) / 2,
                parts={HEADS: sum((stage.work for stage in alone), Work())},
                release=None,
                race=request.racing,
            )
            stages.append(raced)
        attributed = {name: self._attributed(job) for name, job in discovery.items()}
        neurons = {name: self._ranked(job, attributed[name]) for name, job in discovery.items()}
        if request.ratio is None:  # the budgets that are tried, in two sweeps (`hones.method.smallest`)
            tried = masks(shapes, int(math.log2(MOST * shapes.layers * shapes.neurons)) + 2 + STEPS, MOST)
            for name, job in discovery.items():
                swept = self._swept("neurons", MASK, [job], tried)
                parts = {**neurons[name].parts, **swept.parts}
                neurons[name] = replace(neurons[name], parts=parts, cells=neurons[name].cells + swept.cells)
        stages += neurons.values()
        sets = masks(shapes, 1 + request.draws, request.planned_ratio)
        for name, job in test.items():
            stages.append(self._with(self._swept("mask", MASK, [job], sets), self._others(name, 1)))
        if request.compare is not None and test:
            stages += [self._compared(discovery[name], test[name], attributed[name].work) for name in discovery]
        if dev and test:
            for name in discovery:
                others = [job for other, job in test.items() if other != name and other in request.tested_too]
                stages.append(self._steered(dev[name], test[name], others, outside.get(name)))
        if request.analyze is not None and test:
            # at most: all groups of tasks' sets with their random ones, in one process (docs/cluster.md)
            count = (2 ** len(test) - 1) * (1 + request.analyze.draws)
            swept = self._swept("analyze (at most)", MASK, test.values(), masks(shapes, count, request.planned_ratio))
            parts = {**swept.parts, NEURONS: sum((stage.work for stage in attributed.values()), Work())}
            stages.append(replace(swept, parts=parts, shards=1, release=None))
        return stages

    def _heads(self, jobs: Sequence[Job], each_head: Edits) -> list[Stage]:
        """Step 1: one sweep of all tasks, or in steps one task at a time."""
        request, shapes = self.request, self.shapes
        way = request.heads.way
        if check_utility(request.heads.utility, way) == "logprob":
            jobs = [replace(job, asked=tuple(only_gold(job.asked))) for job in jobs]
        if way is None:
            return [self._swept("heads", HEADS, jobs, each_head)]
        way = way.of(shapes.all_heads)
        if isinstance(way, Subsets):
            return [self._swept("heads", HEADS, jobs, subset_edits(shapes, way, request.seed))]
        top_k = request.top_k or default_top_k(shapes.all_heads)
        chosen = [0, *way.chosen(top_k)[:-1]]
        stages = []
        for job in jobs:
            steps = [self._swept("heads", HEADS, [job], step_edits(shapes, each_head, given)) for given in chosen]
            work = sum((step.work for step in steps), Work())
            released = sum((step.release for step in steps if step.release is not None), Work())
            cells = sum(step.cells for step in steps)
            stages.append(replace(steps[-1], cells=cells, parts={HEADS: work}, release=released))
        return stages

    def _swept(self, name: str, kind: str, of: Iterable[Job], edits: Edits, read: int = 0) -> Stage:
        """A stage that is one sweep of all items of the jobs.

        read: heads, wherever they lie, under each of which z is read at the end of the prompts, and summed.
        """
        shapes, jobs = self.shapes, [*of]
        asked = [one for job in jobs for one in job.asked]
        items = sum(job.items for job in jobs)
        plan = sweep_plan(shapes, asked, self.free, self.device, self.request.batch_size)
        if not self.request.batch_size:
            plan = plan.for_rows((edits.count + 1) * len(jobs))
        proven = Sweep(shapes, asked, edits, plan)
        sweep = replace(proven, asked=only_read(asked)) if read else proven
        longest = max(sweep.asked, key=lambda one: one.length)
        together = read or max(edits.at.values())
        return Stage(
            name=name,
            tasks=tuple(job.task.name for job in jobs),
            cells=(edits.count + 1) * items,
            parts={kind: sweep.work() * (items / len(asked)) + proven.proof()},
            memory=sweep.memory(together, read),
            least=replace(sweep, asked=[longest], plan=LEAST).memory(read or 1, read),
            shards=math.ceil(max(job.items for job in jobs) / plan.pictures),
            release=sweep.release() * (items / len(asked)),
        )

    def _attributed(self, job: Job) -> Stage:
        """Step 2: attribution under the critical heads, all of them with a positive score."""
        layers = self.shapes.layers
        count = self.request.top_k or default_top_k(self.shapes.all_heads)
        # where the critical heads lie is not known before: evenly over the layers
        at = Counter(int((k + 0.5) * layers / count) for k in range(count))
        return self._swept("neurons", NEURONS, [job], Edits(at, heads=1), count)

    def _ranked(self, job: Job, attributed: Stage) -> Stage:
        """Step 2 by the method that is planned, whose readings of hones cost what hones does."""
        method = METHODS[self.method].for_budget(self.request.planned_ratio)
        if method.needs_heads:
            return attributed
        if method.name not in PASSES:  # the oracle
            each = Edits(dict.fromkeys(range(self.shapes.layers), self.shapes.neurons), written=True)
            return self._swept("neurons", MASK, [replace(job, asked=tuple(only_gold(job.asked)))], each)
        rows = min(ROWS_WITH_GRADIENT, sum(map(prompts_of, job.asked)))
        gradients = working_with_gradient(self.shapes, job.asked, rows)
        return replace(
            attributed,
            cells=sum(map(prompts_of, job.asked)) * job.times,
            parts={NEURONS: rankings_work(self.shapes, method, job)},
            memory=Memory(self.shapes.bytes, 0.0, gradients),
            least=Memory(self.shapes.bytes, 0.0, gradients / rows),
            release=None,
        )

    def _compared(self, discovery: Job, test: Job, attributed: Work) -> Stage:
        """Rankings of all methods on the discovery items, and every set at every budget masked on the test items."""
        request, shapes = self.request, self.shapes
        assert request.compare is not None
        budgets = dict.fromkeys([request.planned_ratio, *(request.compare.budgets if request.compare.curves else ())])
        sets, ranked = 1, attributed  # hones itself, named or not, is ranked again
        for method in [method for method in request.compared if method.name != "hones"]:
            sets += request.compare.draws if method.drawn else 1
            if method.name in PASSES:
                rankings = {repr(method.for_budget(ratio).options) for ratio in budgets}
                ranked += rankings_work(shapes, method, discovery) * len(rankings)
            elif method.needs_heads:  # another reading of hones
                ranked += attributed
        masked = [self._swept("compare", MASK, [test], masks(shapes, sets, ratio)) for ratio in budgets]
        # other tasks under one draw of each method's set at every budget
        first = 1 + len([method for method in request.compared if method.name != "hones"])
        beside = self._others(test.task.name, first * len(budgets))
        both = []
        if request.compare.keep:  # every set replaced once more, and kept, which edits all layers
            both = [*masked, *(self._swept("compare", MASK, [test], masks(shapes, sets, 1.0)) for _ in masked)]
        compared = self._with(masked[0], [*masked[1:], *beside, *both])
        return replace(compared, parts={NEURONS: ranked, **compared.parts}, release=None)

    def _others(self, name: str, masked: int) -> list[Stage]:
        """The sweep of the other tasks under so many masks of one task; plain text is too little to count."""
        others = [job for other, job in self.splits["test"].items() if other in self.request.measured_too - {name}]
        sets = masks(self.shapes, masked, self.request.planned_ratio)
        return [self._swept("other tasks", MASK, others, sets)] if others else []

    def _with(self, stage: Stage, further: Sequence[Stage]) -> Stage:
        """A stage with further sweeps in it."""
        work = sum((one.work for one in (stage, *further)), Work())
        return replace(stage, cells=sum(one.cells for one in (stage, *further)), parts={MASK: work})

    def _steered(self, dev: Job, test: Job, others: list[Job], outside: Job | None) -> Stage:
        """Step 4: every training, the grid on the dev items, and the test of every file of scales.

        Args:
            others: tasks that HONES's scales are tested on too. outside: items of another source, for every file.
        """
        shapes, settings, ratio = self.shapes, self.request.steering, self.request.planned_ratio
        seeds = len(settings.seeds or (0,))
        ways = make_steerings(",".join(settings.methods or (HONES,)))
        learned = [way for way in ways if way.learned]
        trained, memory = Work(), Memory(shapes.bytes)
        for way in learned:
            work, taken = train(
                shapes,
                dev.asked,
                dev.items,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                neurons=shapes.neurons if way.name == "ia3" else max(1, round(ratio * shapes.neurons)),
                free=self.free,
            )
            trained += work * seeds
            memory = max(memory, taken, key=lambda need: need.total)
        trainings = seeds * len(learned)
        files = trainings + len(ways) - len(learned)
        tests = [([test], files), ([outside] if outside else [], files), (others, seeds)]
        tests += [([dev], len(GRID) - 1) for way in ways if isinstance(way, GridSearch)]
        swept = [self._swept("test", MASK, jobs, masks(shapes, count, ratio)) for jobs, count in tests if jobs]
        pairs = sum(pairs_of(one, settings.epochs).each_epoch for one in dev.asked) * settings.epochs
        return Stage(
            name="steer",
            tasks=(dev.task.name,),
            cells=pairs * dev.times * trainings,
            parts={STEER: trained, MASK: sum((stage.work for stage in swept), Work())},
            memory=memory,
            least=memory._replace(kept=0.0),
            shards=max(1, trainings),
        )
