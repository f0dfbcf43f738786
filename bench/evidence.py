"""The evidence for steering: HONES beside its controls, on both built-in models and all four tasks.

    python bench/evidence.py [--models tiny-llava tiny-qwen2.5-vl] [--dev 400] [--test 400] [--seeds 3407 3408]
        [--learning-rate 0.02] [--to FOLDER] [--out FILE.md]

Heads and neurons are found on --discovery items; every way to steer learns on the same --dev items and is tested on the
same --test items, on the other tasks, and on --outside items of the other source, never learned from. The built-in
models were trained on shapes and are near their ceiling there; --source signs leaves room. Intervals are paired over
the test items. With --to the run folders stay, so that a second run goes on where the first stopped.
"""

import argparse
import os
import platform
import tempfile
from pathlib import Path

from rich.console import Console

from hones import RunFolder, Study, load_items, load_vlm, make_task, write_shapes
from hones.method.steering.settings import EarlyStopping, SteeringSettings
from hones.runs.evidence import EvidenceRequest
from hones.runs.steering import steer
from hones.runs.ways import make_steerings
from hones.tasks import TASKS
from hones.views.terminal import view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--ways", default="all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3407, 3408])
    parser.add_argument("--ratio", type=float, default=0.03)
    parser.add_argument("--discovery", type=int, default=64)
    parser.add_argument("--dev", type=int, default=400)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--source", choices=("shapes", "signs"), default="signs")
    parser.add_argument("--outside", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--early-stopping", type=float, help="share of dev held out")
    parser.add_argument("--to", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=100)
    console.print(f"{platform.machine()}, {os.cpu_count()} cores; {' '.join(map(str, vars(options).values()))}")
    stopping = EarlyStopping(share=options.early_stopping) if options.early_stopping else None
    settings = SteeringSettings(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        early_stopping=stopping,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.to or Path(scratch)
        sizes = {"discovery": options.discovery, "dev": options.dev, "test": options.test}
        source, other = options.source, "shapes" if options.source == "signs" else "signs"
        written = write_shapes(folder / source, sizes, seed=21, source=source)
        splits = {name: load_items(file) for name, file in written.items()}
        outside = load_items(write_shapes(folder / other, {"test": options.outside}, seed=21, source=other)["test"])
        tasks = [make_task(name, candidates=options.candidates) for name in options.tasks]
        for name in options.models:
            console.rule(name)
            study = Study(load_vlm(name), RunFolder(folder / name))
            study.heads(tasks, splits["discovery"])
            for task in tasks:
                found = study.run.path / task.name
                study.neurons(task, splits["discovery"], found / "heads.json", options.ratio)
                others = [other for other in tasks if other is not task]
                request = EvidenceRequest(make_steerings(options.ways), tuple(options.seeds), others, outside)
                dev, test = splits["dev"], splits["test"]
                steered = steer(study, task, dev, test, found / "neurons.json", settings, request)
                console.print(view(steered.evidence))
                if options.out is not None:
                    options.out.write_text(f"```\n{console.export_text(clear=False)}```\n")


if __name__ == "__main__":
    main()
