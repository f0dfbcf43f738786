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

Variants of rounds, none of them in the product:

    rounds-N      N rounds
    swapped       each round chooses among all neurons anew, also what it has closed: where opening would bring most
    stopped       no further gradient once less than a tenth of V is left; the rest by the last one before
    conditioned   the critical heads replaced meanwhile: what these heads do not carry, HONES's idea the other way round
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from hones import (
    load_items,
    load_vlm,
    localize_heads,
    make_task,
    mask_neurons,
    replace_heads,
    select_neurons,
    write_shapes,
)
from hones.method.found import sites_of
from hones.method.neurons import attribute_neurons
from hones.models.interventions import BASELINE, Intervention
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.rivals import METHODS, make_method
from hones.rivals.base import Context, Importance
from hones.rivals.best_of import TRIALS
from hones.rivals.hones_plus import Knowledge, answer_free_prior
from hones.rivals.rounds import Schedule, close_in_rounds, largest
from hones.runs.method_inputs import other_tasks
from hones.stats import UNEDITED, Share, interval_of
from hones.sweep.measure import measure
from hones.sweep.run import SweepSettings
from hones.tasks import TASKS

LEFT = 0.1
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


def swapped(context: Context, schedule: Schedule) -> Importance:
    """The gradient at which the last set was chosen, of that set."""
    knowledge = Knowledge(context.vlm, context.task, context.examples)
    gates = np.ones(importance_shape(context.vlm), dtype=np.float32)
    gradient = gates
    with frozen(context.vlm.model):
        for count in schedule.closed(gates.size):
            gradient = knowledge.gradient(gates).astype(np.float32)
            gates = np.ones_like(gradient)
            gates.flat[largest(gradient, count)] = 0
    return np.where(gates == 0, gradient, 0)


def stopped(context: Context, schedule: Schedule) -> Importance:
    """Rounds in which a gradient that would be taken where nothing is left is the one before."""
    knowledge = Knowledge(context.vlm, context.task, context.examples)
    opened = knowledge.value(np.ones(importance_shape(context.vlm), dtype=np.float32))
    taken: list[Importance] = []

    def score(gates: Importance) -> Importance:
        if not taken or knowledge.value(gates) > LEFT * opened:
            taken.append(knowledge.gradient(gates))
        return taken[-1]

    return in_rounds(context, schedule, score)


def conditioned(context: Context, schedule: Schedule) -> Importance:
    """Rounds of the model without the critical heads."""
    knowledge = Knowledge(context.vlm, context.task, context.examples)
    with replace_heads(context.vlm.model, [(head.layer, head.head) for head in context.heads]):
        return in_rounds(context, schedule, knowledge.gradient)


CONTROLS = {
    "shuffled": shuffled,
    "averaged": averaged,
    "hones-rounds": hones_rounds,
    "swapped": swapped,
    "stopped": stopped,
    "conditioned": conditioned,
}
NEED_HEADS = ("hones-rounds", "conditioned")


def importance_of(way: str, context: Context, budget: float) -> Importance:
    if way in CONTROLS:
        return CONTROLS[way](context, Schedule(ratio=budget))
    if way.startswith("rounds-"):
        of_way = make_method("rounds").with_schedule(rounds=int(way.removeprefix("rounds-")))
        return of_way.for_budget(budget).importance(context)
    return make_method(way).for_budget(budget).importance(context)


Shares = dict[str, Share]
"""What a set costs each task, as a share of its baseline."""


def mean(shares: Sequence[Share]) -> Share:
    """Over seeds."""
    return Share(float(np.mean([s.value for s in shares])), np.mean([s.resampled for s in shares], axis=0))


def run_seed(vlm: VLM, options: argparse.Namespace, seed: int, folder: Path) -> dict[tuple[str, str, float], Shares]:
    """Every set of a model and seed: found, then all masked in one sweep over all tasks."""
    files = write_shapes(folder, {"discovery": options.discovery, "test": options.test}, seed=seed)
    discovery, test = load_items(files["discovery"]), load_items(files["test"])
    arms: dict[object, Intervention] = {UNEDITED: BASELINE}
    for name in options.tasks:
        task = make_task(name, candidates=options.candidates)
        examples = task.examples(discovery)[0]
        heads = ()
        if any(way in NEED_HEADS or (way in METHODS and METHODS[way].needs_heads) for way in options.ways):
            heads = localize_heads(vlm, task, examples).critical
        context = Context(vlm, task, examples, heads, other_tasks(vlm, task, discovery, examples), seed=seed)
        found: dict[str, Importance] = {}
        for way, budget in product(options.ways, options.budgets):
            started = time.monotonic()
            # most methods rank once for all budgets
            anew = way in CONTROLS or way.startswith("rounds-")
            method = way if anew else f"{way} {make_method(way).for_budget(budget).options}"
            if anew or method not in found:
                found[method] = importance_of(way, context, budget)
            arms[way, name, budget] = Intervention(masked=frozenset(sites_of(select_neurons(found[method], budget))))
            print(f"{vlm.name} seed {seed} {name} {way} {budget:g}: {time.monotonic() - started:.1f} s", flush=True)
            if way == "best-of":
                print(f"    {context.shared[TRIALS, name, budget]}", flush=True)
    jobs = [(task, task.examples(test)[0]) for task in (make_task(n, candidates=options.candidates) for n in TASKS)]
    measured = dict(zip(TASKS, measure(vlm, jobs, arms, seed=seed), strict=True))
    shares = {arm: {name: m.share_lost(arm) for name, m in measured.items()} for arm in arms if isinstance(arm, tuple)}
    # a task that the model cannot do has nothing to lose
    return {arm: {name: s for name, s in found.items() if s is not None} for arm, found in shares.items()}


def lines_of(model: str, options: argparse.Namespace, by_seed: list[dict[tuple[str, str, float], Shares]]) -> list[str]:
    lines = [f"\n## {model}, seeds {' '.join(map(str, options.seeds[: len(by_seed)]))}\n"]
    for task, budget in product(options.tasks, options.budgets):
        lines += [f"\n{task}, {100 * budget:g} %\n", "| way | drop | other | selective |", "|---|---|---|---|"]
        for way in options.ways:
            of_seeds = [shares[way, task, budget] for shares in by_seed]
            of_task = {name: mean([found[name] for found in of_seeds]) for name in of_seeds[0]}
            own = of_task.pop(task)
            worst = max(of_task, key=lambda name: of_task[name].value)
            drop = interval_of(own.value, own.resampled)
            selective = own.beyond(list(of_task.values()))
            lines.append(f"| {way} | {drop:.2f} | {of_task[worst].value:.2f} {worst} | {selective:+.2f} |")
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
    found: dict[str, list[dict[tuple[str, str, float], Shares]]] = {model: [] for model in options.models}
    with tempfile.TemporaryDirectory() as scratch:
        for seed, model in product(options.seeds, options.models):
            found[model].append(run_seed(load_vlm(model), options, seed, Path(scratch) / f"{model}-{seed}"))
            lines = [line for name, of_seeds in found.items() if of_seeds for line in lines_of(name, options, of_seeds)]
            if options.out is not None:  # of the seeds so far, should it be stopped
                options.out.write_text("\n".join(lines).strip() + "\n")
    print("\n".join(lines).strip())


if __name__ == "__main__":
    main()
