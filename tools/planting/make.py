"""Train, install and prove all planted models and render their page: what `make planted` runs.

    python -m planting.make --out checkpoints/planted [NAME ...]

A model whose training or proof is in --out already is not trained or proven again; a killed training goes on.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from hones.models.planted import FOLDER

from .designs import DESIGNS


def install(name: str, out: Path) -> None:
    """Put a trained difference into the package; who takes part and the proof are still to be found."""
    shutil.copyfile(out / f"{name}.safetensors", FOLDER / f"{name}.safetensors")
    record = json.loads((out / f"{name}.json").read_text())
    (FOLDER / f"{name}.json").write_text(json.dumps(record) + "\n")


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
            for step in ("participation", "prove"):
                subprocess.run([sys.executable, "-m", f"planting.{step}", name], check=True)
    subprocess.run([sys.executable, "-m", "planting.table"], check=True)


if __name__ == "__main__":
    main()
