"""Forecasts of `hones plan` against real runs: seconds and operations of every stage, and peak memory.

    python bench/plan.py [--models tiny-llava tiny-qwen2.5-vl] [--items 24] [--tasks vqa retrieval] [--out FILE.md]

Each stage is calibrated, then forecast for the items, then run; the ratio is forecast / real. Peak memory is the
resident set of this process, less what it had with the model loaded, so only the largest stage can be compared.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hones import attribute_neurons, evaluate_masking, learn_scales, load_items, load_vlm, make_task, write_shapes
from hones.method.found import sites_of
from hones.method.heads import default_top_k, localize_heads_of_tasks
from hones.method.neurons import select_neurons
from hones.method.steering.evaluate import evaluate_scales
from hones.runs.plan.forecast import plan
from hones.runs.plan.request import make_request
from hones.runs.plan.shapes import GIB


def seconds_of(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


def resident() -> float:
    """Peak resident set, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(name: str, count: int, tasks: list[str], folder: Path) -> Table:
    file = write_shapes(folder / name, {"bench": count}, seed=3)["bench"]
    data = {"discovery": file, "dev": file, "test": file}
    request = make_request(model=name, data=data, tasks=tasks, calibrate=True)
    forecast = plan(request)
    vlm, items = load_vlm(name), load_items(file)
    chosen = [make_task(task) for task in tasks]
    jobs = [(task, task.examples(items)[0]) for task in chosen]
    before, real = resident(), {}
    real["heads", tuple(tasks)], heads = seconds_of(lambda: localize_heads_of_tasks(vlm, jobs))
    memory = {"heads": resident() - before}
    layers, width, _ = vlm.anatomy.shape
    for (task, examples), found in zip(jobs, heads, strict=True):
        own = (task.name,)
        critical = found.heads[: default_top_k(layers * width)]
        real["neurons", own], importance = seconds_of(
            lambda t=task, e=examples, h=critical: attribute_neurons(vlm, t, e, h)
        )
        sites = sites_of(select_neurons(importance, 0.01))
        real["mask", own], _ = seconds_of(lambda t=task, e=examples, s=sites: evaluate_masking(vlm, t, e, s))
        taken, scales = seconds_of(lambda t=task, e=examples, s=sites: learn_scales(vlm, t, e, s))
        tested, _ = seconds_of(lambda t=task, e=examples, s=scales: evaluate_scales(vlm, t, e, s))
        real["steer", own] = taken + tested
    table = Table(
        "stage", "tasks", "forecast, s", "range", "real, s", "forecast / real", title=f"{name}, {count} items"
    )
    for stage in forecast.stages:
        middle, least, most = (3600 * h for h in stage.hours(forecast.rates))
        seconds = real[stage.name, stage.tasks]
        times = (f"{middle:.1f}", f"{least:.1f} to {most:.1f}", f"{seconds:.1f}", f"{middle / seconds:.2f}")
        table.add_row(stage.name, ", ".join(stage.tasks), *times)
    taken = (forecast.stages[0].memory.total - forecast.stages[0].memory.weights) / GIB
    table.caption = (
        f"heads beyond the weights: forecast {taken:.2f} GiB, peak resident grew by {memory['heads']:.2f} GiB"
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", default=["vqa", "retrieval"])
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=120)
    hardware = platform.processor() or platform.machine()
    console.print(
        f"{hardware}, {torch.get_num_threads()} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HONES_CACHE"] = folder
        for name in options.models:
            console.print(measure(name, options.items, options.tasks, Path(folder)))
    console.print(f"load after {os.getloadavg()[0]:.1f}")
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
