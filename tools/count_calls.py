"""How many of our functions a command calls, in how many files, and how deep: what a reader has to follow.

    python tools/count_calls.py                      heads, neurons and run, on three pictures a split of tiny-llava
    python tools/count_calls.py heads --list         the functions too, by file
    python tools/count_calls.py neurons --deepest    the deepest chain of frames too

Every command runs in this process by the console entry, `hones.cli:main`. What it needs (pictures, heads.json for
`neurons`) is made before, uncounted. Counted is what runs on the main thread within the command:

    functions   distinct functions of the package that were called: functions, methods, properties, inner functions,
                coroutines and generators, by file, qualified name and first line. A comprehension, generator expression
                or lambda is part of the function that it stands in: calling it counts for nothing. Neither do bodies of
                modules and classes, methods that dataclasses generate, and whatever is called while a module is
                imported, which depends on what was imported before.
    files       distinct files of the package with such a function
    depth       the most frames of such functions that were open at once, the command's own function included; frames of
                other libraries between them, comprehensions and lambdas are not counted
    stack       the same moment with every Python frame counted, from the command's own function to the deepest frame of
                the package

The command's own function is the one that typer calls: the first frame of the package after `main`.
"""

import argparse
import contextlib
import inspect
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import yaml

import hones
from hones.cli import main

PACKAGE = str(Path(hones.__file__).resolve().parent) + os.sep
MODEL, PICTURES, SEED = "tiny-llava", 3, 0
TASKS = ("vqa", "ocr", "caption", "retrieval")
COMMANDS = ("heads", "neurons", "run")

Function = tuple[str, str, int]  # file, qualified name, first line


@dataclass
class Counts:
    """What one command called. chain: the functions of the deepest moment. stack: its frames, of any library."""

    functions: set[Function] = field(default_factory=set)
    chain: list[Function] = field(default_factory=list)
    stack: int = 0

    @property
    def files(self) -> set[str]:
        """Of the functions."""
        return {file for file, _, _ in self.functions}

    def on_call(self, frame: FrameType, event: str, _: Any) -> None:
        """A profile function for `sys.setprofile`."""
        if event != "call" or not is_counted(frame.f_code):
            return
        frames = within_command(frame)
        if frames is None:
            return
        self.functions.add(name_of(frame.f_code))
        self.stack = max(self.stack, len(frames))
        chain = [name_of(f.f_code) for f in frames if is_counted(f.f_code)]
        if len(chain) > len(self.chain):
            self.chain = chain


_counted: dict[CodeType, bool] = {}


def is_counted(code: CodeType) -> bool:
    """Whether it is a function of the package; see the module's list."""
    found = _counted.get(code)
    if found is None:
        is_function = bool(code.co_flags & inspect.CO_NEWLOCALS) and not code.co_name.startswith("<")
        found = _counted[code] = is_function and code.co_filename.startswith(PACKAGE)
    return found


def name_of(code: CodeType) -> Function:
    """A function's place."""
    return code.co_filename.removeprefix(PACKAGE), code.co_qualname, code.co_firstlineno


def within_command(frame: FrameType) -> list[FrameType] | None:
    """The frames from the command's own function to this one; None before it, after it and while importing."""
    frames: list[FrameType] = []
    at: FrameType | None = frame
    while at is not None and at.f_code is not main.__code__:
        if at.f_code.co_filename.startswith("<frozen importlib"):
            return None
        frames.append(at)
        at = at.f_back
    if at is None:
        return None
    frames.reverse()
    first = next((i for i, f in enumerate(frames) if is_counted(f.f_code)), 0)
    return frames[first:] if first > 0 else None  # what `main` calls itself is no command


def call(*arguments: object, counts: Counts | None = None) -> None:
    """Run the command line, counted or not; its tables are dropped."""
    old, sys.argv = sys.argv, ["hones", *map(str, arguments)]
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), profiled(counts):
            main()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"hones {' '.join(map(str, arguments))}:\n{shown.getvalue()}") from stop
    finally:
        sys.argv = old


@contextlib.contextmanager
def profiled(counts: Counts | None) -> Iterator[None]:
    """Count until the end, where counts are given."""
    if counts is None:
        yield
        return
    sys.setprofile(counts.on_call)
    try:
        yield
    finally:
        sys.setprofile(None)


def count(command: str, folder: Path) -> Counts:
    """Make what the command needs in the folder, then count it."""
    counts, data = Counts(), folder / "data"
    if not data.exists():
        sizes = [x for split in ("discovery", "dev", "test") for x in (f"--{split}", PICTURES)]
        call("data", "shapes", "--to", data, *sizes, "--seed", SEED)
    out = folder / command
    common = ("--model", MODEL, "--data", data / "discovery.json", "--out", out)
    heads = ("heads", *common, "--task", ",".join(TASKS))
    if command == "heads":
        call(*heads, counts=counts)
    elif command == "neurons":
        call(*heads)
        call("neurons", *common, "--task", "vqa", "--heads", out / "vqa/heads.json", "--ratio", 0.03, counts=counts)
    else:
        (folder / "run.yaml").write_text(yaml.safe_dump(configuration(out, data)), encoding="utf-8")
        call("run", folder / "run.yaml", counts=counts)
    return counts


def configuration(out: Path, data: Path) -> dict[str, Any]:
    """That of `hones demo`, on fewer pictures."""
    return {
        "model": MODEL,
        "out": str(out),
        "data": {split: str(data / f"{split}.json") for split in ("discovery", "dev", "test")},
        "tasks": list(TASKS),
        "ratio": 0.03,
        "candidates": 8,
        "steering": {"learning_rate": 0.02, "batch_size": 8},
        "compare": {"methods": ["dvp", "wanda", "atp", "random"], "draws": 1, "curves": False},
        "analyze": {"lens_items": 1, "cards": 4, "draws": 1},
    }


def report(commands: Sequence[str], listed: bool, deepest: bool) -> None:
    """Print a row for each command."""
    with tempfile.TemporaryDirectory() as folder:
        found = {command: count(command, Path(folder)) for command in commands}
    print(f"{'command':<10}{'functions':>10}{'files':>8}{'depth':>8}{'stack':>8}")
    for command, counts in found.items():
        sizes = (len(counts.functions), len(counts.files), len(counts.chain), counts.stack)
        print(f"{command:<10}{sizes[0]:>10}{sizes[1]:>8}{sizes[2]:>8}{sizes[3]:>8}")
    for command, counts in found.items():
        for title, places in (("called", sorted(counts.functions)), ("deepest", counts.chain)):
            if listed if title == "called" else deepest:
                print(f"\n{command}, {title}")
                print(*(f"  {file}:{line} {name}" for file, name, line in places), sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How many functions a command calls, and how deep.")
    parser.add_argument("commands", nargs="*", metavar="|".join(COMMANDS), help="default: all")
    parser.add_argument("--list", action="store_true", dest="listed", help="name the functions")
    parser.add_argument("--deepest", action="store_true", help="show the deepest chain")
    given = parser.parse_args()
    if unknown := [name for name in given.commands if name not in COMMANDS]:
        parser.error(f"no command {', '.join(unknown)}; expected some of {', '.join(COMMANDS)}")
    report(given.commands or COMMANDS, given.listed, given.deepest)
