"""Learning scales: updates per second of a straightforward loop and of the fast trainer, in one run.

What they gain beside other ways to steer is measured by bench/ways.py.

    python bench/steering.py [--models tiny-llava tiny-qwen2.5-vl] [--items 8] [--epochs 2] [--out FILE.md]

straightforward: the definition as one would write it, the pictures encoded again, the original model run beside the
scaled one in every step, logits of all positions. definition: `hones.method.steering.definition`,
logits of the answer's end only. fast: what `learn_scales` uses; below it, each saving alone off, and nothing kept in
memory. Each arm makes the same updates of the same scales (random neurons, 1 % of all, in the upper half of the layers
or in all), from the first step on: `first epoch` holds the passes whose results the `later` epochs take from memory.
differs: the largest difference of a scale from the straightforward loop's at the end.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hones import VLM, SteeringSettings, load_items, load_vlm, make_task, write_shapes
from hones.method.steering import definition, train
from hones.method.steering.checkpoint import TrainingState
from hones.method.steering.definition import Losses
from hones.method.steering.fast import FastObjective, Objective, Savings
from hones.method.steering.pairs import Pair, TrainingPlan, make_plan
from hones.method.steering.trainable import Trainable
from hones.models.sites import Site
from hones.models.vlm import frozen
from hones.tasks import TASKS

RATIO = 0.01


@dataclass
class Measured:
    """Seconds per step in the first epoch and in the later ones, and the scales at the end."""

    first: float
    later: float
    scales: Tensor


def straightforward(
    vlm: VLM, trained: Trainable, settings: SteeringSettings, pairs: Sequence[Pair], scales: dict[int, Tensor]
) -> Losses:
    """One step without any saving."""
    encoded = vlm.encode_with_answers(
        [p.example.open_picture() for p in pairs], [p.prompt for p in pairs], [p.answer for p in pairs]
    )
    assert encoded.answer is not None
    before = encoded.answer.roll(-1, dims=1)
    with torch.no_grad():
        original = vlm.logits(encoded)[before]
    with trained.on(scales):
        scaled = vlm.logits(encoded)[before]
    labels = encoded.inputs["input_ids"][encoded.answer]
    return definition.losses(original, scaled, labels, encoded.answer.sum(1), scales, settings)


def random_neurons(vlm: VLM, lowest: int) -> list[Site]:
    """1 % of the neurons, from the layers from `lowest` on, two at least in each."""
    layers, _, width = vlm.anatomy.shape
    count = max(2, round(RATIO * layers * width / (layers - lowest)))
    generator = torch.Generator().manual_seed(0)
    chosen = {layer: torch.randperm(width, generator=generator)[:count].tolist() for layer in range(lowest, layers)}
    return [(layer, neuron) for layer, neurons in chosen.items() for neuron in neurons]


def measure(
    vlm: VLM, plan: TrainingPlan, neurons: Sequence[Site], settings: SteeringSettings, make: Callable[..., Objective]
) -> Measured:
    """A whole training by the objective that `make` gives for the neurons."""
    trained, scales = train.parameters(vlm, neurons)
    state = TrainingState(scales, torch.optim.AdamW(scales.values(), weight_decay=0.0))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with frozen(vlm.model):
        objective = make(trained)
        for epoch, _ in plan.steps:
            started = time.perf_counter()
            state.losses.append(train._step("bench", objective, plan, state, settings))
            train._bound(trained, state, settings)
            seconds[epoch == 0].append(time.perf_counter() - started)
    first, later = (sum(x) / max(1, len(x)) for x in (seconds[True], seconds[False]))
    return Measured(first, later, torch.cat([s.detach() for s in scales.values()]))


def arms(vlm: VLM, plan: TrainingPlan, settings: SteeringSettings) -> dict[str, Callable[..., Objective]]:
    def fast(savings: Savings) -> Callable[..., Objective]:
        return lambda trained: FastObjective(vlm, plan.pairs, trained, settings, savings)

    names = [field.name for field in fields(Savings) if field.name != "memory"]
    return {
        "straightforward": lambda trained: partial(straightforward, vlm, trained, settings),
        "definition": lambda trained: partial(definition.objective, vlm, trained=trained, settings=settings),
        "fast": fast(Savings()),
        **{f"  without {name}": fast(replace(Savings(), **{name: False})) for name in names},
        "  nothing kept": fast(Savings(memory=0)),
    }


def of_model(model: str, tasks: Sequence[str], count: int, settings: SteeringSettings, console: Console) -> None:
    vlm = load_vlm(model)
    layers = len(vlm.anatomy.layers)
    with tempfile.TemporaryDirectory() as folder:
        items = load_items(write_shapes(Path(folder), {"bench": count}, seed=3)["bench"])
        for name, lowest in ((name, lowest) for name in tasks for lowest in (0, layers // 2)):
            task = make_task(name, candidates=10)
            plan = make_plan(task, task.examples(items)[0][:count], settings)
            neurons = random_neurons(vlm, lowest)
            title = f"{model}, {name}: {len(neurons)} neurons in layers {lowest} to {layers - 1} of {layers}, "
            title += f"{len(plan.steps)} steps of {settings.batch_size}"
            table = Table("", "updates per second", "ratio", "first epoch, ms", "later, ms", "differs", title=title)
            found: dict[str, Measured] = {}
            measure(
                vlm, TrainingPlan(plan.steps[:1], []), neurons, settings, arms(vlm, plan, settings)["straightforward"]
            )
            for arm, make in arms(vlm, plan, settings).items():
                found[arm] = measured = measure(vlm, plan, neurons, settings, make)
                slow = found["straightforward"]
                share = 1 / settings.epochs
                mean, of_slow = (share * m.first + (1 - share) * m.later for m in (measured, slow))
                difference = float((measured.scales - slow.scales).abs().max())
                times = (f"{1000 * seconds:.0f}" for seconds in (measured.first, measured.later))
                table.add_row(arm, f"{1 / mean:.2f}", f"{of_slow / mean:.2f}x", *times, f"{difference:.0e}")
            console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-llava", "tiny-qwen2.5-vl"])
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=["vqa", "retrieval"])
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console = Console(record=True, width=120)
    hardware = platform.processor() or platform.machine()
    console.print(f"{hardware}, {torch.get_num_threads()} threads of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")
    settings = SteeringSettings(epochs=options.epochs, batch_size=options.batch_size)
    for model in options.models:
        of_model(model, options.tasks, options.items, settings, console)
    console.print(f"load at the end {os.getloadavg()[0]:.1f}")
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
