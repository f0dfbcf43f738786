"""How much each member of a set takes part in what the set does.

Masking a whole set shows that the task needs some of it, not that it needs all: a handful might carry everything. And
one member alone may change nothing where the others make up for it. So members are zeroed three at a time:

    share[i] = mean over random triples T with i of (loss(T) - loss(T without i)) / (loss(P) - loss(none))

loss: mean over items of the gold answer's -log p. A member takes part where its share is at least LEAST; it is alone
effective where (loss({i}) - loss(none)) / (loss(P) - loss(none)) is. `members` drops those that ended without a part:
what is planted is what intervention shows, not what training was asked for.

    python -m planting.participation NAME    # once after training: reduces the sets in NAME.json
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hones import load_items, load_vlm, make_task, write_shapes
from hones.comparators.reading import ask_with_gold
from hones.interventions import Site, mask_neurons
from hones.models.planted import FOLDER, Plant, load_plant, read_record
from hones.models.vlm import VLM
from hones.tasks import TASKS
from hones.tasks.base import Example, Task

LEAST, ROUNDS, AT_ONCE = 0.01, 2, 16
SEED = 33  # of the pictures by which members are kept; the proof has others


def members(vlm: VLM, plant: Plant, jobs: Sequence[tuple[Task, Sequence[Example]]]) -> dict[str, tuple[Site, ...]]:
    """Each task's set without the neurons that take part in none of the tasks that share it."""
    found = participation(vlm, plant, jobs)
    taking_part = {
        task: {site for site, share in zip(plant.sets[task], row["shares"], strict=True) if share >= LEAST}
        for task, row in found.items()
    }
    kept = {}
    for task, sites in plant.sets.items():
        owners = [other for other in plant.sets if plant.sets[other] == sites]
        kept[task] = tuple(site for site in sites if any(site in taking_part[other] for other in owners))
    return kept


def participation(vlm: VLM, plant: Plant, jobs: Sequence[tuple[Task, Sequence[Example]]]) -> dict[str, Any]:
    """By task: its set's size, how many members take part, how many do alone, all shares in the set's order."""
    return {task.name: _of_task(vlm, task, examples, plant.sets[task.name]) for task, examples in jobs}


def _of_task(vlm: VLM, task: Task, examples: Sequence[Example], sites: tuple[Site, ...]) -> dict[str, Any]:
    encoded = ask_with_gold(vlm, task, examples[:AT_ONCE])
    known: dict[frozenset[Site], float] = {}

    @torch.no_grad()
    def loss(masked: Sequence[Site]) -> float:
        key = frozenset(masked)
        if key not in known:
            with mask_neurons(vlm.model, masked):
                known[key] = -float(vlm.log_probabilities(encoded).mean())
        return known[key]

    whole = loss(sites) - loss(())
    rng = random.Random(f"participation/{task.name}")
    shares: dict[Site, list[float]] = {site: [] for site in sites}
    for _ in range(ROUNDS):
        order = rng.sample(sites, len(sites))
        for triple in (order[k : k + 3] for k in range(0, len(order), 3)):
            for site in triple:
                shares[site].append((loss(triple) - loss([s for s in triple if s != site])) / whole)
    means = [sum(shares[site]) / ROUNDS for site in sites]
    alone = [(loss([site]) - loss(())) / whole for site in sites]
    return {
        "members": len(sites),
        "take part": sum(share >= LEAST for share in means),
        "alone effective": sum(share >= LEAST for share in alone),
        "shares": [round(share, 4) for share in means],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    name = parser.parse_args().name
    plant, jobs = load_plant(name), []
    with tempfile.TemporaryDirectory() as scratch:
        items = load_items(write_shapes(Path(scratch), {"members": AT_ONCE}, seed=SEED)["members"])
        for task in (make_task(task, candidates=2) for task in TASKS):
            jobs.append((task, task.examples(items)[0]))
        kept = members(load_vlm(name), plant, jobs)
    record = dict(read_record(name))
    record["trained"] = {task: len(sites) for task, sites in plant.sets.items()}
    record["plant"] = {**record["plant"], "sets": kept}
    (FOLDER / f"{name}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
