"""On a GPU, in under ten minutes: replay against its definition, and the two models of the paper by their shapes.

    python bench/gpu.py [--minutes 9] [--out FILE.md]
    python bench/gpu.py --dry-run        # the built-in models in the others' place, on whatever there is

1. The built-in models in float32 on the device: cells of replay that differ from the definition's there.
2. LLaVA-1.5-7B and Qwen2.5-VL-7B, published shapes and random bfloat16 weights: milliseconds per cell, naive, with
   hooks on batches and by replay over all heads, the share of the floor (bench/sweep.py), and what `hones plan` says of
   the same sweep beside what it took.

A step that cannot begin within --minutes is named and left out. No weights are read and no network is asked.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hones import VLM, load_items, load_vlm, make_task, write_shapes
from hones.models.dtypes import DTYPES, device_named
from hones.runs.plan.absent import planned_model
from hones.runs.plan.forecast import plan
from hones.runs.plan.rates import cut_copy
from hones.runs.plan.request import Request, make_request
from hones.sweep.naive import Naive

from sweep import Member, flipped_cells, floor_flop, head_edits, make_replay, matmul_rate, peer_seconds, seconds_of  # isort: skip

SHAPES = {"llava-hf/llava-1.5-7b-hf": "tiny-llava", "Qwen/Qwen2.5-VL-7B-Instruct": "tiny-qwen2.5-vl"}
TASK = "vqa"
NEW_TOKENS = 24


def members_of(file: Path, count: int) -> list[Member]:
    task = make_task(TASK)
    return [(task, example) for example in task.examples(load_items(file))[0][:count]]


def equality(name: str, device: str, file: Path) -> tuple[str, ...]:
    """Of a built-in model in float32: all heads of two pictures by replay, and by the definition at batch 32."""
    vlm = load_vlm(name, dtype="float32", device=device)
    members, edits = members_of(file, 2), head_edits(vlm)
    found = make_replay(vlm).statistics(members, edits)
    expected = Naive(vlm, max_new_tokens=NEW_TOKENS, batch_size=32).statistics(members, edits)
    return name, str(len(edits) * len(members)), f"{100 * flipped_cells(found, expected):.2f} %"


def model_of(request: Request, device: torch.device, dry: bool) -> VLM:
    """The model of a request with random weights; dry: its first layers, in float32 on a CPU."""
    light, _ = planned_model(request)
    dtype = DTYPES["bfloat16" if device.type == "cuda" else "float32"]
    return cut_copy(light, dtype, device, seed=0, layers=2 if dry else len(light.anatomy.layers))


def measured(name: str, device: torch.device, file: Path, pictures: int, dry: bool) -> tuple[str, ...]:
    """A row of the second table."""
    data = {"discovery": file}
    request = make_request(model=name, data=data, tasks=[TASK], device=str(device), stand_in=True)
    vlm = model_of(request, device, dry)
    members, edits, rng = members_of(file, pictures), head_edits(vlm), random.Random(0)
    rate = matmul_rate(vlm)
    make_replay(vlm).statistics(members[:1], edits[:3])
    peers = {
        batch: peer_seconds(vlm, members, Naive(vlm, max_new_tokens=NEW_TOKENS, batch_size=batch), batch, 3, rng)
        for batch in (1, 8, 32)
    }
    replay, cells = make_replay(vlm), len(edits) * len(members)
    seconds = seconds_of(lambda: replay.statistics(members, edits))
    limited = replace_limit(request, len(members))
    stage = next(stage for stage in plan(limited).counted if stage.name == "heads")
    _, least, most = 3600 * stage.hours(plan(limited).rates)
    times = [f"{1000 * x:.1f}" for x in (*peers.values(), seconds / cells)]
    best = min(peers[8], peers[32])
    share = floor_flop(vlm, members) / rate / seconds
    ratio = f"{best * cells / seconds:.1f}x"
    return name, str(cells), *times, ratio, f"{100 * share:.0f} %", f"{least:.1f} to {most:.1f}", f"{seconds:.1f}"


def replace_limit(request: Request, items: int) -> Request:
    """The same for so many discovery items."""
    return request.model_copy(update={"limit": request.limit.model_copy(update={"discovery": items})})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started = time.monotonic()
    device = torch.device(device_named("auto"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    console = Console(record=True, width=140)
    console.print(f"{name}, torch {torch.__version__}{', a dry run' if options.dry_run else ''}")
    equal = Table("model, float32", "cells", "differ from the definition")
    table = Table("model", "cells", "naive, ms", "hooks 8, ms", "hooks 32, ms", "replay, ms", "vs best hooks",
                  "of the floor's speed", "forecast, s", "took, s")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        file = write_shapes(Path(scratch), {"bench": max(2, options.pictures)}, seed=3)["bench"]
        steps = [(equal, lambda n=n: equality(n, str(device), file)) for n in SHAPES.values()]
        names = SHAPES.values() if options.dry_run else SHAPES
        steps += [(table, lambda n=n: measured(n, device, file, options.pictures, options.dry_run)) for n in names]
        for number, (of_step, step) in enumerate(steps, 1):
            if time.monotonic() - started > 60 * options.minutes:
                console.print(f"step {number} of {len(steps)} left out: {options.minutes:g} minutes are over")
                continue
            of_step.add_row(*step())
            if device.type == "cuda":
                torch.cuda.empty_cache()
    console.print(equal, table)
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
