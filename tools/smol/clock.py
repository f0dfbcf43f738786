"""A phase that lasts some minutes: its rates, its log and its checkpoints.

Minutes count while a phase runs, over all runs that it took; a killed run loses what came after its last checkpoint.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Gradients = Callable[[str, str, list[Tensor]], tuple[list[Tensor], float, dict[str, float]]]
Optimizers = Sequence[torch.optim.Optimizer]
LONGEST = 120.0
LAST = 0.02  # of the peak rate, when the time is over


@dataclass
class Clock:
    """How many minutes a phase has, how many seconds it has used and how many steps it took.

    A step counts at most LONGEST seconds: a process that was stopped for a while has not trained meanwhile.
    """

    minutes: float
    step: int = 0
    seconds: float = 0.0
    last: float = 0.0  # when `due` said so
    at: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """Of the minutes, used so far."""
        return min(1.0, self.seconds / (60 * self.minutes))

    @property
    def over(self) -> bool:
        """Whether the time is used."""
        return self.seconds >= 60 * self.minutes

    def tick(self) -> None:
        """One step more."""
        now = time.monotonic()
        self.seconds += min(now - self.at, LONGEST)
        self.at = now
        self.step += 1

    def due(self, seconds: float) -> bool:
        """Whether that many seconds passed since it last said so."""
        if self.seconds - self.last < seconds:
            return False
        self.last = self.seconds
        return True

    def set_rates(self, optimizers: Optimizers, warm: int) -> None:
        """A cosine over the minutes, after `warm` steps of rising."""
        scale = min(1.0, (self.step + 1) / warm) * (LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * self.share)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * scale


class Log:
    """Figures, a JSON line each, appended to a file and printed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, phase: str, clock: Clock, figures: dict[str, float]) -> None:
        """One line."""
        rounded = {name: round(value, 4) for name, value in figures.items()}
        line = json.dumps({"phase": phase, "step": clock.step, "minutes": round(clock.seconds / 60, 1), **rounded})
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def save(path: Path, modules: dict[str, nn.Module], optimizers: Optimizers, clock: Clock) -> None:
    """A checkpoint, whole or not at all."""
    state: dict[str, Any] = {name: trained_state(module) for name, module in modules.items()}
    state |= {"optimizers": [o.state_dict() for o in optimizers], "step": clock.step, "seconds": clock.seconds}
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def trained_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters of a module that are trained."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def load(path: Path, modules: dict[str, nn.Module], optimizers: Optimizers = (), clock: Clock | None = None) -> bool:
    """Go on from a checkpoint, if there is one."""
    if not path.exists():
        return False
    state = torch.load(path, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state[name], strict=False)
    for optimizer, kept in zip(optimizers, state.get("optimizers", ()), strict=False):
        optimizer.load_state_dict(kept)
    if clock is not None:
        clock.step, clock.seconds, clock.last = state["step"], state["seconds"], state["seconds"]
        clock.at = time.monotonic()
    return True


def threads(count: int) -> ThreadPoolExecutor:
    """Threads that compute alone; on a shared machine that is much faster than splitting each operation."""
    torch.set_num_threads(1)
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def descend(
    pool: ThreadPoolExecutor, gradients: Gradients, kinds: Sequence[str], seed: str, optimizers: Optimizers
) -> dict[str, float]:
    """One step: the parts of a batch, each computed by some thread as soon as it is free; their losses.

    gradients: of a part of a kind and seed, summed over what it weighs, with the weight and losses to report.
    """
    trained = [parameter for o in optimizers for group in o.param_groups for parameter in group["params"]]
    seeds = [f"{seed}/{n}" for n in range(len(kinds))]
    found = [*pool.map(gradients, kinds, seeds, [trained] * len(kinds))]
    weight = sum(part_weight for _, part_weight, _ in found)
    for n, parameter in enumerate(trained):
        parameter.grad = torch.stack([of_part[n] for of_part, _, _ in found]).sum(0) / weight
    for optimizer in optimizers:
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
    return {name: loss for _, _, losses in found for name, loss in losses.items()}
