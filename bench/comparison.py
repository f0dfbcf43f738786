"""Every method that ranks neurons against HONES, on both built-in models and all four tasks.

    python bench/comparison.py [--models tiny-llava tiny-qwen2.5-vl] [--ratio 0.03] [--to FOLDER] [--out FILE.md]

Sets are found on --discovery items and masked on --test others; intervals and p values are paired over the test items.
With --to the run folders stay, so that a second run goes on where the first stopped.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from hones import RunFolder, Study, load_items, load_vlm, make_task, write_shapes
from hones.rivals import make_methods
from hones.runs.comparing import ComparisonRequest, compare
from hones.tasks import TASKS
from hones.views.terminal import view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--methods", default="all")
    parser.add_argument("--ratio", type=float, default=0.03)
    parser.add_argument("--discovery", type=int, default=48)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the pictures")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=100)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.to or Path(scratch)
        sizes = {"discovery": options.discovery, "test": options.test}
        files = write_shapes(folder / "data", sizes, seed=options.seed)
        discovery, test = load_items(files["discovery"]), load_items(files["test"])
        tasks = [make_task(name, candidates=options.candidates) for name in options.tasks]
        methods = make_methods(options.methods)
        for name in options.models:
            console.rule(f"{name}: found on {options.discovery} items, {100 * options.ratio:g} % masked")
            study, shared = Study(load_vlm(name), RunFolder(folder / name)), dict[Any, Any]()
            study.heads(tasks, discovery)
            for task in tasks:
                heads = study.run.path / task.name / "heads.json"
                request = ComparisonRequest(methods, options.ratio, options.draws, budgets=())
                found = compare(study, task, discovery, test, heads, request, shared)
                console.print(view(found))
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
