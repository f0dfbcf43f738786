r"""The sweep, naive and replay side by side: seconds per cell, what each saving is worth, and how far from the floor.

    python bench/sweep.py [--models tiny-llava tiny-qwen2.5-vl wide scattered] [--items 16] [--out FILE.md]
    python bench/sweep.py --models smol-llava LANGUAGE_MODEL wide --items 8 --samples 4 --candidates 8 --apart \
                          --tasks vqa caption retrieval --no-ablation

LANGUAGE_MODEL: a causal language model or its folder; it has the tasks without pictures of docs/examples, three new
tokens as there.

One cell is one (intervention, item): the answer of a model with one head replaced; for retrieval, of 50 candidates.
naive: one prompt at a time, as the method was released; hooks 8, hooks 32: the same with batches of prompts; nnsight 8:
through nnsight, where it is installed. These are timed on cells drawn at random, replay on all heads of all items.
left draft: share of the text cells that are not the unedited model's answer, which are decoded. bfloat16: replay where
the CPU has units for it, and the share of all cells that flip against float32. The floor, in float32, is the time
that the arithmetic which no exact method avoids (one vision pass, one baseline, layers l.. for every head of every
layer l, in every cell the logits of the unedited model's answer) takes at the rate of matrix products measured in the
same run. `wide` is a random LLaVA of 576 picture tokens, where arithmetic dominates; in `scattered`, the same with
larger weights, nearly every head changes every answer.
"""

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hones import VLM, load_items, load_vlm, make_task, write_shapes
from hones.models.dtypes import has_bfloat16_units
from hones.models.interventions import BASELINE, Intervention
from hones.models.processors import is_text_only
from hones.sweep.memory import make_plan
from hones.sweep.naive import Naive
from hones.sweep.passes import ReplaySavings
from hones.sweep.prompts import encode_pictures
from hones.sweep.replay import Replay
from hones.tasks import TASKS
from hones.tasks.base import Example, Task
from hones.tasks.loading import load_task

from floor import positions_flop, vision_flop  # isort: skip
from peers import Nnsight, has_nnsight  # isort: skip
from wide import wide_llava  # isort: skip

TEXTS = Path(__file__).parent.parent / "docs" / "examples"
TEXT_TABLES = {
    name: sorted((TEXTS / name).glob("test.*"))[0] for name in ("indirect-object", "greater-than", "agreement")
}
SPREAD = {"wide": 0.02, "scattered": 0.06}  # initializer_range: transformers' default, and a large one
Member = tuple[Task, Example]


@dataclass
class Measured:
    """Seconds per cell of every arm for one task, and the floor."""

    task: str
    cells: int
    seconds: dict[str, float]
    left: float
    differing: float
    floor: float
    flips: float


