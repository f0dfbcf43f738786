"""How fast a device is: its rate of matrix products, and the share of it that each stage reaches.

    share = operations of a run, counted by torch / (seconds of the same run again x rate of matrix products)

A calibration runs every stage on a copy of the model with at most four decoder layers and random weights, in the dtype
that is planned; its layers are as wide as the real ones, and its vision part is whole. It answers prompts of the user's
file about noise of the pictures' sizes, as many and under as many heads as fit into a few seconds. What was measured is
kept per device, model shape, dtype and tasks.
"""

import copy
import math
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import PositiveFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from hones.errors import HonesError
from hones.files import cache_folder, read_json, write_json
from hones.method.found import HeadScore
from hones.method.neurons import attribute_neurons
from hones.method.steering.train import learn_scales
from hones.models.answer_tokens import AnswerTokens
from hones.models.dtypes import DTYPES
from hones.models.finding import find_anatomy
from hones.models.interventions import BASELINE, Intervention
from hones.models.loading import auto_model
from hones.models.vlm import VLM
from hones.runs.plan.lengths import Job
from hones.runs.plan.shapes import Shapes
from hones.stats import Interval
from hones.sweep.run import SweepSettings, sweep_tasks
from hones.tasks.base import Example, Task

HEADS, NEURONS, MASK, STEER = "heads", "neurons", "mask", "steer"
POSITIONS = (256, 512, 1024, 2048, 4096, 8192)
PRODUCTS, REPEATS, SECONDS = 7, 3, 40.0
LAYERS, PICTURES, MASKS = 4, 16, 3
OF_CPU: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
    ),
}
"""Attention on a CPU, which torch's counter leaves out."""


@dataclass(frozen=True)
class Rates:
    """flop_rate: operations per second of matrix products. shares: by stage, of it, one of each measured run.

    source: where the figures come from, in words. No shares: nothing was calibrated.
    """

    device: str
    flop_rate: PositiveFloat
    source: str
    shares: dict[str, list[PositiveFloat]] = field(default_factory=dict)

    def seconds(self, stage: str, flop: float) -> Float[np.ndarray, "3"]:
        """(middle, least, most) seconds of so many operations; without shares all three are the least."""
        shares = self.shares.get(stage) or [1.0]
        return flop / self.flop_rate / np.array([statistics.median(shares), max(shares), min(shares)])

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


