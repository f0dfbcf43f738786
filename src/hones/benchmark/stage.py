"""The benchmark as a run folder: every method on every planted model, task and seed, one cell at a time.

    OUT/data/                                 items: discovery anew for every seed, the same test items for all
    OUT/MODEL/seed-N/T/heads.json             critical heads, found once for the methods that need them
    OUT/MODEL/seed-N/T/methods/NAME/          neuron_importance.npy, neurons.json; masked.npy, cell.json
    OUT/MODEL/seed-N/T/methods/NAME/*.npy     what else is asked (`hones.benchmark.further`)
    OUT/benchmark.json                        leaderboards, rows, cells

A ranking is written when it is there, a cell when its mask has run (the missing masks of a task in one sweep, with its
journal); a rerun computes what is missing. Statistics in masked.npy are [3, items, k]: nothing, P, the method's neurons
zeroed on the test items.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hones.benchmark.contenders import Contender, Ranked
from hones.benchmark.further import beside, both_directions
from hones.benchmark.metrics import judge
from hones.benchmark.results import HONES, SHARED, Cell
from hones.benchmark.scored import Scored
from hones.benchmark.variants import Variant, check_asked, check_variant, digest_of_plant
from hones.data.items import Items
from hones.errors import HonesError, NothingGuides
from hones.files import read_npy, write_npy
from hones.log import LOG
from hones.method.neurons import select_neurons
from hones.models.interventions import BASELINE, Intervention
from hones.models.planted import Plant
from hones.models.sites import Site
from hones.models.writing import importance_shape
from hones.runs.artifacts import read_result, write_result
from hones.runs.comparing import rank
from hones.runs.locks import alone
from hones.runs.method_inputs import CriticalHeads, MethodInputs, critical_heads, method_inputs
from hones.runs.prepared import Prepared
from hones.runs.record import RunFolder
from hones.runs.study import Study
from hones.sweep.run import SweepSettings
from hones.sweep.run import sweep as run_sweep
from hones.tasks.base import Task


@dataclass(frozen=True)
class Settings:
    """items: discovery items, drawn anew for every seed. test: items to mask on, the same for all. top_k: of heads.

    both: whether each set is also kept alone and replaced along budgets. also: tasks asked under the masks too.
    """

    items: int = 48
    test: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)
    top_k: int | None = None
    both: bool = False
    also: tuple[Task, ...] = ()

    def check(self) -> None:
        """Raises HonesError for settings that cannot be."""
        if self.items < 1 or self.test < 1 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise HonesError(
                f"{self.items} items, {self.test} test items, seeds {', '.join(map(str, self.seeds)) or 'none'}",
                expected="at least one of each, and each seed once",
            )


def score_variants(
    variants: Sequence[Variant],
    tasks: Sequence[Task],
    contenders: Sequence[Contender],
    settings: Settings,
    folder: Path,
    sweep: SweepSettings | None = None,
    fresh: bool = False,
) -> list[Scored]:
    """Every cell, from the folder where it is there.

    Raises:
        HonesError: impossible settings, a plant that does not fit its model, a method that lacks what it needs, or a
            folder with cells of other settings.
    """
    settings.check()
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise HonesError(f"methods {', '.join(names) or 'none'}", expected="one or more, each with a name of its own")
    check_asked(variants, tasks, settings.also)
    run = RunFolder(folder)
    found = []
    for variant in variants:
        vlm = variant.load()
        asked = variant.asked(tasks)
        of_variant = replace(settings, also=tuple(variant.asked(settings.also)))
        check_variant(variant.plant, vlm, asked)
        test = variant.items(run.path / "data", "test", settings.test, 0)
        for seed in settings.seeds:
            discovery = variant.items(run.path / "data", "discovery", settings.items, seed)
            place = RunFolder(run.path / variant.plant.name / f"seed-{seed}")
            study = Study(vlm, place, sweep or SweepSettings(), seed, fresh)
            shared: dict[Any, Any] = {}
            for task in asked:
                found += score_task(study, task, variant.plant, discovery, test, contenders, of_variant, shared)
    return found


def score_task(
    study: Study,
    task: Task,
    plant: Plant,
    discovery: Items,
    test: Items,
    contenders: Sequence[Contender],
    settings: Settings,
    shared: dict[Any, Any],
) -> list[Scored]:
    """The cells of one task, model and seed: find heads, rank, mask, judge.

    Args:
        shared: what methods keep for other tasks on the same discovery items.
    """
    with alone(study.run.path, [task.name]):
        methods = [c.method for c in contenders]
        items = study.prepare(task, discovery, "discovery")
        held_out = study.prepare(task, test, "test")
        folder = study.run.path / task.name
        heads_file = None
        head_seconds = 0.0
        if any(method.needs_heads for method in methods):
            study.heads([task], discovery, settings.top_k)
            heads_file = folder / "heads.json"
            head_seconds = study.run.record.stages[f"{task.name}/heads"].seconds or 0.0
        nothing_guides = None  # what methods without heads do not need
        try:
            heads = critical_heads(study.vlm, task, heads_file, methods)
        except NothingGuides as error:
            heads, nothing_guides = CriticalHeads(), error
            methods = [method for method in methods if not method.needs_heads]
        read_through = {*plant.through.get(task.name, ())}
        critical = {(h.layer, h.head) for h in heads.critical}
        through = len(critical & read_through) / len(read_through) if read_through else None
        given = method_inputs(study, task, discovery, items.examples, heads, methods, shared)
        ranked = []
        for contender in contenders:
            one = _rank(study, contender, given, items, folder, len({*plant.sets[task.name]}), nothing_guides)
            if contender.name == HONES and one.refused is None:
                given = replace(given, context=replace(given.context, hones=one.importance))
            if contender.method.needs_heads:
                one = replace(one, head_seconds=head_seconds, through=through)
            ranked.append(one)
        scored = _mask(study, task, plant, items, held_out, ranked)
        return _with_further(study, task, plant, test, held_out, ranked, scored, settings)


def _rank(
    study: Study,
    contender: Contender,
    given: MethodInputs,
    items: Prepared,
    task: Path,
    planted: int,
    nothing_guides: NothingGuides | None,
) -> Ranked:
    """One contender's ranking, from the folder where it is kept there; none where no head guides to neurons."""
    folder = task / "methods" / contender.folder
    ratio = planted / study.vlm.anatomy.total_neurons
    if not contender.kept:
        study.run.forget(str(folder.relative_to(study.run.path)))
    try:
        if nothing_guides is not None and contender.method.needs_heads:
            raise nothing_guides
        ranking = rank(study, [contender.method], given, items, lambda _: folder, ratio)[contender.method.name]
        importance, seconds, refused = ranking.importances[0], ranking.seconds, None
    except NothingGuides as error:
        importance, seconds, refused = np.zeros(importance_shape(study.vlm), np.float32), 0.0, str(error)
    chosen = frozenset((n.layer, n.neuron) for n in select_neurons(importance, ratio))
    return Ranked(contender, folder, importance, chosen, seconds, refused)


