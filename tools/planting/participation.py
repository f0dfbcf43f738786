"""How much each member of a set takes part in what the set does.

Masking a whole set shows that the task needs some of it, not that it needs all: a handful might carry everything. And
one member alone may change nothing where the others make up for it. So members are zeroed three at a time:

    share[i] = mean over random triples T with i of (loss(T) - loss(T without i)) / (loss(P) - loss(none))

loss: mean over items of the gold answer's -log p; for answers Yes or No, of one candidate of each, half each. A member
takes part where its share is at least LEAST; it is alone effective where (loss({i}) - loss(none)) / (loss(P) -
loss(none)) is. `members` keeps those of a task that take part in it: what is planted is what intervention shows, not
what training was asked for. Of a set that two tasks were trained to share, each keeps its own.

    python -m planting.participation NAME    # once after training: reduces the sets in NAME.json
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hones import load_items, load_vlm, make_task, write_shapes
from hones.models.interventions import BASELINE, Intervention
from hones.models.planted import FOLDER, Plant, load_plant, read_record
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.sweep.run import sweep
from hones.tasks import TASKS
from hones.tasks.base import Example, Task
from hones.tasks.log_probability import LogProbability

LEAST, ROUNDS, ITEMS = 0.01, 4, 32
SEED = 33  # of the pictures by which members are kept; the proof has others


def members(vlm: VLM, plant: Plant, jobs: Sequence[tuple[Task, Sequence[Example]]]) -> dict[str, tuple[Site, ...]]:
    """Each task's set without the neurons that take no part in it."""
    return {
        task: tuple(s for s, share in zip(plant.sets[task], row["shares"], strict=True) if share >= LEAST)
        for task, row in participation(vlm, plant, jobs).items()
    }


def participation(vlm: VLM, plant: Plant, jobs: Sequence[tuple[Task, Sequence[Example]]]) -> dict[str, Any]:
    """By task: its set's size, how many members take part, how many do alone, all shares in the set's order."""
    return {task.name: _of_task(vlm, task, examples, plant.sets[task.name]) for task, examples in jobs}


def _of_task(vlm: VLM, task: Task, examples: Sequence[Example], sites: tuple[Site, ...]) -> dict[str, Any]:
    rng, triples = random.Random(f"participation/{task.name}"), []
    for _ in range(ROUNDS):
        order = rng.sample(sites, len(sites))
        triples += [frozenset(order[k : k + 3]) for k in range(0, len(order), 3)]
    alone, smaller = [frozenset({site}) for site in sites], [t - {site} for t in triples for site in sorted(t)]
    loss = _losses(vlm, task, examples, [frozenset(), frozenset(sites), *alone, *triples, *smaller])
    whole = loss[frozenset(sites)] - loss[frozenset()]
    shares = {site: [(loss[t] - loss[t - {site}]) / whole for t in triples if site in t] for site in sites}
    means = [sum(found) / len(found) for found in shares.values()]
    effects = [(loss[one] - loss[frozenset()]) / whole for one in alone]
    return {
        "members": len(sites),
        "take part": sum(share >= LEAST for share in means),
        "alone effective": sum(effect >= LEAST for effect in effects),
        "shares": [round(share, 4) for share in means],
    }


def _losses(
    vlm: VLM, task: Task, examples: Sequence[Example], masked: Sequence[frozenset[Site]]
) -> dict[frozenset[Site], float]:
    """The mean loss with each of these sets zeroed, in nats."""
    measured = LogProbability(task)
    asked = [measured.with_gold(e) for e in examples]
    if task.answers == "yes_no":
        asked += [replace(e, prompts=e.prompts[1:2], references=("No",)) for e in examples]
    sets = list(dict.fromkeys(masked))
    edits = [Intervention(masked=sites) if sites else BASELINE for sites in sets]
    losses = -measured.score(sweep(vlm, measured, asked, edits).sum(1, dtype=np.float64))
    return dict(zip(sets, losses.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    name = parser.parse_args().name
    plant, jobs = load_plant(name), []
    with tempfile.TemporaryDirectory() as scratch:
        items = load_items(write_shapes(Path(scratch), {"members": ITEMS}, seed=SEED)["members"])
        for task in (make_task(task, candidates=2) for task in TASKS):
            jobs.append((task, task.examples(items)[0]))
        kept = members(load_vlm(name), plant, jobs)
    record = dict(read_record(name))
    record["trained"] = {task: len(sites) for task, sites in plant.sets.items()}
    record["plant"] = {**record["plant"], "sets": kept}
    (FOLDER / f"{name}.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
