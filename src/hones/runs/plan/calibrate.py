"""A few real passes of every stage, timed: which share of the matrix rate a stage reaches on this device.

    share = operations counted for the run / (seconds x rate of matrix products)

The model is a copy with at most four decoder layers and random weights, in the dtype that is planned; its layers are as
wide as the real ones, and its vision part is whole. It answers prompts of the user's file about noise of the pictures'
sizes, as many and under as many heads as fit into a few seconds. Its answers do not end before their usual length.
"""

import copy
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hones.method.drops import replayed_drops
from hones.models.interventions import BASELINE, Intervention
from hones.models.anatomy import Site
from hones.models.anatomy import find_anatomy
from hones.models.loading import DTYPES, auto_model
from hones.models.vlm import VLM, AnswerTokens
from hones.runs.plan.bill import HEADS, MASK, NEURONS, STEER
from hones.runs.plan.lengths import NO_PICTURE, Asked, Measured, Seen, asked_of, seen_of
from hones.runs.plan.memory import sweep_plan
from hones.runs.plan.rates import Rates, device_name, matmul_rate, seconds_of
from hones.runs.plan.shapes import Shapes, shapes_of
from hones.runs.plan.stages import Training, attribution_work, training_proof, training_work
from hones.runs.plan.sweeping import Edits, sweep_work
from hones.runs.plan.work import Work
from hones.method.steering.settings import SteeringSettings
from hones.method.steering.train import learn_scales
from hones.sweep.memory import Plan, free_memory
from hones.sweep.replay import Replay
from hones.tasks.base import Example, Task
from hones.method.direction import RELEASED, target_directions

LAYERS, REPEATS, SECONDS = 4, 3, 10.0
MASKS = 3
Member = tuple[Task, Example, Asked]


def calibrate(
    light: VLM,
    shapes: Shapes,
    data: Measured,
    *,
    dtype: str,
    device: torch.device,
    max_new_tokens: int,
    seconds: float = SECONDS,
    seed: int = 3407,
    on_stage: Callable[[str], object] = lambda stage: None,
) -> Rates:
    """Measure a device.

    Args:
        light: the model without weights. data: lengths of the discovery items. seconds: of one run of a stage, about.
    """
    rate = matmul_rate(shapes.width, shapes.neurons, DTYPES[dtype], device)
    vlm = cut_copy(light, min(shapes.layers, LAYERS), DTYPES[dtype], device, seed)
    with tempfile.TemporaryDirectory() as folder:
        members = drawn_members(light, shapes, data, Path(folder), max_new_tokens, seed)
        runs = _Runs(vlm, shapes_of(vlm, dtype), members, rate, seconds)
        shares = {}
        for stage in (HEADS, NEURONS, MASK, STEER):
            on_stage(stage)
            shares[stage] = runs.shares(stage)
    name = device_name(device)
    return Rates(name, rate, f"calibrated on {name}", shares)


def cut_copy(light: VLM, layers: int, dtype: torch.dtype, device: torch.device, seed: int) -> VLM:
    """The model with its first layers and random weights."""
    config: Any = copy.deepcopy(light.model.config)
    text = config.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with torch.device(device):
            model = auto_model(config).from_config(config, dtype=dtype)
    model.eval()
    light.processor.tokenizer.padding_side = "left"  # pyright: ignore[reportAttributeAccessIssue]
    lead = "" if light.wrap("?").endswith(("\n", " ")) else " "
    tokens = AnswerTokens(0, 1, lead, 0.0)
    return VLM(light.name, model, light.processor, find_anatomy(model), "", light.image_backend, tokens)


def drawn_members(
    light: VLM, shapes: Shapes, data: Measured, folder: Path, max_new_tokens: int, seed: int
) -> list[list[Member]]:
    """The examples of some pictures, those of a picture together; the pictures are noise of their size.

    Of items without a picture some as they are.
    """
    images = random.Random(seed).sample([*data.sizes], min(16, len(data.sizes)))
    made: dict[Path, Path] = {}
    seen: dict[Path, Seen] = {}
    for number, image in enumerate(images):
        width, height = data.sizes[image]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        made[image] = folder / f"{number}.png"
        Image.fromarray(pixels).save(made[image])
        seen[image] = seen_of(light, shapes, width, height)
    texts = list(dict.fromkeys(e.about for job in data.jobs.values() for e in job.examples if e.image is None))
    members: dict[Path | str, list[Member]] = {about: [] for about in (*images, *texts[:16])}
    for job in data.jobs.values():
        for example in job.examples:
            if example.about in members:
                own = example if example.image is None else replace(example, image=made[example.image])
                shown = NO_PICTURE if example.image is None else seen[example.image]
                asked = asked_of(light, job.task, own, shown, max_new_tokens)
                members[example.about].append((job.task, own, asked))
    return [own for own in members.values() if own]


