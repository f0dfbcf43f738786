"""What closing neurons in rounds finds, beside one-shot rankings and controls that could refute it.

    python bench/rounds.py [--models tiny-llava tiny-qwen2.5-vl] [--tasks vqa ocr] [--seeds 1 2] [--budgets 0.01 0.03]
                           [--ways rounds hones+ ...] [--discovery 48] [--test 100] [--out FILE.md]

Sets are found on --discovery items and masked on --test others, anew for every seed and budget. A drop is a share of
the unedited model's metric; *other* is the largest of the other tasks' drops on the same pictures, *selective* the drop
less that. Values are means over the seeds, intervals resample the test items of each (paired: all sets, all tasks).

    rounds, selective, hones+, hones, dvp, ...   methods of `hones methods`
    shuffled      rounds of a contrast that knows nothing: every item is given another item's answer
    hones-rounds  rounds of HONES's own score, taken anew with the neurons masked that are closed already
    averaged      as many gradients as rounds takes, averaged: as many neurons are closed for each, but random ones
    random        random neurons
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from hones import load_items, load_vlm, localize_heads, make_task, mask_neurons, select_neurons, write_shapes
from hones.method.found import sites_of
from hones.method.neurons import attribute_neurons
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import METHODS, make_method
from hones.rivals.base import Context, Importance
from hones.rivals.hones_plus import Knowledge, answer_free_prior
from hones.rivals.rounds import Schedule, close_in_rounds
from hones.runs.method_inputs import other_tasks
from hones.stats import LEVEL, UNEDITED, Interval, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks import TASKS

WAYS = ("rounds", "selective", "hones+", "hones", "dvp", "shuffled", "hones-rounds", "averaged", "random")


def shuffled(context: Context, schedule: Schedule) -> Importance:
    """Rounds of V with the answers moved on by one item."""
    knowledge = Knowledge(context.vlm, context.task, context.examples)
    asked = knowledge.asked
    moved = zip(asked, [*asked[1:], *asked[:1]], strict=True)
    knowledge.asked = [replace(a, answer=b.answer, ids=b.ids) for a, b in moved]
    knowledge.prior = answer_free_prior(knowledge.asked, context.vlm.anatomy.lm_head.out_features)
    return in_rounds(context, schedule, knowledge.gradient)


def averaged(context: Context, schedule: Schedule) -> Importance:
    """The mean of hones+'s gradients, each with as many random neurons closed as rounds has closed by then."""
    knowledge = Knowledge(context.vlm, context.task, context.examples)
    shape = importance_shape(context.vlm)
    rng = np.random.default_rng(context.seed)
    total = np.zeros(shape)
    with frozen(context.vlm.model):
        for count in (0, *schedule.closed(context.vlm.anatomy.total_neurons)[:-1]):
            gates = np.ones(shape, dtype=np.float32)
            gates.flat[rng.choice(gates.size, count, replace=False)] = 0
            total += knowledge.gradient(gates)
    return total.astype(np.float32)


def hones_rounds(context: Context, schedule: Schedule) -> Importance:
    """Rounds of HONES's importance, by the definition, as replay knows nothing of neurons that are masked around it."""

    def score(gates: Importance) -> Importance:
        closed = [(int(layer), int(i)) for layer, i in np.argwhere(gates == 0)]
        with mask_neurons(context.vlm.model, closed):
            settings = SweepSettings("naive")
            return attribute_neurons(context.vlm, context.task, context.examples, context.heads, sweep=settings)

    return in_rounds(context, schedule, score)


def in_rounds(context: Context, schedule: Schedule, score: Callable[[Importance], Importance]) -> Importance:
    closed = schedule.closed(context.vlm.anatomy.total_neurons)
    with frozen(context.vlm.model):
        return close_in_rounds(lambda gates: score(gates).astype(np.float32), importance_shape(context.vlm), closed)


CONTROLS = {"shuffled": shuffled, "averaged": averaged, "hones-rounds": hones_rounds}


def importance_of(way: str, context: Context, budget: float) -> Importance:
    if way in CONTROLS:
        return CONTROLS[way](context, Schedule(ratio=budget))
    return make_method(way).for_budget(budget).importance(context)


