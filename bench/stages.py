"""Attribution naive and by replay, a training step, and peak memory against the number of items.

    python bench/stages.py [--model tiny-llava] [--items 32] [--memory 16 64 256] [--out FILE]

Peak memory is the resident set of a process of its own for each stage and number of items.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hones import load_items, load_vlm, localize_heads, make_task, write_shapes
from hones.method.heads import HeadScore
from hones.method.neurons import attribute_neurons
from hones.method.steering.settings import SteeringSettings
from hones.method.steering.train import learn_scales
from hones.stats import Interval
from hones.sweep.run import SweepSettings
from hones.tasks import TASKS

HEADS = [(0, 0), (0, 1), (1, 2), (2, 1), (5, 3)]
GUIDES = [HeadScore(layer, head, Interval(1, 1, 1), 1, 0) for layer, head in HEADS]


def median_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """The median time of a call, after one call to warm up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def speed(model: str, count: int) -> Table:
    vlm = load_vlm(model)
    table = Table("task", "naive, ms per item", "replay", "ratio", "training, ms per step of 8", title="attribution")
    with tempfile.TemporaryDirectory() as folder:
        items = load_items(write_shapes(Path(folder), {"bench": count}, seed=3)["bench"])
        for name in TASKS:
            task = make_task(name, candidates=10)
            examples, _ = task.examples(items)
            naive, replay = (
                median_seconds(partial(attribute_neurons, vlm, task, examples, GUIDES, sweep=SweepSettings(engine)))
                for engine in ("naive", "replay")
            )
            settings = SteeringSettings(epochs=1, batch_size=8)
            steps = -(-len(examples) * (5 if name == "retrieval" else 1) // settings.batch_size)
            learned = median_seconds(partial(learn_scales, vlm, task, examples, [(5, 0), (4, 1)], settings), 1) / steps
            times = (f"{1000 * seconds / count:.1f}" for seconds in (naive, replay))
            table.add_row(name, *times, f"{naive / replay:.1f}x", f"{1000 * learned:.0f}")
    return table


def use_memory(model: str, stage: str, count: int) -> None:
    """Run a stage on so many items and print this process's peak resident set in MiB, before and after."""
    vlm, task = load_vlm(model), make_task("caption")
    with tempfile.TemporaryDirectory() as folder:
        items = load_items(write_shapes(Path(folder), {"bench": count}, seed=3)["bench"])
        examples, _ = task.examples(items)
        if stage == "heads":
            localize_heads(vlm, task, examples)
        else:
            attribute_neurons(vlm, task, examples, GUIDES)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory(model: str, counts: list[int]) -> Table:
    table = Table("stage", *(f"{count} items" for count in counts), title="peak resident memory, MiB (caption)")
    for stage in ("heads", "neurons"):
        peaks = []
        for count in counts:
            command = [sys.executable, __file__, "--model", model, "--only", stage, "--items", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(f"{float(done.stdout.split()[-1]):.0f}")
        table.add_row(stage, *peaks)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--memory", type=int, nargs="*", default=[16, 64, 256])
    parser.add_argument("--only", choices=("heads", "neurons"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.only:
        use_memory(options.model, options.only, options.items)
        return
    console = Console(record=True, width=120)
    hardware = platform.processor() or platform.machine()
    console.print(f"{options.model}, {hardware}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    console.print(speed(options.model, options.items))
    console.print(memory(options.model, options.memory))
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
