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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hones.method.heads import default_top_k
from hones.method.steering.controls import GRID, HONES, GridSearch
from hones.rivals import METHODS
from hones.rivals.compare import BUDGETS
from hones.runs.plan import sweeping, training
from hones.runs.plan.lengths import Job, Measured
from hones.runs.plan.memory import LEAST, Memory, sweep_memory, training_memory
from hones.runs.plan.rates import HEADS, MASK, NEURONS, STEER, Rates
from hones.runs.plan.request import Request
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.sweeping import Edits, only_read, sweep_plan
from hones.runs.plan.work import Work
from hones.runs.ways import make_steerings


@dataclass(frozen=True)
class Stage:
    """One stage: its cells (answers, or trained pairs), work, memory, and the shards that it falls into.

    parts: work by the kind whose share of the rate was measured. release: the same done one item at a time, the picture
    encoded for each cell. scenario: not part of the total. shares: of a race, the least and the most of the cells.
    """

    name: str
    tasks: tuple[str, ...]
    cells: Number
    parts: Mapping[str, Work]
    memory: Memory
    least: Memory
    shards: int
    release: Work | None = None
    scenario: bool = False
    shares: tuple[float, float] = (1.0, 1.0)

    @property
    def work(self) -> Work:
        return sum(self.parts.values(), Work())

    def hours(self, rates: Rates) -> tuple[float, float, float]:
        """(middle, least, most) on one copy of the model."""
        seconds = [rates.seconds(kind, work.flop) for kind, work in self.parts.items()]
        middle, least, most = map(sum, zip(*seconds, strict=True))
        return middle * sum(self.shares) / 7200, least * self.shares[0] / 3600, most * self.shares[1] / 3600

    def stretched(self, copies: int) -> Number:
        """Hours on so many copies over hours on one: the last shards leave copies idle."""
        return math.ceil(self.shards / copies) / self.shards


