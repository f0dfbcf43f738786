"""Models of the hub through the product, for a machine with the hub and a GPU: verify, eval, heads with racing.

    python bench/hub.py [--models ID ...] [--items 32] [--data FILE --images FOLDER] [--out FOLDER] [--dry-run]

Every step is a plain `hones` command, printed before it runs; one that fails is named, and the others run. The pictures
are the built-in ones unless --data names annotations. OUT/summary.md has each command, how it ended and how long it
took; OUT/MODEL holds what `verify` measured, the answers, and the run folder of the heads. --dry-run prints the
commands and has each checked by the command line itself, its options and their values, and runs none.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import typer

from hones.cli.commands import app
from hones.tasks import TASKS

MODELS = ("HuggingFaceTB/SmolVLM-256M-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct", "llava-hf/llava-1.5-7b-hf")
CONFIDENCE = "0.95"
Command = list[str]


def commands(models: list[str], items: int, data: Path | None, images: Path | None, out: Path) -> list[Command]:
    """All steps, each the words after `hones`."""
    steps: list[Command] = []
    if data is None:
        drawn = out / "pictures"
        steps.append(["data", "shapes", "--to", str(drawn), "--discovery", str(items), "--dev", "1", "--test", "1"])
        data, images = drawn / "discovery.json", drawn / "images"
    asked = ["--data", str(data), "--limit", str(items), *(["--images", str(images)] if images is not None else [])]
    for model in models:
        folder = out / model.replace("/", "--")
        steps.append(["verify", "--model", model, "--json", str(folder / "verify.json")])
        for task in TASKS:
            steps.append(["eval", "--model", model, "--task", task, *asked, "--csv", str(folder / f"{task}.csv")])
        # --anyway: a task at which the model scores 0 does not keep the heads of the others from being found
        race = ["--racing", CONFIDENCE, "--anyway", "--out", str(folder / "run")]
        steps.append(["heads", "--model", model, "--task", "all", *asked, *race])
    return steps


def check(words: Command) -> None:
    """Have a command checked as `hones` does before it executes it.

    Raises:
        KeyError: there is no such command. Typer's UsageError: no such option, or a value of the wrong kind.
        HonesError: options that make no sense.
    """
    command: Any = typer.main.get_command(app)
    rest = [*words]
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, rest)
    if hasattr(command, "kind"):  # options in a dataclass, which checks what they mean
        command.kind(**context.params)


def run(steps: list[Command], out: Path) -> bool:
    """Run all; whether all ended well."""
    lines = ["| command | exit code | seconds |", "|---|---|---|"]
    codes = []
    for words in steps:
        print(f"\n$ {shlex.join(['hones', *words])}", flush=True)
        started = time.monotonic()
        codes.append(subprocess.run([sys.executable, "-m", "hones", *words], check=False).returncode)
        lines.append(f"| `{shlex.join(['hones', *words])}` | {codes[-1]} | {time.monotonic() - started:.0f} |")
        (out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\n{codes.count(0)} of {len(codes)} commands ended well: {out / 'summary.md'}")
    return not any(codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, default=Path("hub"))
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    steps = commands([*options.models], options.items, options.data, options.images, options.out)
    if options.dry_run:
        for words in steps:
            print(shlex.join(["hones", *words]))
            check(words)
        print(f"{len(steps)} commands, each as the command line takes it; none was run")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if run(steps, options.out) else 1)


if __name__ == "__main__":
    main()
