"""How fast a device is: its rate of matrix products, and the share of it that each stage reaches, as measured by
`hones.runs.plan.calibrate`. What was measured is kept per device, model shape, dtype and tasks.
"""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hones.errors import HonesError
from hones.files import read_json, write_json
from hones.runs.plan.shapes import Shapes

HEADS, NEURONS, MASK, STEER = "heads", "neurons", "mask", "steer"
POSITIONS = (256, 512, 1024, 2048, 4096, 8192)
REPEATS = 7


@dataclass(frozen=True)
class Rates:
    """flop_rate: operations per second of matrix products. shares: by stage, of it, one of each measured run.

    source: where the figures come from, in words. No shares: nothing was calibrated.
    """

    device: str
    flop_rate: PositiveFloat
    source: str
    shares: dict[str, list[PositiveFloat]] = field(default_factory=dict)

    def seconds(self, stage: str, flop: float) -> tuple[float, float, float]:
        """(middle, least, most) seconds of so many operations; without shares all three are the least."""
        shares = self.shares.get(stage) or [1.0]
        at_full_rate = flop / self.flop_rate
        return at_full_rate / statistics.median(shares), at_full_rate / max(shares), at_full_rate / min(shares)

    @property
    def calibrated(self) -> bool:
        """Whether shares were measured, or the rate given is what is reached."""
        return bool(self.shares) or self.source.startswith("given")


def given_rate(tflops: float) -> Rates:
    """A rate that the user gives: reached by every stage."""
    if not 0 < tflops < math.inf:
        raise HonesError(f"--tflops {tflops:g}", expected="the TFLOP/s that runs reach, above 0")
    return Rates("a device elsewhere", tflops * 1e12, f"given: {tflops:g} TFLOP/s reached")


def device_name(device: torch.device) -> str:
    """What a device is called in the file of rates; threads matter on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()}"


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, of all that it gives a GPU to do."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda device: None
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - started


def matmul_rate(width: int, neurons: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of [positions, d] x [d, I]: the median of several runs, at the best number of positions."""
    weight = torch.randn(neurons, width, dtype=dtype, device=device)
    rates = []
    for positions in POSITIONS:
        x = torch.randn(positions, width, dtype=dtype, device=device)
        out = torch.empty(positions, neurons, dtype=dtype, device=device)
        times = [seconds_of(lambda x=x, out=out: torch.mm(x, weight.T, out=out), device) for _ in range(REPEATS)]
        rates.append(2 * positions * weight.numel() / statistics.median(times))
    return max(rates)


def cache_file() -> Path:
    """Where rates are kept: $HONES_CACHE, else hones/ in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hones"
    return Path(os.environ.get("HONES_CACHE") or base) / "rates.json"


def key_of(device: str, shapes: Shapes, dtype: str, tasks: Sequence[str]) -> str:
    """What rates belong to: a device, widths of a model, a dtype and tasks."""
    widths = f"d {shapes.width}, I {shapes.neurons}, H {shapes.heads} x {shapes.head_dim}, vision {shapes.vision.width}"
    return f"{device}; {widths}; {dtype}; {'+'.join(sorted(tasks))}; torch {torch.__version__}"


def saved_rates(key: str) -> Rates | None:
    """What an earlier calibration found.

    Raises:
        HonesError: the file is damaged.
    """
    file = cache_file()
    entry = _all_saved(file).get(key)
    if entry is None:
        return None
    try:
        return TypeAdapter(Rates).validate_python(entry)
    except ValidationError as error:
        raise HonesError(f"{file} holds no rates above 0 for this device", do="--calibrate again") from error


def save_rates(key: str, rates: Rates) -> Path:
    """Keep what a calibration found; returns the file."""
    file = cache_file()
    write_json(file, {**_all_saved(file), key: asdict(rates)})
    return file


def _all_saved(file: Path) -> dict[str, Any]:
    """By key."""
    content = read_json(file) if file.is_file() else {}
    return content if isinstance(content, dict) else {}