def matmul_rate(shapes: Shapes, dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of [positions, d] x [d, I]: the median of several runs, at the best number of positions."""
    weight = torch.randn(shapes.width, shapes.neurons, dtype=dtype, device=device)
    rates = []
    for positions in POSITIONS:
        x = torch.randn(positions, shapes.width, dtype=dtype, device=device)
        out = torch.empty(positions, shapes.neurons, dtype=dtype, device=device)
        times = [seconds_of(partial(torch.mm, x, weight, out=out), device) for _ in range(PRODUCTS)]
        rates.append(2 * positions * weight.numel() / statistics.median(times))
    return max(rates)


def cache_file() -> Path:
    """Where rates are kept: $HONES_CACHE, else hones/ in the user's cache folder."""
    return cache_folder() / "rates.json"


def key_of(device: str, shapes: Shapes, dtype: str, tasks: Sequence[str]) -> str:
    """What rates belong to: a device, a model's shape, a dtype and tasks."""
    shape = f"d {shapes.width}, I {shapes.neurons}, H {shapes.heads} x {shapes.head_dim}, {shapes.parameters} weights"
    return f"{device}; {shape}; {dtype}; {'+'.join(sorted(tasks))}; torch {torch.__version__}"


def saved_rates(key: str) -> Rates | None:
    """What an earlier calibration found.

    Raises:
        HonesError: the file is damaged.
    """
    entry = _all_saved().get(key)
    try:
        return None if entry is None else TypeAdapter(Rates).validate_python(entry)
    except ValidationError as error:
        raise HonesError(f"{cache_file()} holds no rates above 0 for this device", do="--calibrate again") from error


def save_rates(key: str, rates: Rates) -> None:
    """Keep what a calibration found."""
    write_json(cache_file(), {**_all_saved(), key: asdict(rates)})


def _all_saved() -> dict[str, Any]:
    content = read_json(cache_file()) if cache_file().is_file() else {}
    return content if isinstance(content, dict) else {}


def calibrate(
    light: VLM,
    shapes: Shapes,
    jobs: Mapping[str, Job],
    *,
    dtype: str,
    device: torch.device,
    seconds: float = SECONDS,
    seed: int = 3407,
    on_stage: Callable[[str], object] = lambda stage: None,
) -> Rates:
    """Measure a device.

    Args:
        light: the model without weights. jobs: lengths of the discovery items. seconds: of one run of a stage, at most.
    """
    rate = matmul_rate(shapes, DTYPES[dtype], device)
    vlm = cut_copy(light, DTYPES[dtype], device, seed)
    answer = max(1, *(one.answer for job in jobs.values() for one in job.asked))
    shares: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage, run in runs_of_stages(vlm, noisy(jobs, Path(folder), seed), answer).items():
            on_stage(stage)
            size, largest = 1, max(PICTURES, vlm.anatomy.heads) if stage == HEADS else PICTURES
            # twice the size may take four times as long
            while seconds_of(partial(run, size), device) < seconds / 4 and size < largest:
                size = min(2 * size, largest)
            with FlopCounterMode(display=False, custom_mapping=OF_CPU) as counter:
                run(size)
            taken = [seconds_of(partial(run, size), device) for _ in range(REPEATS)]
            shares[stage] = [counter.get_total_flops() / x / rate for x in taken]
    return Rates(device_name(device), rate, f"calibrated on {device_name(device)}", shares)


def cut_copy(light: VLM, dtype: torch.dtype, device: torch.device, seed: int, layers: int = LAYERS) -> VLM:
    """The model with its first layers and random weights."""
    config: Any = copy.deepcopy(light.model.config)
    text = config.get_text_config()
    first = light.anatomy.head_sites[0][0] if light.anatomy.head_sites else 0  # a layer with heads, if there is one
    text.num_hidden_layers = min(max(layers, first + 1), len(light.anatomy.layers))
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        model = auto_model(config).from_config(config, dtype=dtype)
    tokens = AnswerTokens((0, 1), "" if light.wrap("?").endswith(("\n", " ")) else " ", 0.0)
    return replace(light, model=model.eval(), anatomy=find_anatomy(model), answer_tokens=tokens)


def noisy(jobs: Mapping[str, Job], folder: Path, seed: int) -> list[tuple[Task, list[Example]]]:
    """The examples about some pictures, which are noise of their size; items without a picture as they are."""
    sizes = {one.example.image: one.size for job in jobs.values() for one in job.asked if one.size is not None}
    noise: dict[Path | None, Path] = {}
    for number, picture in enumerate(random.Random(seed).sample([*sizes], min(PICTURES, len(sizes)))):
        width, height = sizes[picture]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        noise[picture] = folder / f"{number}.png"
        Image.fromarray(pixels).save(noise[picture])
    chosen = []
    for job in jobs.values():
        examples = [one.example for one in job.asked]
        shown = [replace(x, image=noise[x.image]) for x in examples if x.image in noise]
        chosen.append((job.task, shown + [x for x in examples if x.image is None][:PICTURES]))
    return chosen


def runs_of_stages(
    vlm: VLM, jobs: Sequence[tuple[Task, list[Example]]], answer: int
) -> Mapping[str, Callable[[int], object]]:
    """Every stage, to be run on so many pictures; neurons and steer for the first task."""
    layers = len(vlm.anatomy.layers)
    neurons = min(layer.neurons for layer in vlm.anatomy.layers)
    few, (task, examples) = max(1, neurons // 100), jobs[0]
    sets = [[(layer, draw * few + i) for layer in range(layers) for i in range(few)] for draw in range(MASKS)]
    guides = [HeadScore(*site, Interval(1.0, 1.0, 1.0), 1.0, 0.0) for site in vlm.anatomy.head_sites if site[1] == 0]

    def swept(size: int, edits: Sequence[Intervention]) -> object:
        pictures = [*dict.fromkeys(example.about for _, examples in jobs for example in examples)][:size]
        some = [(task, [example for example in examples if example.about in pictures]) for task, examples in jobs]
        return sweep_tasks(vlm, some, [BASELINE, *edits], SweepSettings(max_new_tokens=answer))

    def score_heads(size: int) -> object:
        sites = [(layer, head) for layer, head in vlm.anatomy.head_sites if head < size]
        return swept(size, [Intervention(heads=frozenset({site})) for site in sites])

    return {
        HEADS: score_heads,
        NEURONS: lambda size: attribute_neurons(vlm, task, examples[:size], guides),
        MASK: lambda size: swept(size, [Intervention(masked=frozenset(sites)) for sites in sets]),
        STEER: lambda size: learn_scales(vlm, task, examples[:size], sets[0]),
    }
