"""A few real passes of every stage, timed: which share of the matrix rate a stage reaches on this device.

    share = operations of a run, counted by torch / (seconds of the same run again x rate of matrix products)

The model is a copy with at most four decoder layers and random weights, in the dtype that is planned; its layers are as
wide as the real ones, and its vision part is whole. It answers prompts of the user's file about noise of the pictures'
sizes, as many and under as many heads as fit into a few seconds.
"""

import copy
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from hones.method.heads import HeadScore
from hones.method.neurons import attribute_neurons
from hones.method.steering.train import learn_scales
from hones.models.anatomy import Site, find_anatomy
from hones.models.interventions import BASELINE, Intervention
from hones.models.loading import DTYPES, auto_model
from hones.models.vlm import VLM, AnswerTokens
from hones.runs.plan.lengths import Measured
from hones.runs.plan.rates import HEADS, MASK, NEURONS, STEER, Rates, device_name, matmul_rate, seconds_of
from hones.stats import Interval
from hones.sweep.run import SweepSettings, sweep_tasks
from hones.tasks.base import Example, Task

LAYERS, REPEATS, SECONDS = 4, 3, 10.0
PICTURES, MASKS = 16, 3
OF_CPU: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
    ),
}
"""Attention on a CPU, which torch's counter leaves out."""
Run = Callable[[int], object]


def calibrate(
    light: VLM,
    data: Measured,
    *,
    dtype: str,
    device: torch.device,
    seconds: float = SECONDS,
    seed: int = 3407,
    on_stage: Callable[[str], object] = lambda stage: None,
) -> Rates:
    """Measure a device.

    Args:
        light: the model without weights. data: lengths of the discovery items. seconds: of one run of a stage, at most.
    """
    rate = matmul_rate(light.anatomy.width, light.anatomy.neurons, DTYPES[dtype], device)
    vlm = cut_copy(light, DTYPES[dtype], device, seed)
    answer = max(one.answer for job in data.jobs.values() for one in job.asked)
    shares = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage, run in runs_of_stages(vlm, noisy(data, Path(folder), seed), max(1, answer)).items():
            on_stage(stage)
            largest = max(PICTURES, vlm.anatomy.heads) if stage == HEADS else PICTURES
            shares[stage] = measured_shares(run, largest, seconds, rate, device)
    return Rates(device_name(device), rate, f"calibrated on {device_name(device)}", shares)


def cut_copy(light: VLM, dtype: torch.dtype, device: torch.device, seed: int) -> VLM:
    """The model with its first layers and random weights."""
    config: Any = copy.deepcopy(light.model.config)
    text = config.get_text_config()
    text.num_hidden_layers = min(LAYERS, len(light.anatomy.layers))
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with torch.device(device):
            model = auto_model(config).from_config(config, dtype=dtype)
    model.eval()
    light.processor.tokenizer.padding_side = "left"  # pyright: ignore[reportAttributeAccessIssue]
    lead = "" if light.wrap("?").endswith(("\n", " ")) else " "
    tokens = AnswerTokens(0, 1, lead, 0.0)
    return VLM(light.name, model, light.processor, find_anatomy(model), "", light.image_backend, tokens)


def noisy(data: Measured, folder: Path, seed: int) -> list[list[tuple[Task, Example]]]:
    """The examples of some pictures, those of a picture together, about noise of its size; items without one as is."""
    pictures = random.Random(seed).sample([*data.sizes], min(PICTURES, len(data.sizes)))
    noise: dict[Path, Path] = {}
    for number, picture in enumerate(pictures):
        width, height = data.sizes[picture]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        noise[picture] = folder / f"{number}.png"
        Image.fromarray(pixels).save(noise[picture])
    members: dict[Path | str, list[tuple[Task, Example]]] = {}
    for job in data.jobs.values():
        for example in job.examples:
            if example.image is None:
                members.setdefault(example.about, []).append((job.task, example))
            elif example.image in noise:
                shown = replace(example, image=noise[example.image])
                members.setdefault(example.about, []).append((job.task, shown))
    return [*members.values()][:PICTURES]


def runs_of_stages(vlm: VLM, pictures: Sequence[Sequence[tuple[Task, Example]]], answer: int) -> Mapping[str, Run]:
    """Every stage, to be run on so many pictures."""
    layers, heads, neurons = vlm.anatomy.shape
    few = max(1, neurons // 100)
    settings = SweepSettings(max_new_tokens=answer)

    def jobs(size: int) -> list[tuple[Task, list[Example]]]:
        examples: dict[Task, list[Example]] = {}
        for task, example in (member for members in pictures[:size] for member in members):
            examples.setdefault(task, []).append(example)
        return [*examples.items()]

    def set_of(draw: int) -> list[Site]:
        return [(layer, draw * few + i) for layer in range(layers) for i in range(few)]

    def score_heads(size: int) -> object:
        sites = [(layer, head) for layer in range(layers) for head in range(min(size, heads))]
        edits = [Intervention(heads=frozenset({site})) for site in sites]
        return sweep_tasks(vlm, jobs(size), [BASELINE, *edits], settings)

    def attribute(size: int) -> object:
        task, examples = jobs(size)[0]
        guides = [HeadScore(layer, 0, Interval(1.0, 1.0, 1.0), 1.0, 0.0) for layer in range(layers)]
        return attribute_neurons(vlm, task, examples, guides)

    def mask(size: int) -> object:
        edits = [Intervention(masked=frozenset(set_of(draw))) for draw in range(MASKS)]
        return sweep_tasks(vlm, jobs(size), [BASELINE, *edits], settings)

    def steer(size: int) -> object:
        task, examples = jobs(size)[0]
        return learn_scales(vlm, task, examples, set_of(0))

    return {HEADS: score_heads, NEURONS: attribute, MASK: mask, STEER: steer}


def measured_shares(run: Run, largest: int, seconds: float, rate: float, device: torch.device) -> list[float]:
    """Of a few runs of a stage, as large as fits into the time; twice the size may take four times as long."""
    size = 1
    while seconds_of(partial(run, size), device) < seconds / 4 and size < largest:
        size = min(2 * size, largest)
    with FlopCounterMode(display=False, custom_mapping=OF_CPU) as counter:
        run(size)
    flop = counter.get_total_flops()
    return [flop / seconds_of(partial(run, size), device) / rate for _ in range(REPEATS)]