@dataclass
class _Runs:
    """Stages on the copy, sized to take some seconds."""

    vlm: VLM
    shapes: Shapes
    pictures: Sequence[Sequence[Member]]
    rate: float
    seconds: float

    def shares(self, stage: str) -> list[float]:
        """Of each run of a stage, after a small one to warm up."""
        prepare = {HEADS: self._heads, NEURONS: self._neurons, MASK: self._mask, STEER: self._steer}[stage]
        size, heads = len(self.pictures), self.shapes.heads
        while max(size, heads) > 1 and prepare(size, heads)[1].flop > self.seconds * self.rate / 2:
            size, heads = (size, heads // 2) if heads >= size else (size // 2, heads)
        prepare(1, 1)[0]()
        found = []
        for _ in range(REPEATS):
            run, counted = prepare(size, heads)
            taken, more = seconds_of(run, self.vlm.device), getattr(run, "counted", None)
            found.append((more() if more else counted).flop / taken / self.rate)
        return found

    def _members(self, size: int) -> list[Member]:
        return [member for own in self.pictures[:size] for member in own]

    def _plan(self, asked: Sequence[Asked]) -> Plan:
        device = self.vlm.device
        return sweep_plan(self.shapes, asked, free_memory(device), device.type, None)

    def _sites(self, heads: int) -> list[Site]:
        return [(layer, head) for layer in range(self.shapes.layers) for head in range(heads)]

    def _heads(self, size: int, heads: int) -> tuple[Callable[[], object], Work]:
        sites = self._sites(heads)
        edits = [Intervention(heads=frozenset({site})) for site in sites]
        return self._sweep(size, edits, Edits(dict.fromkeys(range(self.shapes.layers), heads), heads=1))

    def _mask(self, size: int, heads: int) -> tuple[Callable[[], object], Work]:
        per_layer = max(1, self.shapes.neurons // 100)
        sets = [
            [(layer, draw * per_layer + i) for layer in range(self.shapes.layers) for i in range(per_layer)]
            for draw in range(MASKS)
        ]
        edits = [Intervention(masked=frozenset(sites)) for sites in sets]
        return self._sweep(size, edits, Edits({0: MASKS}, neurons=per_layer))

    def _sweep(self, size: int, edits: Sequence[Intervention], at: Edits) -> tuple[Callable[[], object], Work]:
        members = self._members(size)
        answer = max([asked.answer for _, _, asked in members] + [1])
        asked = [replace(one, answer=answer if one.kind == "text" else 0) for _, _, one in members]
        plan = self._plan(asked)
        return _Sweep(self.vlm, self.shapes, members, [BASELINE, *edits], at, plan, answer, asked), sweep_work(
            self.shapes, asked, at, plan, answer
        )

    def _neurons(self, size: int, heads: int) -> tuple[Callable[[], object], Work]:
        members, sites = self._members(size), self._sites(max(1, heads // 4))
        task = members[0][0]
        own = [(example, asked) for other, example, asked in members if other is task]
        examples, asked = [example for example, _ in own], [one for _, one in own]
        plan = self._plan(asked)
        at = Edits(dict.fromkeys(range(self.shapes.layers), max(1, heads // 4)), heads=1)
        replay = Replay(self.vlm, max_new_tokens=1, plan=plan)
        work = attribution_work(self.shapes, asked, at, plan)
        directions = target_directions(self.vlm, task, examples, RELEASED.norm_gain)
        how = ("mean", RELEASED, directions, lambda _: None)
        return lambda: replayed_drops(replay, task, examples, sites, *how), work

    def _steer(self, size: int, heads: int) -> tuple[Callable[[], object], Work]:
        members = self._members(size)
        task = members[0][0]
        own = [(example, asked) for other, example, asked in members if other is task]
        examples, asked = [example for example, _ in own], [one for _, one in own]
        sites = [(layer, i) for layer in range(self.shapes.layers) for i in range(max(1, self.shapes.neurons // 100))]
        settings = SteeringSettings()
        training = Training(settings.epochs, settings.batch_size, max(1, self.shapes.neurons // 100))
        work = training_work(self.shapes, asked, training) + training_proof(self.shapes, asked[0], training)
        return lambda: learn_scales(self.vlm, task, examples, sites, settings), work


@dataclass
class _Sweep:
    """One sweep whose answers end at their usual length; afterwards, its operations with what really left drafts."""

    vlm: VLM
    shapes: Shapes
    members: Sequence[Member]
    edits: Sequence[Intervention]
    at: Edits
    plan: Plan
    answer: int
    asked: Sequence[Asked]
    left: float = 0.0

    def __call__(self) -> None:
        replay = Replay(self.vlm, max_new_tokens=self.answer, plan=self.plan)
        replay.baseline.ends = frozenset()
        replay.statistics([(task, example) for task, example, _ in self.members], self.edits)
        texts = sum(one.kind == "text" for one in self.asked) * self.at.count
        self.left = replay.left_draft / texts if texts else 0.0

    def counted(self) -> Work:
        """With the texts that left their draft."""
        return sweep_work(self.shapes, self.asked, self.at, self.plan, self.answer, self.left)