@dataclass(frozen=True)
class Shares:
    """What a set costs, as shares of the baselines: its own task, each other, and both in the resamples."""

    own: float
    others: dict[str, float]
    own_resampled: np.ndarray
    others_resampled: np.ndarray

    @property
    def selective(self) -> float:
        return self.own - max(self.others.values())


def shares_of(measured: dict[str, Measurement], arm: object, own: str) -> Shares:
    def share(m: Measurement) -> float:
        return 1 - m.value(arm) / m.value(UNEDITED)

    def resampled(m: Measurement) -> np.ndarray:
        return 1 - m.resampled(arm) / m.resampled(UNEDITED)

    others = {name: m for name, m in measured.items() if name != own}
    return Shares(
        share(measured[own]),
        {name: share(m) for name, m in others.items()},
        resampled(measured[own]),
        np.max([resampled(m) for m in others.values()], axis=0),
    )


def interval(values: Sequence[float], resampled: Sequence[np.ndarray]) -> Interval:
    """Of a mean over seeds."""
    low, high = np.nanquantile(np.mean(resampled, axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


def run_seed(vlm: VLM, options: argparse.Namespace, seed: int, folder: Path) -> dict[tuple[str, str, float], Shares]:
    """Every set of a model and seed: found, then all masked in one sweep over all tasks."""
    files = write_shapes(folder, {"discovery": options.discovery, "test": options.test}, seed=seed)
    discovery, test = load_items(files["discovery"]), load_items(files["test"])
    arms: dict[object, Intervention] = {UNEDITED: BASELINE}
    for name in options.tasks:
        task = make_task(name, candidates=options.candidates)
        examples = task.examples(discovery)[0]
        heads = ()
        if any(way == "hones-rounds" or (way in METHODS and METHODS[way].needs_heads) for way in options.ways):
            heads = localize_heads(vlm, task, examples).critical
        context = Context(vlm, task, examples, heads, other_tasks(vlm, task, discovery, examples), seed=seed)
        found: dict[str, Importance] = {}
        for way, budget in product(options.ways, options.budgets):
            started = time.monotonic()
            # most methods rank once for all budgets
            method = way if way in CONTROLS else f"{way} {make_method(way).for_budget(budget).options}"
            if way in CONTROLS or method not in found:
                found[method] = importance_of(way, context, budget)
            arms[way, name, budget] = Intervention(masked=frozenset(sites_of(select_neurons(found[method], budget))))
            print(f"{vlm.name} seed {seed} {name} {way} {budget:g}: {time.monotonic() - started:.1f} s", flush=True)
    jobs = [(task, task.examples(test)[0]) for task in (make_task(n, candidates=options.candidates) for n in TASKS)]
    measured = dict(zip(TASKS, measure(vlm, jobs, arms, seed=seed), strict=True))
    return {arm: shares_of(measured, arm, arm[1]) for arm in arms if isinstance(arm, tuple)}


def lines_of(model: str, options: argparse.Namespace, by_seed: list[dict[tuple[str, str, float], Shares]]) -> list[str]:
    lines = [f"\n## {model}\n"]
    for task, budget in product(options.tasks, options.budgets):
        lines += [f"\n{task}, {100 * budget:g} %\n", "| way | drop | other | selective |", "|---|---|---|---|"]
        for way in options.ways:
            found = [shares[way, task, budget] for shares in by_seed]
            own = interval([s.own for s in found], [s.own_resampled for s in found])
            other = interval([max(s.others.values()) for s in found], [s.others_resampled for s in found])
            apart = [s.own_resampled - s.others_resampled for s in found]
            selective = interval([s.selective for s in found], apart)
            lines.append(f"| {way} | {own:.2f} | {other:.2f} | {selective:+.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the pictures")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.003, 0.01, 0.03, 0.1])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--discovery", type=int, default=48)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            vlm = load_vlm(model)
            found = [run_seed(vlm, options, seed, Path(scratch) / str(seed)) for seed in options.seeds]
            lines += lines_of(model, options, found)
    text = "\n".join(lines).strip() + "\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
