"""Retrain, export and evaluate both built-in models: what `make tiny` runs.

    python -m tiny.make --out checkpoints

LLaVA first; Qwen2.5-VL starts its language model from it. Phases whose checkpoint is in --out are skipped.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from .export import export

STEPS = {
    "tiny-llava": {"vision": 700, "joint": 1500, "joint-stop": 1500, "matching": 500, "sparse": 300, "special": 220},
    "tiny-qwen2.5-vl": {
        "vision": 500,
        "joint": 1000,
        "joint-stop": 700,
        "matching": 300,
        "sparse": 300,
        "special": 170,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    out = parser.parse_args().out
    for name, steps in STEPS.items():
        recipe = [text for phase, count in steps.items() for text in (f"--{phase}", str(count))]
        start = ["--language-from", str(out / "tiny-llava" / "joint.pt")] if name != "tiny-llava" else []
        log = out / f"{name}.log"
        out.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            training = [sys.executable, "-m", "tiny.train", name, "--out", str(out), *recipe, *start]
            subprocess.run(training, check=True, stdout=file)
        export(name, out / name / "special.pt")
        subprocess.run([sys.executable, "-m", "tiny.evaluate", name, "--training", str(log)], check=True)


if __name__ == "__main__":
    main()
