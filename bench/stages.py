"""What each stage costs on a built-in model: seconds per cell of the sweep, per item of attribution, per training step.

    python bench/stages.py [--model tiny-llava] [--items 32]

Printed with the hardware and the load, since times on a busy machine say little. Ratios are within one run.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hones import load_items, load_vlm, make_task, replace_heads, write_shapes
from hones.heads import HeadScore
from hones.neurons import attribute_neurons
from hones.steering import SteeringSettings, learn_scales
from hones.sweep import sweep
from hones.tasks import TASKS
from hones.uncertainty import Interval

CANDIDATES = 10
HEADS = [(0, 0), (2, 1), (5, 3)]


def median_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """The median time of a call, after one call to warm up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--items", type=int, default=32)
    options = parser.parse_args()
    vlm = load_vlm(options.model)
    layers, heads, _ = vlm.anatomy.shape
    guides = [HeadScore(layer, head, Interval(1, 1, 1), 1, 0) for layer, head in HEADS]
    table = Table(
        "task",
        "naive sweep, ms per cell",
        "all heads, ms per item",
        "attribution, ms per item",
        "training, ms per step",
    )
    with tempfile.TemporaryDirectory() as folder:
        items = load_items(write_shapes(Path(folder), {"bench": options.items}, seed=3)["bench"])
        for name in TASKS:
            task = make_task(name, candidates=CANDIDATES)
            examples, _ = task.examples(items)
            edits = [nullcontext, *(partial(replace_heads, vlm.model, [site]) for site in HEADS)]
            cell = median_seconds(partial(sweep, vlm, task, examples, edits)) / (len(edits) * len(examples))
            found = median_seconds(partial(attribute_neurons, vlm, task, examples, guides)) / len(examples)
            settings = SteeringSettings(epochs=1, batch_size=8)
            steps = -(-len(examples) * (5 if name == "retrieval" else 1) // settings.batch_size)
            learned = median_seconds(partial(learn_scales, vlm, task, examples, [(5, 0), (4, 1)], settings)) / steps
            row = (cell, cell * (layers * heads + 1), found, learned)
            table.add_row(name, *(f"{1000 * seconds:.1f}" for seconds in row))
    console = Console()
    console.print(f"{options.model}, {options.items} items, retrieval with 1 + {CANDIDATES - 1} captions")
    hardware = platform.processor() or platform.machine()
    console.print(f"{hardware}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