def _mask(
    study: Study, task: Task, plant: Plant, items: Prepared, held_out: Prepared, ranked: Sequence[Ranked]
) -> list[Scored]:
    """Mask what is not masked yet, in one sweep, and write the cells."""
    planted = frozenset[Site](plant.sets[task.name])
    known = {"planted": digest_of_plant(plant), **study.swept()}
    stages = {}
    for ranking in ranked:
        name = f"{ranking.folder.relative_to(study.run.path)}/cell"
        if not ranking.contender.kept:
            study.run.forget(name)
        inputs = {"chosen": _digest(ranking.chosen), "ranked": ranking.digest, **known}
        stages[ranking.contender.name] = study.stage(name, held_out, **inputs)
    missing = [ranking for ranking in ranked if not stages[ranking.contender.name].is_finished()]
    if missing:
        started = time.monotonic()
        number = {frozenset[Site](): 0, planted: 1}
        for ranking in missing:
            number.setdefault(ranking.chosen, len(number))
        edits = [BASELINE, *(Intervention(masked=chosen) for chosen in [*number][1:])]
        digest = sha256(repr(sorted(map(_digest, number))).encode()).hexdigest()[:8]
        together = study.stage(f"{task.name}/cells-{digest}", held_out, **known)
        sweep = together.journalled()
        statistics = run_sweep(study.vlm, task, held_out.examples, edits, sweep, f"{plant.name}: {task.name}: masks")
        for ranking in missing:
            files = [ranking.folder / "masked.npy", ranking.folder / "cell.json"]
            masks = statistics[[0, 1, number[ranking.chosen]]].astype(np.float64)
            write_npy(files[0], masks)
            write_result(files[1], _cell(study, task, plant, items, held_out, ranking, masks))
            stages[ranking.contender.name].finish(files, time.monotonic() - started, test=held_out)
        together.clean_up()
    cells = [Scored(read_result(x.folder / "cell.json", Cell), task, read_npy(x.folder / "masked.npy")) for x in ranked]
    for scored in cells:
        if scored.cell.refused is not None:
            LOG.warning("%s: %s gives no ranking: %s", plant.name, scored.cell.method, scored.cell.refused)
    return cells


