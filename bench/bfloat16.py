"""In bfloat16: how many cells of replay differ from the definition, beside the definition at another batch size and in
float32: the flips.

    python bench/bfloat16.py [--models tiny-llava tiny-qwen2.5-vl] [--items 32] [--edits 12] [--out FILE]

Rounding decides near-ties, so two batch sizes of one engine differ as well: that is the yardstick. A cell is an item's
statistics under one edit.
"""

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hones import load_items, load_vlm, make_task, write_shapes
from hones.models.interventions import BASELINE, Intervention
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.replay import Replay
from hones.tasks import TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--edits", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=120)
    for name in options.models:
        vlm = load_vlm(name, dtype="bfloat16")
        layers, heads, _ = vlm.anatomy.shape
        sites = random.Random(0).sample([(x, h) for x in range(layers) for h in range(heads)], options.edits)
        edits = [BASELINE, *(Intervention(heads=frozenset({site})) for site in sites)]
        engines = {
            "replay": Replay(vlm, max_new_tokens=24, plan=make_plan(vlm, 1000, None)),
            "naive, batch 8": Naive(vlm, max_new_tokens=24, batch_size=8),
            "naive, float32": Naive(load_vlm(name, dtype="float32"), max_new_tokens=24, batch_size=32),
        }
        table = Table("task", "cells", *engines, title=f"{name}, bfloat16: cells that differ from naive at batch 32")
        with tempfile.TemporaryDirectory() as folder:
            items = load_items(write_shapes(Path(folder), {"bench": options.items}, seed=3)["bench"])
            for task in (make_task(task_name, candidates=10) for task_name in TASKS):
                members = [(task, example) for example in task.examples(items)[0]]
                expected = Naive(vlm, max_new_tokens=24, batch_size=32).statistics(members, edits)
                shares = []
                for engine in engines.values():
                    pairs = zip(engine.statistics(members, edits), expected, strict=True)
                    shares.append(f"{100 * np.mean([(a != b).any(1) for a, b in pairs]):.2f} %")
                table.add_row(task.name, str(len(edits) * len(members)), *shares)
        console.print(table)
    if options.out is not None:
        command = f"python bench/bfloat16.py --models {' '.join(options.models)} --items {options.items}"
        title = f"# bfloat16\n\n`{command} --edits {options.edits}`"
        options.out.write_text(f"{title}\n\n```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