def seconds_of(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def new_tokens(vlm: VLM) -> int:
    """Of an answer, at most."""
    return 3 if is_text_only(vlm.model.config) else 24


def head_edits(vlm: VLM) -> list[Intervention]:
    layers, heads, _ = vlm.anatomy.shape
    return [BASELINE, *(Intervention(heads=frozenset({(x, h)})) for x in range(layers) for h in range(heads))]


def make_replay(vlm: VLM, savings: ReplaySavings | None = None) -> Replay:
    return Replay(vlm, max_new_tokens=new_tokens(vlm), plan=make_plan(vlm, 4000, None), savings=savings)


def peers(vlm: VLM) -> dict[str, tuple[int, Naive | Nnsight]]:
    """The other ways, with their batch sizes."""
    arms: dict[str, tuple[int, Naive | Nnsight]] = {
        name: (batch, Naive(vlm, max_new_tokens=new_tokens(vlm), batch_size=batch))
        for name, batch in (("naive", 1), ("hooks 8", 8), ("hooks 32", 32))
    }
    if has_nnsight():
        arms["nnsight 8"] = (8, Nnsight(vlm, max_new_tokens=new_tokens(vlm), batch_size=8))
    return arms


def peer_seconds(
    vlm: VLM, members: Sequence[Member], peer: Naive | Nnsight, batch: int, samples: int, rng: random.Random
) -> float:
    """Median seconds per cell over randomly drawn (head, items)."""
    edits, together = head_edits(vlm)[1:], max(1, batch // len(members[0][1].prompts))
    times = []
    for _ in range(samples):
        chosen = rng.sample(list(members), min(together, len(members)))
        edit = rng.choice(edits)
        times.append(seconds_of(lambda c=chosen, e=edit: peer.statistics(c, [e])) / len(chosen))
    return statistics.median(times)


def differing_cells(vlm: VLM, members: Sequence[Member], found: Sequence[np.ndarray], rng: random.Random) -> float:
    """Share of randomly drawn edits times all items whose statistics are not those of the definition."""
    edits = head_edits(vlm)
    chosen = [0, *sorted(rng.sample(range(1, len(edits)), 4))]
    naive = Naive(vlm, max_new_tokens=new_tokens(vlm), batch_size=32)
    expected = naive.statistics(members, [edits[e] for e in chosen])
    return float(np.mean([(a != b[chosen]).any(1) for a, b in zip(expected, found, strict=True)]))


def matmul_rate(vlm: VLM) -> float:
    """FLOP per second of the model's own up-projection, median of several runs, at the best of several batch sizes."""
    kind: dict[str, Any] = {"dtype": vlm.model.dtype, "device": vlm.device}
    weight = torch.randn(vlm.anatomy.neurons, vlm.anatomy.width, **kind)
    rates = []
    for positions in (256, 512, 1024, 2048, 4096, 16384):
        x = torch.randn(positions, vlm.anatomy.width, **kind)
        out = torch.empty(positions, vlm.anatomy.neurons, **kind)
        times = [seconds_of(lambda x=x, out=out: torch.mm(x, weight.T, out=out)) for _ in range(15)]
        rates.append(2 * positions * weight.numel() / statistics.median(times))
    return max(rates)


def floor_flop(vlm: VLM, members: Sequence[Member]) -> float:
    """All cells of these members: one vision pass, one baseline, layers l.. per head, a draft's logits in each cell."""
    layers, heads, _ = vlm.anatomy.shape
    said = make_replay(vlm).answer(members, [BASELINE])
    drafts = [
        len(vlm.tokenizer(str(one.answers[0]))["input_ids"]) if task.answers == "text" else 0
        for (task, _), one in zip(members, said, strict=True)
    ]
    pictures = encode_pictures(vlm, [example for _, example in members])
    work, logits = 0.0, 0.0
    for picture in pictures:
        own = [len(p.ids) - picture.shared + drafts[p.owner] for p in picture.prompts]
        work += positions_flop(vlm, picture.shared, 0)
        work += sum(positions_flop(vlm, width, picture.shared) for width in own)
        # of a Yes or No two rows of lm_head
        words = [(1 + drafts[p.owner]) * vlm.anatomy.lm_head.out_features for p in picture.prompts if drafts[p.owner]]
        logits += 2.0 * sum(words) * vlm.anatomy.width
    passes = layers + heads * layers * (layers + 1) / 2
    return work * passes + logits * (1 + heads * layers) + len(pictures) * vision_flop(vlm)


def flipped_cells(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """Share of cells whose statistics differ."""
    return float(np.mean([(a != b).any(1) for a, b in zip(found, exact, strict=True)]))


def measure(
    vlm: VLM, rounded: VLM | None, jobs: dict[str, list[Member]], samples: int, ablate: bool, apart: bool
) -> list[Measured]:
    """rounded: the same model in bfloat16. apart: the tasks are not measured in one sweep too."""
    rng, edits = random.Random(0), head_edits(vlm)
    rate = matmul_rate(vlm)
    together = [member for members in jobs.values() for member in members]
    rows = []
    for name, members in (jobs if apart else {**jobs, "together": together}).items():
        make_replay(vlm).statistics(members[:1], edits[:3])
        found: list[np.ndarray] = []
        replay, cells = make_replay(vlm), len(edits) * len(members)
        run = seconds_of(lambda m=members, f=found, r=replay: f.extend(r.statistics(m, edits)))
        seconds, differing = {"replay": run / cells}, float("nan")
        flips = float("nan")
        if rounded is not None:
            make_replay(rounded).statistics(members[:1], edits[:3])
            of_rounded: list[np.ndarray] = []
            run = seconds_of(lambda m=members, f=of_rounded: f.extend(make_replay(rounded).statistics(m, edits)))
            seconds["bfloat16"], flips = run / cells, flipped_cells(of_rounded, found)
        texts = len(edits) * sum(task.answers == "text" for task, _ in members)
        left = replay.left_draft / texts if texts else float("nan")
        if name != "together":
            few = 3 if name == "retrieval" else samples
            for arm, (batch, peer) in peers(vlm).items():
                seconds[arm] = peer_seconds(vlm, members, peer, batch, few, rng)
            differing = differing_cells(vlm, members[:8], found[:8], rng)
        else:
            for arm in peers(vlm):
                seconds[arm] = sum(row.seconds[arm] * row.cells for row in rows) / cells
        if ablate:
            part = members[:4] if name != "together" else [m for ms in jobs.values() for m in ms[:4]]
            seconds["all on"] = (
                seconds_of(lambda p=part: make_replay(vlm).statistics(p, edits)) / len(part) / len(edits)
            )
            for field in fields(ReplaySavings):
                savings = replace(ReplaySavings(), **{field.name: False})
                run = make_replay(vlm, savings)
                seconds[field.name] = seconds_of(lambda r=run, p=part: r.statistics(p, edits)) / len(part) / len(edits)
        rows.append(Measured(name, cells, seconds, left, differing, floor_flop(vlm, members) / rate / cells, flips))
        print(f"{vlm.name}: {name} measured", file=sys.stderr)
    return rows


def show(console: Console, title: str, rows: Sequence[Measured], ablate: bool) -> None:
    arms = [arm for arm in ("naive", "hooks 8", "hooks 32", "nnsight 8", "replay") if arm in rows[0].seconds]
    narrow = ["bfloat16, ms", "vs float32", "flips"] if "bfloat16" in rows[0].seconds else []
    table = Table("task", "cells", *(f"{arm}, ms" for arm in arms), "vs naive", "vs best peer", "left draft",
                  "differing cells", "of the floor's speed", *narrow, title=title)  # fmt: skip
    for row in rows:
        s = row.seconds
        peer = min(s[arm] for arm in arms if arm not in ("naive", "replay"))
        times = (f"{1000 * s[arm]:.2f}" for arm in arms)
        ratios = (f"{s['naive'] / s['replay']:.1f}x", f"{peer / s['replay']:.1f}x")
        shares = ("" if np.isnan(x) else f"{100 * x:.1f} %" for x in (row.left, row.differing))
        floor = f"{100 * row.floor / s['replay']:.0f} %"
        of_narrow = []
        if narrow:
            ratio = f"{s['replay'] / s['bfloat16']:.1f}x"
            of_narrow = [f"{1000 * s['bfloat16']:.2f}", ratio, f"{100 * row.flips:.2f} %"]
        table.add_row(row.task, str(row.cells), *times, *ratios, *shares, floor, *of_narrow)
    console.print(table)
    if ablate:
        names = [field.name for field in fields(ReplaySavings)]
        table = Table("task", *names, title="times slower without this saving (4 pictures)")
        for row in rows:
            table.add_row(row.task, *(f"{row.seconds[name] / row.seconds['all on']:.2f}" for name in names))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl", "wide"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--samples", type=int, default=12, help="naive cells per task")
    parser.add_argument("--candidates", type=int, default=50, help="of retrieval; of the wide models 8")
    parser.add_argument("--apart", action="store_true", help="no sweep of all tasks together")
    parser.add_argument("--no-ablation", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=170)
    hardware = platform.processor() or platform.machine()
    console.print(f"{hardware}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32, ", end="")
    console.print(f"load before {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            wide = name in SPREAD
            vlm = wide_llava(Path(folder) / "model", SPREAD[name]) if wide else load_vlm(name)
            count, size = (2, 1) if wide else (options.items, options.samples)
            candidates = 8 if wide else options.candidates
            if not is_text_only(vlm.model.config):
                items = load_items(write_shapes(Path(folder) / name, {"bench": count}, seed=3)["bench"])
                tasks = {task: (make_task(task, candidates=candidates), items) for task in options.tasks}
            else:
                tasks = {
                    task: (load_task(str(TEXTS / task / "task.yaml")), load_items(table))
                    for task, table in TEXT_TABLES.items()
                }
            jobs = {
                task.name: [(task, example) for example in task.examples(items)[0][:count]]
                for task, items in tasks.values()
            }
            ablate = not (options.no_ablation or wide)
            title = f"{name}: {count} pictures, retrieval 1 + {candidates - 1}"
            if is_text_only(vlm.model.config):
                title = f"language model without pictures, {len(vlm.anatomy.layers)} layers: {count} items"
            source = str(Path(folder) / "model") if wide else name
            rounded = load_vlm(source, dtype="bfloat16") if has_bfloat16_units("cpu") else None
            show(console, title, measure(vlm, rounded, jobs, size, ablate, options.apart), ablate)
    console.print(f"load after {os.getloadavg()[0]:.1f}")
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
