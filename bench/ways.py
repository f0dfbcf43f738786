"""Learned scales beside what a user would try first: another prompt, low ranks, vectors of heads.

    python bench/ways.py [--models tiny-llava] [--tasks vqa] [--dev 64] [--test 120] [--epochs 6] [--out FILE.md] ...

All ways see the same dev items and are tested on the same others, both of `signs`; on another task of the same
pictures; and on `shapes`, which the model was trained on. Intervals are paired over the items. Ways:

    prompt        no training: one of a few wordings of the task's instruction, the best on dev, the paper's among them
    rounds        the learner of `hones` on the set of `--method rounds`
    others        `hones.method.steering.controls` and `hones.method.steering.parts` have them by name

parameters: how many numbers are set. seconds: from the dev items to these, without finding heads and neurons.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hones import (
    VLM,
    SteeringSettings,
    attribute_neurons,
    load_items,
    load_vlm,
    localize_heads,
    make_task,
    select_neurons,
    write_shapes,
)
from hones.method.found import sites_of
from hones.method.steering.controls import SteeringContext
from hones.method.steering.evaluate import edit_of
from hones.method.steering.pairs import make_plan
from hones.method.steering.parts import WAYS
from hones.method.steering.settings import Scales
from hones.models.interventions import BASELINE, Intervention
from hones.rivals import make_method
from hones.rivals.base import Context
from hones.stats import UNEDITED, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import sweep
from hones.tasks import TASKS
from hones.tasks.base import Example, Task

SEED = 3407
BESIDE = (
    *("prompt", "fixed-amp", "grid-search", "hones", "rounds", "rand-neuron", "ia3"),
    *("head-offset", "head-scale", "lora-1", "lora-8"),
)
WORDINGS = {
    "vqa": (
        "Answer the question with a short phrase.",
        "Answer the question with a single word or number.",
        "Look closely at the picture, then answer with a short phrase.",
        "Short answer:",
    ),
    "ocr": (
        "Transcribe the text inside the blue box.\nOutput text only.",
        "Read the text in the blue box.\nOutput text only.",
        "What does the text inside the blue box say?\nOutput text only.",
    ),
}
"""Of a task's instruction, the paper's first."""


@dataclass(frozen=True)
class Row:
    """What a way to steer came to, and in which seconds: scales or an adapter, or a wording."""

    seconds: float
    found: Scales | str


def asked_in(vlm: VLM, task: Task, examples: Sequence[Example], wordings: Sequence[str]) -> Measurement:
    """The unedited model under each wording of the instruction, as arms."""
    paper = WORDINGS[task.name][0]
    found = {}
    for wording in wordings:
        asked = [replace(e, prompts=tuple(p.replace(paper, wording) for p in e.prompts)) for e in examples]
        found[wording] = sweep(vlm, task, asked, [BASELINE])
    return Measurement(found, task.score, SEED)


def best_wording(vlm: VLM, task: Task, dev: Sequence[Example]) -> str:
    """On dev; among equals the first."""
    measured = asked_in(vlm, task, dev, WORDINGS[task.name])
    return max(WORDINGS[task.name], key=measured.value)


def beside(model: str, name: str, options: argparse.Namespace, settings: SteeringSettings) -> list[str]:
    """The table of one model and task."""
    vlm, task, also = load_vlm(model), make_task(name, candidates=8), make_task(options.also, candidates=8)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"discovery": options.discovery, "dev": options.dev, "test": options.test}
        written = write_shapes(Path(folder) / "signs", sizes, seed=options.seed, source="signs")
        written["outside"] = write_shapes(Path(folder) / "shapes", {"test": options.outside}, seed=options.seed)["test"]
        splits = {split: load_items(file) for split, file in written.items()}
        examples = {split: task.examples(items)[0] for split, items in splits.items()}

        # the sites
        heads = localize_heads(vlm, task, examples["discovery"]).critical
        importance = attribute_neurons(vlm, task, examples["discovery"], heads)
        neurons = sites_of(select_neurons(importance, options.ratio))
        ranked = make_method("rounds").for_budget(options.ratio).importance(Context(vlm, task, examples["discovery"]))
        of_rounds = sites_of(select_neurons(ranked, options.ratio))
        steps = len(make_plan(task, examples["dev"], settings).steps)
        dev = SteeringContext(
            vlm, task, examples["dev"], neurons, settings.for_steps(steps), heads=[(h.layer, h.head) for h in heads]
        )

        # what each way learns
        rows: dict[str, Row] = {}
        for way in options.ways:
            started = time.monotonic()
            if way == "prompt":
                found: Scales | str = best_wording(vlm, task, examples["dev"])
            elif way == "rounds":
                found = WAYS["hones"].make(replace(dev, neurons=of_rounds)).scales
            else:
                found = WAYS[way].make(dev).scales
            rows[way] = Row(time.monotonic() - started, found)
            print(f"{model} {name} {way}: {rows[way].seconds:.1f} s, {getattr(found, 'learned', found)}", flush=True)

        # what it changes
        edits: dict[object, Intervention] = {UNEDITED: BASELINE}
        edits |= {way: edit_of(row.found) for way, row in rows.items() if isinstance(row.found, Scales)}
        jobs = [(task, examples["test"]), (also, also.examples(splits["test"])[0])]
        on_test, on_also = measure(vlm, jobs, edits, seed=SEED)
        (outside,) = measure(vlm, [(task, examples["outside"])], edits, seed=SEED)
        level, in_domain = on_test.level(UNEDITED), f"{on_test.items} test items of signs"
        lines = [
            f"\n## {model}, {name}, pictures of seed {options.seed}\n",
            f"{len(neurons)} neurons, {len(heads)} heads; {steps} steps of {settings.batch_size} pairs, "
            f"{options.dev} dev items. {task.metric_name} of the model itself {level:.3f} on {in_domain}, "
            f"{outside.level(UNEDITED):.3f} on {outside.items} of shapes, out of domain; "
            f"{also.metric_name} of {also.name} {on_also.level(UNEDITED):.3f}.\n",
            f"| way | parameters | gain | out of domain | off-task change: {also.name} | seconds |",
            "|---|---|---|---|---|---|",
        ]
        for way, row in rows.items():
            if isinstance(row.found, Scales):
                parameters = row.found.parameters
                changes = [f"{m.difference(way, UNEDITED):+.3f}" for m in (on_test, outside, on_also)]
            else:
                parameters, paper = 0, WORDINGS[name][0]
                asked = [asked_in(vlm, task, examples[x], [paper, row.found]) for x in ("test", "outside")]
                changes = [*(f"{m.difference(row.found, paper):+.3f}" for m in asked), "none: its prompt is another"]
            lines.append(f"| {way} | {parameters:,} | {' | '.join(changes)} | {row.seconds:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava"])
    parser.add_argument("--tasks", nargs="+", choices=[*WORDINGS], default=["vqa"])
    parser.add_argument("--ways", nargs="+", choices=BESIDE, default=BESIDE)
    parser.add_argument("--also", choices=[*TASKS], default="caption", help="the other task")
    parser.add_argument("--ratio", type=float, default=0.03)
    parser.add_argument("--discovery", type=int, default=48)
    parser.add_argument("--dev", type=int, default=64)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--outside", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=21, help="of the pictures")
    parser.add_argument("--out", type=Path, help="appended to")
    options = parser.parse_args()
    settings = SteeringSettings(
        learning_rate=options.learning_rate, epochs=options.epochs, batch_size=options.batch_size
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for model, name in ((model, name) for model in options.models for name in options.tasks):
        lines = "\n".join(beside(model, name, options, settings))
        print(lines)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(f"{lines}\n")


if __name__ == "__main__":
    main()
