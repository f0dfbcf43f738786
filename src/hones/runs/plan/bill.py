"""The stages of a run, each with its work, memory and shards, counted from the lengths of its items.

heads and the analysis ask all tasks in one sweep; the other stages one task after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hones.rivals import METHODS, make_methods
from hones.method.heads import default_top_k
from hones.models.vlm import VLM
from hones.runs.plan.lengths import Asked, Job, Measured
from hones.runs.plan.memory import (Memory, attribution_memory, kept_share, least, sweep_memory, sweep_plan, training_memory)
from hones.runs.plan.rates import Rates
from hones.runs.plan.request import Request
from hones.runs.plan.shapes import Number, Shapes
from hones.runs.plan.stages import (RANKINGS, Training, attribution_work, pairs_of, spread_over_layers, training_proof, training_work)
from hones.runs.plan.sweeping import Edits, all_heads, masks, proof, release_work, sweep_work
from hones.runs.plan.work import Work
from hones.method.steering.controls import GRID, GridSearch
from hones.sweep.memory import Plan

HEADS, NEURONS, MASK, STEER = "heads", "neurons", "mask", "steer"


@dataclass(frozen=True)
class Part:
    """Work of one kind, whose share of the rate is one that was measured: heads, neurons, mask or steer."""

    kind: str
    work: Work


@dataclass(frozen=True)
class Stage:
    """One stage: its cells (answers, or trained pairs), work, memory, and the shards that it falls into.

    release: the same done one item at a time, the picture encoded for each cell. scenario: not part of the total.
    shares: of a race, the least and the most of the cells.
    """

    name: str
    tasks: tuple[str, ...]
    cells: Number
    parts: tuple[Part, ...]
    memory: Memory
    least: Memory
    shards: int
    release: Work | None = None
    scenario: bool = False
    shares: tuple[float, float] = (1.0, 1.0)

    @property
    def work(self) -> Work:
        return sum((part.work for part in self.parts), Work())

    def hours(self, rates: Rates) -> tuple[float, float, float]:
        """(middle, least, most) on one copy of the model."""
        middle, least, most = (
            sum(x) for x in zip(*(rates.seconds(part.kind, part.work.flop) for part in self.parts), strict=True)
        )
        return middle * sum(self.shares) / 7200, least * self.shares[0] / 3600, most * self.shares[1] / 3600

    def stretched(self, copies: int) -> Number:
        """Hours on so many copies over hours on one: the last shards leave copies idle."""
        return math.ceil(self.shards / copies) / self.shards


@dataclass
class Planning:
    """What the stages are counted from: the model without weights, and the lengths of every split that there is."""

    request: Request
    light: VLM
    shapes: Shapes
    dtype: str
    device: str
    free: Number
    splits: dict[str, Measured]


def stages_of(planning: Planning) -> list[Stage]:
    """Every stage that the request asks for and has items for."""
    request, splits = planning.request, planning.splits
    discovery, dev, test = (splits[s].jobs if s in splits else {} for s in ("discovery", "dev", "test"))
    found = [heads_stage(planning, [*discovery.values()])]
    if request.racing is not None:
        found.append(racing_stage(planning, [*discovery.values()]))
    found += [neurons_stage(planning, job) for job in discovery.values()]
    found += [mask_stage(planning, job) for job in test.values()]
    if request.methods and test:
        found += [compare_stage(planning, discovery[name], test[name], [*discovery.values()]) for name in discovery]
    if dev and test:
        outside = splits["ood"].jobs if "ood" in splits else {}
        for name in discovery:
            others = [job for other, job in test.items() if other != name and other in request.also]
            found.append(steer_stage(planning, dev[name], test[name], others, outside.get(name)))
    if request.analyze is not None and test:
        found.append(analyze_stage(planning, [*discovery.values()], [*test.values()]))
    return found


def _swept(planning: Planning, jobs: Sequence[Job], edits: Edits) -> tuple[Work, Plan, list[Asked]]:
    """A sweep of all items of the jobs, with its proof; its plan; and the examples measured."""
    asked = [one for job in jobs for one in job.asked]
    times = sum(job.items for job in jobs) / len(asked)
    sweep = sweep_plan(planning.shapes, asked, planning.free, planning.device, planning.request.batch_size)
    work = sweep_work(planning.shapes, asked, edits, sweep, planning.request.max_new_tokens) * times
    return work + proof(planning.shapes, asked, edits, sweep), sweep, asked


def _memory(planning: Planning, asked: Sequence[Asked], sweep: Plan, edits: Edits) -> Memory:
    prompts = max(len(one.tails) for one in asked) * sweep.pictures
    return sweep_memory(planning.shapes, asked, sweep, max(edits.at.values()) * prompts)


def _shards(jobs: Sequence[Job], sweep: Plan) -> int:
    """Groups of a sweep: pictures are those of the task that has most."""
    return max(1, math.ceil(max(job.items for job in jobs) / sweep.pictures))


def _sweep_stage(planning: Planning, name: str, kind: str, jobs: Sequence[Job], edits: Edits) -> Stage:
    """A stage that is one sweep."""
    work, sweep, asked = _swept(planning, jobs, edits)
    release = Work()
    for job in jobs:
        release += release_work(planning.shapes, job.asked, edits.count) * job.times
    cells = (edits.count + 1) * sum(job.items for job in jobs)
    names = tuple(job.task.name for job in jobs)
    memory, needed = _memory(planning, asked, sweep, edits), least(planning.shapes, asked)
    return Stage(name, names, cells, (Part(kind, work),), memory, needed, _shards(jobs, sweep), release)


def heads_stage(planning: Planning, jobs: Sequence[Job]) -> Stage:
    """Step 1: every head, all tasks in one sweep."""
    return _sweep_stage(planning, "heads", HEADS, jobs, all_heads(planning.shapes))


def racing_stage(planning: Planning, jobs: Sequence[Job]) -> Stage:
    """A scenario: a race runs a share of the cells, one task at a time."""
    shares = planning.request.racing
    assert shares is not None
    alone = [_sweep_stage(planning, "heads", HEADS, [job], all_heads(planning.shapes)) for job in jobs]
    work, first = sum((stage.work for stage in alone), Work()), alone[0]
    name = f"heads, racing: if {shares[0]:.0%} to {shares[1]:.0%} of the cells run"
    cells = sum(stage.cells for stage in alone) * sum(shares) / 2
    tasks, parts = tuple(job.task.name for job in jobs), (Part(HEADS, work),)
    return Stage(name, tasks, cells, parts, first.memory, first.least, first.shards, None, True, shares)


def _guiding(planning: Planning) -> Edits:
    """The critical heads, all of them with a positive score."""
    shapes = planning.shapes
    count = planning.request.top_k or default_top_k(shapes.layers, shapes.heads)
    return spread_over_layers(shapes, count)


def neurons_stage(planning: Planning, job: Job) -> Stage:
    """Step 2: attribution under the guiding heads."""
    shapes, edits = planning.shapes, _guiding(planning)
    sweep = sweep_plan(shapes, job.asked, planning.free, planning.device, planning.request.batch_size)
    work = attribution_work(shapes, job.asked, edits, sweep) * job.times + proof(shapes, job.asked[:1], edits, sweep)
    first = [replace(one, tails=one.tails[:1], answer=0) for one in job.asked]
    release = release_work(shapes, first, edits.count) * job.times
    memory = attribution_memory(shapes, first, sweep, edits.count)
    cells = (edits.count + 1) * job.items
    parts, needed = (Part(NEURONS, work),), attribution_memory(shapes, first, Plan(1, 1, 1), edits.count)
    return Stage("neurons", (job.task.name,), cells, parts, memory, needed, _shards([job], sweep), release)


def mask_stage(planning: Planning, job: Job) -> Stage:
    """Step 3: the selected neurons and the random sets."""
    request = planning.request
    return _sweep_stage(planning, "mask", MASK, [job], masks(planning.shapes, 1 + request.draws, request.ratio))


def compare_stage(planning: Planning, discovery: Job, test: Job, jobs: Sequence[Job]) -> Stage:
    """Rankings of all methods on the discovery items, and every set at every budget masked on the test items."""
    request, shapes = planning.request, planning.shapes
    methods = make_methods(",".join(request.methods))
    sets = 1 + sum(request.draws if method.drawn else 1 for method in methods if method.name != "hones")
    attributed = neurons_stage(planning, discovery).work
    ranked = attributed  # hones itself, named or not, is ranked again
    for method in [method for method in methods if method.name != "hones"]:
        counted = RANKINGS.get(method.name)
        if counted is None:
            ranked += attributed if method.name in METHODS and method.needs_heads else Work()
        else:
            ranked += sum((counted(shapes, one) for one in discovery.asked), Work()) * discovery.times
    masked = [_sweep_stage(planning, "mask", MASK, [test], masks(shapes, sets, ratio)) for ratio in request.ratios]
    work = sum((stage.work for stage in masked), Work())
    cells = sum(stage.cells for stage in masked)
    parts = (Part(NEURONS, ranked), Part(MASK, work))
    first = masked[0]
    return Stage("compare", (test.task.name,), cells, parts, first.memory, first.least, first.shards)


def steer_stage(
    planning: Planning, dev: Job, test: Job, others: Sequence[Job] = (), outside: Job | None = None
) -> Stage:
    """Step 4: every training, the grid on the dev items, and the test of every file of scales.

    Args:
        others: tasks that HONES's scales are tested on too. outside: items of another source, for every file.
    """
    request, shapes = planning.request, planning.shapes
    ways = request.steerings()
    trainings, tested, work = 0, 0, Work()
    memory = needed = Memory(shapes.bytes)
    pairs = sum(pairs_of(one, request.epochs).each_epoch for one in dev.asked) * dev.times * request.epochs
    for way in ways:
        tested += request.seeds if way.learned else 1
        if not way.learned:
            continue
        neurons = shapes.neurons if way.name == "ia3" else max(1, round(request.ratio * shapes.neurons))
        training = Training(request.epochs, request.step_size, neurons)
        share = kept_share(shapes, dev.asked, training, dev.items, planning.free)
        once = training_work(shapes, dev.asked, training, share) * dev.times
        once += training_proof(shapes, dev.asked[0], training)
        work += once * request.seeds
        trainings += request.seeds
        taken = training_memory(shapes, dev.asked, training, dev.items, planning.free)
        memory = max(memory, taken, key=lambda m: m.total)
        bare = training_memory(shapes, dev.asked, training, 0, 0.0)
        needed = max(needed, bare, key=lambda m: m.total)
    swept = [([job], tested) for job in (test, outside) if job is not None]
    swept += [([*others], request.seeds)] if others else []
    tests = Work()
    for jobs, files in swept:
        tests += _sweep_stage(planning, "test", MASK, jobs, masks(shapes, files, request.ratio)).work
    grids = sum(isinstance(way, GridSearch) for way in ways)
    if grids:
        tests += _sweep_stage(planning, "grid", MASK, [dev], masks(shapes, len(GRID) - 1, request.ratio)).work
    parts = (Part(STEER, work), Part(MASK, tests))
    return Stage("steer", (dev.task.name,), pairs * trainings, parts, memory, needed, max(1, trainings))


def analyze_stage(planning: Planning, discovery: Sequence[Job], test: Sequence[Job]) -> Stage:
    """At most: all groups of tasks' sets with their random ones, on all tasks; and the attribution once more.

    One shard: it runs in one process (docs/cluster.md).
    """
    request = planning.request
    assert request.analyze is not None
    sets = (2 ** len(test) - 1) * (1 + request.analyze)
    swept = _sweep_stage(planning, "analyze (at most)", MASK, test, masks(planning.shapes, sets, request.ratio))
    again = sum((neurons_stage(planning, job).work for job in discovery), Work())
    return replace(swept, parts=(*swept.parts, Part(NEURONS, again)), shards=1, release=None)