@dataclass
class Bill:
    """What the stages are counted from: shapes, the lengths of every split that there is, and the free memory."""

    request: Request
    shapes: Shapes
    device: str
    free: Number
    splits: Mapping[str, Measured]

    def stages(self) -> list[Stage]:
        """Every stage that the request asks for and has items for."""
        request, shapes = self.request, self.shapes
        jobs = {split: measured.jobs for split, measured in self.splits.items()}
        discovery, dev, test, outside = (jobs.get(split, {}) for split in ("discovery", "dev", "test", "ood"))
        stages = [self.swept("heads", HEADS, discovery.values(), sweeping.all_heads(shapes))]
        if request.racing is not None:
            alone = [self.swept("heads", HEADS, [job], sweeping.all_heads(shapes)) for job in discovery.values()]
            stages.append(as_race(alone, request.racing))
        neurons = {name: self.attributed(job) for name, job in discovery.items()}
        stages += neurons.values()
        sets = sweeping.masks(shapes, 1 + request.draws, request.ratio)
        stages += [self.swept("mask", MASK, [job], sets) for job in test.values()]
        if request.compare is not None and test:
            stages += [self.compared(discovery[name], test[name], neurons[name].work) for name in discovery]
        if dev and test:
            for name in discovery:
                others = [job for other, job in test.items() if other != name and other in request.tested_too]
                stages.append(self.steered(dev[name], test[name], others, outside.get(name)))
        if request.analyze is not None and test:
            # at most: all groups of tasks' sets with their random ones, in one process (docs/cluster.md)
            count = (2 ** len(test) - 1) * (1 + request.analyze.draws)
            sets = sweeping.masks(shapes, count, request.ratio)
            swept = self.swept("analyze (at most)", MASK, test.values(), sets)
            parts = {**swept.parts, NEURONS: sum((stage.work for stage in neurons.values()), Work())}
            stages.append(replace(swept, parts=parts, shards=1, release=None))
        return stages

    def swept(self, name: str, kind: str, of: Iterable[Job], edits: Edits) -> Stage:
        """A stage that is one sweep of all items of the jobs."""
        shapes, jobs = self.shapes, [*of]
        asked = [one for job in jobs for one in job.asked]
        items = sum(job.items for job in jobs)
        plan = sweep_plan(shapes, asked, self.free, self.device, self.request.batch_size)
        work = sweeping.sweep_work(shapes, asked, edits, plan) * (items / len(asked))
        return Stage(
            name=name,
            tasks=tuple(job.task.name for job in jobs),
            cells=(edits.count + 1) * items,
            parts={kind: work + sweeping.proof(shapes, asked, edits, plan)},
            memory=sweep_memory(shapes, asked, plan, max(edits.at.values())),
            least=sweep_memory(shapes, [max(asked, key=lambda one: one.length)], LEAST, 1),
            shards=math.ceil(max(job.items for job in jobs) / plan.pictures),
            release=sum((sweeping.release_work(shapes, job.asked, edits.count) * job.times for job in jobs), Work()),
        )

    def attributed(self, job: Job) -> Stage:
        """Step 2: attribution under the critical heads, all of them with a positive score."""
        shapes, request, asked = self.shapes, self.request, only_read(job.asked)
        count = request.top_k or default_top_k(shapes.layers, shapes.heads)
        # where the critical heads lie is not known before: evenly over the layers
        edits = Edits(Counter(int((k + 0.5) * shapes.layers / count) for k in range(count)), heads=1)
        plan = sweep_plan(shapes, job.asked, self.free, self.device, request.batch_size)
        work = sweeping.attribution_work(shapes, job.asked, edits, plan) * job.times
        return Stage(
            name="neurons",
            tasks=(job.task.name,),
            cells=(count + 1) * job.items,
            parts={NEURONS: work + sweeping.proof(shapes, job.asked[:1], edits, plan)},
            memory=sweep_memory(shapes, asked, plan, count, summed=count),
            least=sweep_memory(shapes, asked, LEAST, count, summed=count),
            shards=math.ceil(job.items / plan.pictures),
            release=sweeping.release_work(shapes, asked, count) * job.times,
        )

    def compared(self, discovery: Job, test: Job, attributed: Work) -> Stage:
        """Rankings of all methods on the discovery items, and every set at every budget masked on the test items."""
        request, shapes = self.request, self.shapes
        assert request.compare is not None
        sets, ranked = 1, attributed  # hones itself, named or not, is ranked again
        for method in [method for method in request.compared if method.name != "hones"]:
            sets += request.compare.draws if method.drawn else 1
            if method.name in training.PASSES:
                works = (training.ranking_work(shapes, method.name, one) for one in discovery.asked)
                ranked += sum(works, Work()) * discovery.times
            elif method.name in METHODS and method.needs_heads:  # another reading of hones
                ranked += attributed
        budgets = dict.fromkeys([request.ratio, *(BUDGETS if request.compare.curves else ())])
        masked = [self.swept("compare", MASK, [test], sweeping.masks(shapes, sets, ratio)) for ratio in budgets]
        cells = sum(stage.cells for stage in masked)
        parts = {NEURONS: ranked, MASK: sum((stage.work for stage in masked), Work())}
        return replace(masked[0], cells=cells, parts=parts, release=None)

    def steered(self, dev: Job, test: Job, others: list[Job], outside: Job | None) -> Stage:
        """Step 4: every training, the grid on the dev items, and the test of every file of scales.

        Args:
            others: tasks that HONES's scales are tested on too. outside: items of another source, for every file.
        """
        request, shapes, settings = self.request, self.shapes, self.request.steering
        seeds = len(settings.seeds or (0,))
        ways = make_steerings(",".join(settings.methods or (HONES,)))
        learned = [way for way in ways if way.learned]
        work, memory, least = Work(), Memory(shapes.bytes), Memory(shapes.bytes)
        for way in learned:
            neurons = shapes.neurons if way.name == "ia3" else max(1, round(request.ratio * shapes.neurons))
            job = training.Training(settings.epochs, settings.batch_size, neurons)
            taken = training_memory(shapes, dev.asked, job, dev.items, self.free)
            share = taken.kept / max(1.0, training.kept_bytes(shapes, dev.asked, job, dev.items))
            once = training.training_work(shapes, dev.asked, job, share) * dev.times
            work += (once + training.training_proof(shapes, dev.asked[0], job)) * seeds
            memory = max(memory, taken, key=lambda need: need.total)
            least = max(least, replace(taken, kept=0.0), key=lambda need: need.total)
        trainings = seeds * len(learned)
        files = trainings + len(ways) - len(learned)
        tests = [([test], files), ([outside] if outside else [], files), (others, seeds)]
        tests += [([dev], len(GRID) - 1) for way in ways if isinstance(way, GridSearch)]
        tested = Work()
        for jobs, edits in tests:
            tested += (
                self.swept("test", MASK, jobs, sweeping.masks(shapes, edits, request.ratio)).work if jobs else Work()
            )
        pairs = sum(training.pairs_of(one, settings.epochs).each_epoch for one in dev.asked) * settings.epochs
        cells = pairs * dev.times * trainings
        parts = {STEER: work, MASK: tested}
        return Stage("steer", (dev.task.name,), cells, parts, memory, least, max(1, trainings))


def as_race(alone: list[Stage], shares: tuple[float, float]) -> Stage:
    """A scenario: a race runs a share of the cells, one task at a time."""
    return replace(
        alone[0],
        name=f"heads, racing: if {shares[0]:.0%} to {shares[1]:.0%} of the cells run",
        tasks=tuple(task for stage in alone for task in stage.tasks),
        cells=sum(stage.cells for stage in alone) * sum(shares) / 2,
        parts={HEADS: sum((stage.work for stage in alone), Work())},
        release=None,
        scenario=True,
        shares=shares,
    )
