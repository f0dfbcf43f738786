"""Racing against the exact sweep: share of the exact top K found, and share of cells run, over seeds.

    python bench/racing.py [--models tiny-llava tiny-qwen2.5-vl] [--items 300] [--drawn 5000] [--seeds 10] [--out FILE]

The exact cells of --items pictures are computed once; --drawn items are drawn from them with replacement, the size of a
real discovery set at a fraction of its cost, and the exact top K is that of the drawn items. A race sees them in its
own order, look by look, as `hones heads --racing` would.
`exact, or as good`: share of the found heads whose exact score is at most the margin below the K-th; `regret`: how much
lower the mean exact score of the found heads is than that of the exact top K.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hones import load_items, load_vlm, make_task, write_shapes
from hones.method.heads import default_top_k
from hones.models.interventions import BASELINE, Intervention
from hones.sweep.racing import Race, RaceRules
from hones.sweep.run import sweep_tasks
from hones.tasks import TASKS
from hones.tasks.base import Task


def run_race(task: Task, cells: np.ndarray, top_k: int, rules: RaceRules, seed: int) -> tuple[set[int], float]:
    """The entrants that a race finds, and the share of cells that it runs."""
    entrants, items = cells.shape[0] - 1, cells.shape[1]
    order = random.Random(seed).sample(range(items), items)
    race, run = Race(task, top_k, entrants, items, rules, seed), 0
    for start in range(0, items, rules.look):
        running = race.alive
        if not running:
            break
        run += len(running) * len(order[start : start + rules.look])
        race.take(cells, order[start : start + rules.look])
    base = {e: float(task.score(cells[0, race.items_of(e)].sum(0))) for e in range(1, entrants + 1)}
    own = {e: base[e] - float(task.score(cells[e, race.items_of(e)].sum(0))) for e in base}
    ranked = sorted(own, key=lambda e: (e in race.dropped, -own[e], e))
    return set(ranked[:top_k]), run / cells.shape[0] / items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--drawn", type=int, default=5000)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--look", type=int, default=64, help="items per look")
    parser.add_argument("--margins", type=float, nargs="+", default=[0.003, 0.005, 0.01])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=140)
    for name in options.models:
        vlm = load_vlm(name)
        layers, heads, _ = vlm.anatomy.shape
        edits = [BASELINE, *(Intervention(heads=frozenset({(x, h)})) for x in range(layers) for h in range(heads))]
        tasks = [make_task(task, candidates=options.candidates) for task in options.tasks]
        with tempfile.TemporaryDirectory() as folder:
            items = load_items(write_shapes(Path(folder), {"bench": options.items}, seed=9)["bench"])
            jobs = [(task, task.examples(items)[0]) for task in tasks]
            swept = sweep_tasks(vlm, jobs, edits)
        title = f"{name}: {options.drawn} items drawn from {options.items}, confidence 0.95, {options.seeds} seeds, "
        title += f"a look every {options.look} items"
        table = Table(
            "task", "margin", "of the exact top K", "exact, or as good", "of the cells", "regret", title=title
        )
        drawn = np.random.default_rng(0).integers(options.items, size=options.drawn)
        for task, statistics in zip(tasks, swept, strict=True):
            cells = statistics[:, drawn]
            top_k = default_top_k(layers * heads)
            score = np.array([float(task.score(arm.sum(0))) for arm in cells])
            drops = {e: score[0] - score[e] for e in range(1, len(cells))}
            exact = set(sorted(drops, key=lambda e: (-drops[e], e))[:top_k])
            for margin in options.margins:
                rules = RaceRules(0.95, margin, options.look)
                races = [run_race(task, cells, top_k, rules, seed) for seed in range(options.seeds)]
                found = np.mean([len(chosen & exact) / top_k for chosen, _ in races])
                enough = min(drops[e] for e in exact) - margin
                close = np.mean([drops[e] >= enough for chosen, _ in races for e in chosen])
                best = np.mean([drops[e] for e in exact])
                regret = best - np.mean([drops[e] for chosen, _ in races for e in chosen])
                share = np.mean([share for _, share in races])
                shown = (f"{100 * found:.0f} %", f"{100 * close:.0f} %", f"{100 * share:.0f} %", f"{regret:.4f}")
                table.add_row(task.name, f"{margin}", *shown)
        console.print(table)
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