def _with_further(
    study: Study,
    task: Task,
    plant: Plant,
    test: Items,
    held_out: Prepared,
    ranked: Sequence[Ranked],
    scored: Sequence[Scored],
    settings: Settings,
) -> list[Scored]:
    """The cells with what is measured beside the mask, where that is asked."""
    known = {"planted": digest_of_plant(plant), **study.swept()}
    both: dict[str, Float[np.ndarray, "arms items k"]] = {}
    if settings.both:
        both = both_directions(study, task, held_out, ranked, len({*plant.sets[task.name]}), known)
    others = [
        (other, beside(study, task, other, study.prepare(other, test, "test"), ranked, known))
        for other in settings.also
        if other.name != task.name
    ]
    return [
        replace(s, both=both.get(s.cell.method), others=[(other, x[s.cell.method]) for other, x in others])
        for s in scored
    ]


def _cell(
    study: Study,
    task: Task,
    plant: Plant,
    items: Prepared,
    held_out: Prepared,
    one: Ranked,
    masks: Float[np.ndarray, "3 items k"],
) -> Cell:
    planted = plant.sets[task.name]
    others = other_sets(plant, task.name)
    found = judge(one.importance, planted, plant.general, others, plant.copies.get(task.name, ()))
    baseline, masked_planted, masked = (float(x) for x in task.score(masks.sum(1)))
    return Cell(
        model=plant.name,
        base=plant.base,
        role=plant.role,
        task=task.name,
        seed=study.seed,
        method=one.contender.name,
        planted=len(set(planted)),
        neurons=study.vlm.anatomy.total_neurons,
        **vars(found),
        metric_name=task.metric_name,
        items=len(items.examples),
        test_items=len(held_out.examples),
        baseline=baseline,
        masked=masked,
        masked_planted=masked_planted,
        masked_neurons=len(one.chosen),
        seconds=one.seconds,
        head_seconds=one.head_seconds,
        refused=one.refused,
        through=one.through,
    )


def other_sets(plant: Plant, task: str) -> dict[str, Collection[Site]]:
    """What a method may find instead of a task's set: decoys by kind, shared neurons, other tasks' own."""
    own, shared = set(plant.sets[task]), set(plant.general)
    sets: dict[str, Collection[Site]] = {f"decoy {kind}": sites for kind, sites in plant.decoys.items()}
    sets[SHARED] = shared - own
    sets["of other tasks"] = {site for sites in plant.sets.values() for site in sites} - own - shared
    return {name: sites for name, sites in sets.items() if sites}


def _digest(sites: frozenset[Site]) -> str:
    return sha256(repr(sorted(sites)).encode()).hexdigest()[:16]
