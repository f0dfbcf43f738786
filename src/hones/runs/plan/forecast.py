"""A run's forecast: every stage's operations, bytes, memory and hours, on one device and on several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from hones.errors import HonesError
from hones.models.dtypes import DTYPES, dtype_named
from hones.models.vlm import VLM
from hones.rivals.auto import AUTO, choose
from hones.runs.method_inputs import at_hand
from hones.runs.plan.absent import planned_items, planned_model
from hones.runs.plan.bill import Bill, Stage
from hones.runs.plan.lengths import Job, measure
from hones.runs.plan.rates import (
    Rates,
    calibrate,
    device_name,
    given_rate,
    key_of,
    matmul_rate,
    save_rates,
    saved_rates,
)
from hones.runs.plan.request import Request
from hones.runs.plan.shapes import Memory, Number, Shapes, gib, shapes_of
from hones.sweep.memory import GIB, free_memory
from hones.tasks import check_distinct, make_task

MOST_DEVICES = 64


@dataclass
class Forecast:
    """All stages with what they rest on.

    devices: how many one copy of the model takes; copies: how many copies run.
    """

    shapes: Shapes
    dtype: str
    rates: Rates
    stages: list[Stage]
    memory: float
    devices: int
    gpus: int
    load: float
    notes: list[str]

    @property
    def copies(self) -> int:
        return self.gpus // self.devices

    @property
    def counted(self) -> list[Stage]:
        """The stages of the total."""
        return [stage for stage in self.stages if stage.race is None]

    def total(self, copies: int) -> Float[np.ndarray, "3"]:
        """(middle, least, most) hours of all stages, loading included."""
        return sum((stage.hours(self.rates, copies) for stage in self.counted), np.zeros(3)) + self.load / 60

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.shapes.name,
            "dtype": self.dtype,
            "device": self.rates.device,
            "flop_rate": self.rates.flop_rate,
            "rate_source": self.rates.source,
            "shares_of_rate": self.rates.shares,
            "calibrated": self.rates.calibrated,
            "memory_gib": self.memory / GIB,
            "weights_gib": self.shapes.bytes / GIB,
            "gpus": self.gpus,
            "gpus_per_copy": self.devices,
            "copies": self.copies,
            "load_minutes": self.load,
            "stages": [
                {
                    "stage": stage.name,
                    "tasks": stage.tasks,
                    "cells": stage.cells,
                    "flop": stage.work.flop,
                    "bytes_moved": stage.work.moved,
                    "memory_gib": stage.memory.total / GIB,
                    "least_memory_gib": stage.least.total / GIB,
                    "shards": stage.shards,
                    "scenario": stage.race is not None,
                    "hours_one_copy": stage.hours(self.rates).tolist(),
                    "hours": stage.hours(self.rates, self.copies).tolist(),
                    "release_flop": None if stage.release is None else stage.release.flop,
                }
                for stage in self.stages
            ],
            "total_hours_one_copy": self.total(1).tolist(),
            "total_hours": self.total(self.copies).tolist(),
            "notes": self.notes,
        }


def plan(request: Request, *, on_calibration: Callable[[str], object] = lambda stage: None) -> Forecast:
    """Forecast a run.

    Args:
        on_calibration: hears which stage is measured.

    Raises:
        HonesError: no such model or file, items that tasks cannot use, or a model that does not fit.
    """
    device, dtype = _device(request)
    light, assumed = planned_model(request)
    shapes = shapes_of(light, dtype)
    splits, notes = _measure(request, light, shapes)
    method, chosen = _ranking(request, light, splits["discovery"])
    notes = [*assumed, *notes, *chosen]
    memory = float(free_memory(device)) if request.memory is None else request.memory * GIB
    bill = Bill(request, shapes, device.type, memory - shapes.bytes, splits, method)
    stages = bill.stages()
    devices = _check_fits(shapes, dtype, [stage.least for stage in stages], memory, request.gpus)
    if devices > 1:  # what is free for rows and pictures is free on all of them
        stages = replace(bill, free=devices * memory - shapes.bytes).stages()
    if request.tflops is not None:
        rates = given_rate(request.tflops)
    else:
        key = key_of(device_name(device), shapes, dtype, request.tasks)
        if request.calibrate:
            rates = calibrate(light, shapes, splits["discovery"], dtype=dtype, device=device, on_stage=on_calibration)
            save_rates(key, rates)
        elif (rates := saved_rates(key)) is None:
            rate = matmul_rate(shapes, DTYPES[dtype], device)
            rates = Rates(device_name(device), rate, "matrix products measured now, shares of it unknown")
    return Forecast(shapes, dtype, rates, stages, memory, devices, request.gpus, request.load, notes)


def _check_fits(shapes: Shapes, dtype: str, needs: Sequence[Memory], memory: Number, gpus: int) -> int:
    """How many devices a copy of the model takes.

    Raises:
        HonesError: it fits neither one device nor all of them together; the line says what would.
    """
    numbers = range(1, MOST_DEVICES + 1)
    devices = next((n for n in numbers if all(need.on_each(n) <= memory for need in needs)), None)
    if devices is not None and devices <= gpus:
        return devices
    most = max(needs, key=lambda need: need.total)
    ways = [
        "--dtype bfloat16 halves the weights" if shapes.itemsize > 2 else "",
        f"spread a copy over {devices} of them (--gpus {devices})" if devices is not None else "",
        "--step-size 1 trains on one pair at once" if most.working > 0.5 * memory else "",
        f"a device with {gib(most.total)}",
    ]
    raise HonesError(
        f"{shapes.name} in {dtype} does not fit {gpus} x {gib(memory)}: weights {gib(most.weights)}, "
        f"and {gib(most.total - most.weights)} for the smallest passes",
        expected="weights and the smallest passes in memory",
        do="; or ".join(filter(None, ways)),
    )


def _device(request: Request) -> tuple[torch.device, str]:
    """The device and dtype, as `load_vlm` chooses; for a device elsewhere a GPU with bfloat16."""
    elsewhere = request.tflops is not None
    if elsewhere and request.memory is None:
        raise HonesError("--tflops without --memory", expected="the GiB of a device elsewhere, such as --memory 80")
    name, dtype = request.device, request.dtype
    if name == "auto":
        name = "cuda" if elsewhere or torch.cuda.is_available() else "cpu"
    dtype = dtype_named(dtype, name)
    if not elsewhere and name.startswith("cuda") and not torch.cuda.is_available():
        raise HonesError(f"no device {name!r}", do="plan for a device elsewhere with --tflops and --memory")
    return torch.device(name), dtype


def _ranking(request: Request, light: VLM, discovery: Mapping[str, Job]) -> tuple[str, list[str]]:
    """The method that ranks neurons, and what is noted where auto chooses it, by the measured items."""
    if request.method != AUTO:
        return request.method, []
    items, _ = planned_items(request, "discovery", request.data.discovery)
    jobs = [(job, [one.example for one in job.asked]) for job in discovery.values()]
    choice = choose([at_hand(light, job.task, items, examples, times=job.times) for job, examples in jobs])
    return choice.method, [f"{', '.join(discovery)}: {choice}"]


def _measure(request: Request, light: VLM, shapes: Shapes) -> tuple[dict[str, dict[str, Job]], list[str]]:
    """The jobs of all splits, and notes; a split without a file, but with a number, is like the discovery items."""
    tasks = [make_task(name, candidates=request.candidates) for name in request.tasks]
    check_distinct(tasks)
    splits: dict[str, dict[str, Job]] = {}
    notes: list[str] = []
    for split, file in request.files.items():
        count = getattr(request.limit, split)
        if file is not None:
            items, stand_in = planned_items(request, split, file)
            how: dict[str, Any] = {"max_new_tokens": request.max_new_tokens, "seed": request.seed, "split": split}
            splits[split], assumed = measure(light, shapes, tasks, items, **how)
            notes += stand_in + assumed
        elif count is not None and split != "ood":
            splits[split] = splits["discovery"]
            notes.append(f"{split}: no file given, lengths are those of the discovery items")
        if count is not None and split in splits:
            splits[split] = {name: replace(job, items=count) for name, job in splits[split].items()}
            notes.append(f"{split}: planned for {count:,} items of every task")
    missing = [split for split in ("dev", "test") if split not in splits]
    if missing:
        notes.append(f"no {' and no '.join(missing)} items given, so the stages on them are not in the bill")
    return splits, notes
