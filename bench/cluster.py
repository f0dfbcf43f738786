"""A sweep on local Ray workers: cells per second against workers, shard times, message sizes, the driver's own cost.

    python bench/cluster.py [--model tiny-llava] [--task vqa] [--items 96] [--workers 1 2] [--out FILE]

One thread per worker (set OMP_NUM_THREADS=1 for the driver's, so that the single process has as many). Seconds count
from the first shard handed out to the last one taken, models loaded. The driver's cost of a shard is what it does
alone: unpickling a result, appending it to the journal with fsync, and placing it; measured on results of this sweep
and on random ones of a 7B sweep's shape (1,025 edits x 16 items x 1 statistic; 4 tasks) and of 7B's sums of drops; from
these, on paper, 8 to 512 GPUs.
"""

import argparse
import pickle
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from hones import load_items, load_vlm, make_task, write_shapes
from hones.method.heads import localize_heads
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.sweep.journal import Journal
from hones.sweep.memory import MemoryPlan
from hones.sweep.ray import open_pool
from hones.sweep.run import SweepSettings
from hones.sweep.shards import ShardedWork, ThisProcess, Workers


class Watched(Workers):
    """Other workers, with the time and the size of every result."""

    def __init__(self, inner: Workers) -> None:
        self.inner, self.sizes, self.came, self.started = inner, [], [], 0.0

    def plan(self, vlm: VLM, positions_per_picture: int, batch_size: int | None, most: int | None = None) -> MemoryPlan:
        """Theirs."""
        return self.inner.plan(vlm, positions_per_picture, batch_size, most)

    def begin(self, vlm: VLM, work: ShardedWork[Any, Any]) -> Callable[..., Iterator[tuple[int, Any]]]:
        """Their results as they come."""
        compute = self.inner.begin(vlm, work)

        def watched(shards: Sequence[Any], bar: tqdm) -> Iterator[tuple[int, Any]]:
            self.started = time.perf_counter()
            for number, found in compute(shards, bar):
                self.came.append(time.perf_counter() - self.started)
                self.sizes.append(len(pickle.dumps(found, protocol=5)))
                yield number, found

        return watched


def cost(arrays: list[np.ndarray], repeats: int = 20) -> tuple[float, float]:
    """Megabytes of a result, and the driver's seconds for it."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j.jsonl", {}, {}) as journal:
        message = pickle.dumps(arrays, protocol=5)
        place = [np.zeros_like(a) for a in arrays]
        started = time.perf_counter()
        for number in range(repeats):
            found = pickle.loads(message)
            journal.append(number, found)
            for to, array in zip(place, found, strict=True):
                to[:] = array
        return len(message) / 1e6, (time.perf_counter() - started) / repeats


def adding(heads: int, layers: int, neurons: int, repeats: int = 5) -> tuple[float, float]:
    """Megabytes of a shard's sums of drops, and the driver's seconds to add them."""
    total, part = np.zeros((heads, layers, neurons)), np.ones((heads, layers, neurons))
    started = time.perf_counter()
    for _ in range(repeats):
        total += part
    return part.nbytes / 1e6, (time.perf_counter() - started) / repeats


def on_paper(shard_seconds: float, items: int, driver_seconds: float) -> Table:
    """How busy N GPUs are, and the driver, when a shard of 16 pictures takes so long on one.

    Shards are alike: items / pictures of them, taken in whole rounds, so N GPUs reach shards / (N * rounds). The driver
    is busy for shards * its seconds of a shard, which do not shrink with the shard: mostly fsync.
    """
    table = Table("pictures a shard", "shards", "N GPUs", "rounds", "GPUs busy", "driver busy")
    for pictures in (16, 4, 1):
        shards, seconds = -(-items // pictures), shard_seconds * pictures / 16
        for gpus in (8, 64, 128, 256, 512):
            rounds = -(-shards // gpus)
            wall = rounds * seconds
            busy, driver = shards / (gpus * rounds), shards * driver_seconds / wall
            table.add_row(f"{pictures}", f"{shards}", f"{gpus}", f"{rounds}", f"{busy:.0%}", f"{driver:.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--task", default="vqa")
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shard-seconds", type=float, default=170.0, help="on paper: of 16 pictures of a 7B model")
    parser.add_argument("--pictures", type=int, default=5000, help="on paper")
    parser.add_argument("--only-driver", action="store_true", help="what the driver does alone, and on paper")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=120)
    console.print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s) per process")
    table = Table("where", "seconds", "cells/s", "shards", "seconds a shard", "KB a shard")
    with tempfile.TemporaryDirectory() as folder:
        items = load_items(write_shapes(folder, {"discovery": options.items})["discovery"])
        task = make_task(options.task, candidates=10)
        examples, _ = task.examples(items)

        def row(where: str, vlm: VLM, workers: Workers, count: int) -> bytes:
            watched = Watched(workers)
            sweep = SweepSettings(batch_size=options.batch_size, workers=watched)
            result = localize_heads(vlm, task, examples, sweep=sweep)
            seconds, shards = watched.came[-1], len(watched.came)
            cells = (1 + len(result.heads)) * len(examples)
            size = np.mean(watched.sizes) / 1e3
            per = seconds * count / shards
            table.add_row(where, f"{seconds:.1f}", f"{cells / seconds:.0f}", f"{shards}", f"{per:.2f}", f"{size:.1f}")
            return result.matrix(*vlm.anatomy.shape[:2]).tobytes()

        found = set() if options.only_driver else {row("one process", load_vlm(options.model), ThisProcess(), 1)}
        for count in [] if options.only_driver else options.workers:
            with open_pool(ModelSpec(options.model), "local", count, 0.0) as pool:
                while len(pool.loaded_facts) < count:
                    for handle in [s for s in pool.handles if s.facts is None]:
                        pool.take_loaded(handle, pool.first)
                found.add(row(f"{count} Ray worker(s)", pool.vlm, pool, count))
    if not options.only_driver:
        assert len(found) == 1, "the scores are not the same"
        console.print(table, "The same scores, byte for byte, in every row.")
    driver = Table("result of one shard", "MB", "driver's ms", "shards/s that a driver can take")
    sweeps = {"1,025 edits x 16 items x 1 statistic": (1025, 16, 1), "the same for 4 tasks": (1025, 64, 2)}
    costs = []
    for what, (edits, members, k) in sweeps.items():
        size, seconds = cost([np.random.default_rng(i).random((edits, k), dtype=np.float32) for i in range(members)])
        costs.append(seconds)
        driver.add_row(what, f"{size:.2f}", f"{1e3 * seconds:.1f}", f"{1 / seconds:.0f}")
    size, seconds = adding(30, 32, 11008)
    driver.add_row("sums of drops, 30 heads of a 7B model", f"{size:.0f}", f"{1e3 * seconds:.0f}", f"{1 / seconds:.1f}")
    console.print(driver)
    console.print(f"On paper, {options.pictures} pictures, {options.shard_seconds:g} s for 16 of them:")
    console.print(on_paper(options.shard_seconds, options.pictures, costs[0]))
    if options.out:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
