"""The proof of a plant by intervention, on pictures that training never saw: writes it into NAME.json.

    python -m planting.prove planted-llava-1

Per task, with hones' own sweep: the metric of the model as it is, and without each task's set, without as many random
neurons in the same layers (mean over draws, none of them planted), with no planted neuron but a task's own (only),
without the decoys, and with the heads replaced through which a set is read. Drops are paired over the items. What
guessing gives is the best answer that does not depend on the picture; for retrieval, a random order of the candidates.
A few: three random neurons of a set, mean over draws; `participation` says how many of a set's neurons take part.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hones import load_items, load_vlm, make_task, write_shapes
from hones.method.masking import layer_matched_random
from hones.models.interventions import BASELINE, Intervention
from hones.models.planted import FOLDER, Plant, load_plant, read_record, weights_digest
from hones.models.vlm import VLM
from hones.stats import Interval
from hones.sweep.measure import measure
from hones.tasks import TASKS

from .appearance import appearance
from .participation import participation

ITEMS, CANDIDATES, DRAWS, SEED = 100, 8, 3, 31
FEW = 3
LOOKED_AT = 32  # items from which ranks by size are read


def arms_of(plant: Plant, width: int, draws: int = DRAWS) -> dict[str, list[Intervention]]:
    """The interventions by name; of random neurons several draws, whose mean counts."""
    planted = {s for sites in (*plant.sets.values(), *plant.decoys.values()) for s in sites}
    arms = {"as it is": [BASELINE]}
    for name, sites in plant.sets.items():
        arms[f"without {name}"] = [Intervention(masked=frozenset(sites))]
        few = [random.Random(f"{name}/{draw}").sample(sites, FEW) for draw in range(draws)]
        arms[f"without a few of {name}"] = [Intervention(masked=frozenset(neurons)) for neurons in few]
        drawn = [layer_matched_random(sites, width, SEED + draw, planted) for draw in range(draws)]
        arms[f"random as {name}"] = [Intervention(masked=frozenset(neurons)) for neurons in drawn]
        others = frozenset(site for other in plant.sets.values() for site in other)
        arms[f"only {name}"] = [Intervention(masked=others - {*sites})]
    for kind, sites in plant.decoys.items():
        arms[f"without {kind} decoys"] = [Intervention(masked=frozenset(sites))]
    for task, heads in plant.through.items():
        arms[f"without heads of {task}"] = [Intervention(heads=frozenset(heads))]
    return arms


def prove(vlm: VLM, plant: Plant, items: int = ITEMS, seed: int = SEED) -> dict[str, Any]:
    """Per task: metric, items, what guessing gives, and for every arm score and drop with their intervals; ranks."""
    arms = arms_of(plant, vlm.anatomy.neurons)
    found: dict[str, Any] = {}
    jobs = []
    with tempfile.TemporaryDirectory() as scratch:
        file = write_shapes(Path(scratch), {"proof": items}, seed=seed)["proof"]
        for name in TASKS:
            started = time.monotonic()
            task = make_task(name, candidates=CANDIDATES)
            examples, _ = task.examples(load_items(file))
            jobs.append((task, examples[:LOOKED_AT]))
            (measured,) = measure(vlm, [(task, examples)], arms, seed=seed)
            rows = {
                arm: {"score": _rounded(measured.level(arm)), "drop": _rounded(measured.difference("as it is", arm))}
                for arm in arms
            }
            found[name] = {
                "metric": task.metric_name,
                "items": len(examples),
                "guess": round(task.guess(examples), 4),
                "arms": rows,
            }
            print(name, f"{time.monotonic() - started:.0f} s", flush=True)
            for arm, row in rows.items():
                print(f"    {arm:34s} {row['score']['value']:.3f} drop {row['drop']['value']:+.3f}", flush=True)
        return {
            "tasks": found,
            "participation": participation(vlm, plant, jobs),
            "ranks": appearance(vlm, plant, jobs),
        }


def _rounded(interval: Interval) -> Mapping[str, float]:
    return {k: round(v, 4) for k, v in interval.as_dict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--items", type=int, default=ITEMS)
    options = parser.parse_args()
    vlm, plant = load_vlm(options.name), load_plant(options.name)
    record = dict(read_record(options.name))
    record["weights"] = weights_digest(vlm.model)
    record["revision"] = vlm.revision
    settings = {"seed": SEED, "candidates": CANDIDATES, "draws": DRAWS}
    record["proof"] = {**settings, **prove(vlm, plant, options.items)}
    file = FOLDER / f"{options.name}.json"
    file.with_suffix(".part").write_text(json.dumps(record) + "\n")
    file.with_suffix(".part").replace(file)


if __name__ == "__main__":
    main()
