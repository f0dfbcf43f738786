"""Rankings by gradients: seconds of whole passes and from shared beginnings, side by side in one run.

    python bench/gradients.py [--models tiny-llava tiny-qwen2.5-vl] [--tasks vqa retrieval] [--items 6] [--repeats 3]
                              [--methods hones+ rounds selective] [--rounds 6] [--out FILE.md]

whole: the definition (`--engine naive`), the whole model for every prompt, in every round. shared: the default,
`hones.rivals.beginnings`. Both take turns; seconds are those of the CPU, of the fastest of the repeats, the proof
included. Positions and pictures are counted as they enter the decoder and the vision part, which no load changes.
differs: the largest difference of a neuron's number, in shares of the largest. same set: how many of the best 1 % of
the neurons are in both sets. Before the table: what share of one
gradient of a batch opening and preparing its pictures and the vision part take (what rounds can save of one prompt a
picture), and how long prefixes and suffixes are.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hones import VLM, load_items, load_vlm, make_task, select_neurons, write_shapes
from hones.data.items import Items
from hones.models.capture import ENTERING, capture
from hones.models.vlm import frozen
from hones.models.writing import importance_shape
from hones.rivals import make_method
from hones.rivals.base import Context, Importance
from hones.rivals.hones_plus import Knowledge
from hones.runs.method_inputs import other_tasks
from hones.sweep.prompts import encode_pictures, handed_to_decoder
from hones.sweep.run import SweepSettings
from hones.tasks.base import Task

ENGINES = {"whole": "naive", "shared": "replay"}


@dataclass
class Counted:
    """Positions that entered the decoder, and calls of the vision part with how many pictures."""

    positions: int = 0
    pictures: int = 0


@contextmanager
def counting(vlm: VLM) -> Iterator[Counted]:
    """What runs in this context. A picture is counted where pixel values are given to the model."""
    counted = Counted()

    def enter(_: int, x: object) -> None:
        counted.positions += x.shape[0] * x.shape[1]  # pyright: ignore[reportAttributeAccessIssue]

    def called(_: object, args: object, kwargs: dict[str, object]) -> None:
        if kwargs.get("pixel_values") is not None:
            counted.pictures += len(kwargs["input_ids"])  # pyright: ignore[reportArgumentType]

    hook = vlm.model.register_forward_pre_hook(called, with_kwargs=True)
    try:
        with capture(vlm.anatomy, ENTERING, enter, [0]):
            yield counted
    finally:
        hook.remove()


def seconds() -> float:
    return time.process_time()


def shares(vlm: VLM, task: Task, items: Items) -> str:
    """How much of a gradient the picture takes, and how long what prompts share is."""
    knowledge = Knowledge(vlm, task, task.examples(items)[0])
    part = knowledge.asked[: knowledge.rows]
    gates = np.ones(importance_shape(vlm), dtype=np.float32)
    with frozen(vlm.model):
        knowledge.gradient(gates, range(1))  # warm
        started = seconds()
        encoded = vlm.encode_with_answers(
            [a.example.open_picture() for a in part], [a.prompt for a in part], [a.answer for a in part]
        )
        handed_to_decoder(vlm, encoded.inputs)
        of_picture = seconds() - started
        started = seconds()
        knowledge.gradient(gates, range(len(part)))
        whole = seconds() - started
    (picture,) = encode_pictures(vlm, [part[0].example])
    length = encoded.inputs["input_ids"].shape[1]
    several = len([a for a in knowledge.asked if a.example is part[0].example])
    return (
        f"{task.name}: pictures take {of_picture / whole:.1%} of a gradient; {several} prompts an item of {length} "
        f"positions, {picture.shared} of them shared by all"
    )


def context_of(vlm: VLM, task: Task, items: Items, engine: str) -> Context:
    examples = task.examples(items)[0]
    others = other_tasks(vlm, task, items, examples)
    return Context(vlm, task, examples, others=others, sweep=SweepSettings(engine))  # pyright: ignore[reportArgumentType]


def measure(vlm: VLM, method_name: str, task: Task, items: Items, rounds: int, repeats: int) -> str:
    """A row of the table."""
    method = make_method(method_name)
    method = method.with_schedule(rounds=rounds) if method.in_rounds else method
    taken: dict[str, list[float]] = {arm: [] for arm in ENGINES}
    counts: dict[str, Counted] = {}
    found: dict[str, Importance] = {}
    for _ in range(repeats):
        for arm, engine in ENGINES.items():
            context = context_of(vlm, task, items, engine)
            with counting(vlm) as counts[arm]:
                started = seconds()
                found[arm] = method.importance(context)
                taken[arm].append(seconds() - started)
    whole, shared = (min(of_arm) for of_arm in taken.values())
    differs = np.abs(found["whole"] - found["shared"]).max() / np.abs(found["whole"]).max()
    cells = [method_name + (f", {rounds} rounds" if method.in_rounds else ""), task.name]
    cells += [f"{x:.1f}" for x in (whole, shared)] + [f"{whole / shared:.2f}"]
    cells += [f"{counts['whole'].positions:,} / {counts['shared'].positions:,}"]
    cells += [f"{counts['whole'].pictures:,} / {counts['shared'].pictures:,}", f"{differs:.1g}"]
    sets = [{(n.layer, n.neuron) for n in select_neurons(found[arm], 0.01)} for arm in ENGINES]
    cells.append(f"{len(sets[0] & sets[1])} of {len(sets[0])}")
    return f"| {' | '.join(cells)} |"


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    yield f"{platform.machine()}, {threads} threads of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory() as folder:
        write_shapes(Path(folder), {"discovery": arguments.items}, seed=1)
        items = load_items(Path(folder) / "discovery.json")
        for name in arguments.models:
            vlm = load_vlm(name)
            tasks = [make_task(task) for task in arguments.tasks]
            yield f"\n### {name}, {arguments.items} items\n"
            for task in tasks:
                yield f"- {shares(vlm, task, items)}"
            columns = ("method", "task", "whole, s", "shared, s", "times", "positions, whole / shared", "pictures")
            yield f"\n| {' | '.join((*columns, 'differs', 'same set'))} |"
            yield "|---" * 9 + "|"
            for method in arguments.methods:
                for task in tasks:
                    yield measure(vlm, method, task, items, arguments.rounds, arguments.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", default=["vqa", "retrieval"])
    parser.add_argument("--methods", nargs="+", default=["hones+", "rounds", "selective"])
    parser.add_argument("--items", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    said = []
    for line in lines(arguments):
        print(line, flush=True)
        said.append(line)
    if arguments.out is not None:
        arguments.out.write_text("\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
