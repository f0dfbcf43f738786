"""Train, install and prove all planted models and render their page: what `make planted` runs.

    python -m planting.make --out checkpoints/planted [NAME ...]

A model whose training or proof is in --out already is not trained or proven again; a killed training goes on.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hones import load_items, load_vlm, make_task, write_shapes
from hones.models.planted import FOLDER, load_plant, read_record
from hones.tasks import TASKS

from .designs import DESIGNS
from .participation import AT_ONCE, members

SEED = 33  # of the pictures by which members are kept; the proof has others


def install(name: str, out: Path) -> None:
    """Put a trained difference into the package, its sets reduced to who takes part; its proof is still to be made."""
    shutil.copyfile(out / f"{name}.safetensors", FOLDER / f"{name}.safetensors")
    record = json.loads((out / f"{name}.json").read_text())
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(record) + "\n")
    read_record.cache_clear()
    plant, jobs = load_plant(name), []
    with tempfile.TemporaryDirectory() as scratch:
        items = load_items(write_shapes(Path(scratch), {"members": AT_ONCE}, seed=SEED)["members"])
        for task in (make_task(task, candidates=2) for task in TASKS):
            jobs.append((task, task.examples(items)[0]))
        kept = members(load_vlm(name), plant, jobs)
    record["trained"] = {task: len(sites) for task, sites in plant.sets.items()}
    record["plant"]["sets"] = kept
    file.write_text(json.dumps(record) + "\n")
    read_record.cache_clear()


def is_proven(name: str, out: Path) -> bool:
    """Whether the package has this training's proof."""
    files = [folder / f"{name}.safetensors" for folder in (FOLDER, out)]
    if not all(file.exists() for file in files) or files[0].read_bytes() != files[1].read_bytes():
        return False
    return "proof" in json.loads((FOLDER / f"{name}.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*DESIGNS])
    parser.add_argument("--out", type=Path, default=Path("checkpoints/planted"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        if not (options.out / f"{name}.json").exists():
            with (options.out / f"{name}.log").open("a") as log:
                training = [sys.executable, "-m", "planting.train", name, "--out", str(options.out)]
                subprocess.run(training, check=True, stdout=log)
        if not is_proven(name, options.out):
            install(name, options.out)
            subprocess.run([sys.executable, "-m", "planting.prove", name], check=True)
    subprocess.run([sys.executable, "-m", "planting.table"], check=True)


if __name__ == "__main__":
    main()
