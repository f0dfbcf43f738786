"""Step 4 of the paper: learn one scale per selected neuron, the backbone frozen.

    z[l,i](s) <- (1 + s[l,i]) z[l,i](s)   for selected neurons, all positions, s starts at 0
    minimise  CE(answer tokens) + beta KL(original || scaled, answer tokens) + gamma mean(s^2)

CE and KL are means over an answer's tokens, its end token included, then over the items of a step. Parameters are one
vector [k_l] per layer with selected neurons; nothing of the user's model changes.

Pairs (prompt, answer) of one epoch: vqa and ocr the target; caption one reference at random; retrieval the true caption
with Yes and four random negatives with No.
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hones.errors import HonesError
from hones.interventions import Site, scaling
from hones.models.vlm import VLM, Encoded, frozen
from hones.progress import track
from hones.tasks.base import Example, Task

NEGATIVES_PER_POSITIVE = 4


class SteeringSettings(BaseModel):
    """Training settings; the defaults are the released ones. `batch_size` items make one step (released: 1 x 4)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta: float = Field(default=0.05, ge=0)
    gamma: float = Field(default=1e-5, ge=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    final_learning_rate: float = Field(default=0.1, ge=0, le=1, description="as a share of learning_rate")
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=4, ge=1)
    clip: float = Field(default=1.0, gt=0)
    max_scale: float = Field(default=1.5, gt=0)
    seed: int = Field(default=3407, ge=0)


@dataclass(frozen=True)
class Scales:
    """Learned scales s by (layer, neuron), and the mean objective of each epoch."""

    values: dict[Site, float]
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One training prompt and its answer."""

    example: Example
    prompt: str
    answer: str


def training_pairs(task: Task, examples: Sequence[Example], rng: random.Random) -> list[Pair]:
    """One epoch's pairs in random order."""
    pairs = []
    for example in examples:
        if task.answers == "yes_no":
            negatives = list(example.prompts[1:])
            chosen = rng.sample(negatives, min(NEGATIVES_PER_POSITIVE, len(negatives)))
            pairs += [
                Pair(example, example.prompts[0], example.target),
                *(Pair(example, prompt, "No") for prompt in chosen),
            ]
        else:
            answer = rng.choice(task.answers_to_learn(example))
            pairs.append(Pair(example, example.prompts[0], answer))
    rng.shuffle(pairs)
    return pairs


def learn_scales(
    vlm: VLM,
    task: Task,
    examples: Sequence[Example],
    neurons: Sequence[Site],
    settings: SteeringSettings | None = None,
) -> Scales:
    """Learn the scales of `neurons` on the dev items.

    Raises:
        HonesError: nothing to learn from, a neuron that the model lacks, or an objective that is not finite.
    """
    settings = settings or SteeringSettings()
    if not neurons or not examples:
        raise HonesError(f"{len(neurons)} neurons and {len(examples)} dev items to steer", expected="at least one each")
    indices, scales = _parameters(vlm, neurons)
    optimizer = torch.optim.AdamW(scales.values(), lr=settings.learning_rate, weight_decay=0.0)
    rng = random.Random(settings.seed)
    epochs = [training_pairs(task, examples, rng) for _ in range(settings.epochs)]
    steps = [
        (epoch, pairs[i : i + settings.batch_size])
        for epoch, pairs in enumerate(epochs)
        for i in range(0, len(pairs), settings.batch_size)
    ]
    losses: dict[int, list[float]] = defaultdict(list)
    with frozen(vlm.model):
        for step, (epoch, pairs) in enumerate(track(steps, f"{task.name}: steering")):
            _set_learning_rate(optimizer, settings, step / len(steps))
            loss = objective(vlm, pairs, indices, scales, settings)
            if not torch.isfinite(loss):
                raise HonesError(
                    f"{task.name}: the steering objective is {loss.item()} at step {step + 1} of {len(steps)}",
                    expected="a finite number",
                    do="lower learning_rate or use float32",
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(scales.values()), settings.clip)
            optimizer.step()
            with torch.no_grad():
                for s in scales.values():
                    s.clamp_(-settings.max_scale, settings.max_scale)
            losses[epoch].append(loss.item())
    values = {
        (layer, int(i)): float(s)
        for layer in scales
        for i, s in zip(indices[layer].tolist(), scales[layer].detach().tolist(), strict=True)
    }
    return Scales(values, tuple(sum(v) / len(v) for v in losses.values()))


def objective(
    vlm: VLM,
    pairs: Sequence[Pair],
    indices: dict[int, Tensor],
    scales: dict[int, Tensor],
    settings: SteeringSettings,
) -> Float[Tensor, ""]:
    """CE + beta KL + gamma mean(s^2) of one step."""
    encoded = vlm.encode_with_answers(
        [p.example.open_picture() for p in pairs], [p.prompt for p in pairs], [p.answer for p in pairs]
    )
    with torch.no_grad():
        original = answer_logits(vlm, encoded)
    with scaling(vlm.anatomy, indices, scales):
        scaled = answer_logits(vlm, encoded)
    assert encoded.answer is not None
    per_row = encoded.answer.sum(1)
    weight = (1 / (per_row * len(per_row))).repeat_interleave(per_row)
    labels = encoded.inputs["input_ids"][encoded.answer]
    cross_entropy = F.cross_entropy(scaled, labels, reduction="none")
    log_p, log_q = original.log_softmax(-1), scaled.log_softmax(-1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    size = torch.cat(list(scales.values())).square().mean()
    return (weight * (cross_entropy + settings.beta * divergence)).sum() + settings.gamma * size


def answer_logits(vlm: VLM, encoded: Encoded) -> Float[Tensor, "tokens vocabulary"]:
    """Logits that predict each answer token, rows in order."""
    assert encoded.answer is not None
    keep = int(encoded.answer.sum(1).max()) + 1
    logits = vlm.logits(encoded, keep=keep)
    return logits[:, :-1][encoded.answer[:, -keep + 1 :]]


def _parameters(vlm: VLM, neurons: Sequence[Site]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Index and scale vectors by layer, the scales at 0."""
    by_layer: dict[int, list[int]] = defaultdict(list)
    for layer, neuron in sorted(set(neurons)):
        vlm.anatomy.check_neuron(layer, neuron)
        by_layer[layer].append(neuron)
    indices = {layer: torch.tensor(chosen, device=vlm.device) for layer, chosen in by_layer.items()}
    scales = {k: torch.zeros(len(v), device=vlm.device, requires_grad=True) for k, v in indices.items()}
    return indices, scales


def _set_learning_rate(optimizer: torch.optim.Optimizer, settings: SteeringSettings, progress: float) -> None:
    """Cosine from learning_rate to its final share."""
    low = settings.final_learning_rate
    share = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * share
