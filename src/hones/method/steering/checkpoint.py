"""A training's state on disk, so that a killed one goes on where it was and ends with the same scales.

One safetensors file, replaced as a whole: by layer the scales, AdamW's two moments and the best scales so far; the
losses of all steps done; and as metadata what the training depends on. All pairs are drawn before the first step, so no
random state is needed.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hones.files import digest_of, versions
from hones.method.steering.pairs import TrainingPlan
from hones.method.steering.settings import SteeringSettings
from hones.method.steering.trainable import Trainable
from hones.models.vlm import VLM
from hones.sweep.resume import DAMAGE, TensorFile
from hones.tasks.base import Task

SECONDS_BETWEEN = 20.0
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """All that changes during training.

    scales: s by layer, or what else is trained, with gradients. losses: total, cross-entropy and divergence of each
    step done. held_out: the objective on the pictures held out, before training and after each epoch. best: the scales
    of the best epoch.
    """

    scales: dict[int, Tensor]
    optimizer: torch.optim.AdamW
    losses: list[list[float]] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    best: dict[int, Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """How many steps are done."""
        return len(self.losses)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name."""
        found = {
            "losses": torch.tensor(self.losses, dtype=torch.float64).view(-1, 3),
            "held_out": torch.tensor(self.held_out, dtype=torch.float64),
        }
        for layer, scales in self.scales.items():
            found[f"scales.{layer}"] = scales.detach()
            if layer in self.best:
                found[f"best.{layer}"] = self.best[layer]
            moments = self.optimizer.state.get(scales, {})
            found |= {f"{name}.{layer}": moments[name] for name in MOMENTS if name in moments}
        return {name: x.contiguous().cpu() for name, x in found.items()}

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave.

        Raises:
            KeyError, ValueError: they are not a state of this training.
        """
        losses, held_out = tensors["losses"], tensors["held_out"]
        if losses.ndim != 2 or losses.shape[1] != 3 or held_out.ndim != 1:
            raise ValueError("losses")
        self.losses, self.held_out = losses.tolist(), held_out.tolist()
        state = {}
        for number, (layer, scales) in enumerate(self.scales.items()):
            own = {name: tensors[f"{name}.{layer}"] for name in ("scales", *(MOMENTS if self.losses else ()))}
            if any(x.shape != scales.shape or x.dtype != scales.dtype for x in own.values()):
                raise ValueError(f"scales of layer {layer}")
            scales.copy_(own["scales"])
            if self.losses:
                state[number] = {"step": torch.tensor(float(self.step)), **{name: own[name] for name in MOMENTS}}
            if self.held_out:
                self.best[layer] = tensors[f"best.{layer}"].to(scales)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


class Checkpoint(TensorFile):
    """The checkpoint of one training.

    Args:
        fingerprint: what the scales depend on; a checkpoint of another training is refused.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        super().__init__(path, "training", fingerprint)
        self._written = time.monotonic()

    def load_into(self, state: TrainingState) -> None:
        """Put what the file holds into the state; nothing where there is no file.

        Raises:
            HonesError: the file belongs to another training (the difference is named) or is damaged.
        """
        try:
            content = self.read()
            if content is None:
                return
            tensors, lines = content
            if "training" not in lines:
                raise ValueError("no fingerprint")
            self.check(json.loads(lines["training"]))
            state.take(tensors)
        except DAMAGE as error:
            raise self.damaged(error) from error

    def save(self, state: TrainingState, *, now: bool) -> None:
        """Replace the file; where it need not be `now`, only every so often."""
        if now or time.monotonic() - self._written >= SECONDS_BETWEEN:
            self.write(state.tensors(), {"training": json.dumps(self.fingerprint)})
            self._written = time.monotonic()


def fingerprint_of(
    vlm: VLM, task: Task, plan: TrainingPlan, trained: Trainable, settings: SteeringSettings
) -> dict[str, Any]:
    """What the scales depend on: model, pairs with their pictures in order, neurons, settings, machine."""
    asked = [[(p.example.id, p.example.box, p.prompt, p.answer) for p in own] for _, own in plan.steps]
    asked.append([(p.example.id, p.example.box, p.prompt, p.answer) for p in plan.held_out])
    pictures = {pair.example.image for pair in plan.pairs if pair.example.image is not None}
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "dtype": vlm.dtype,
        "image_backend": vlm.image_backend,
        "device": vlm.device.type,
        "task": task.name,
        "pictures": _digest(sorted(digest_of(file) for file in pictures)),
        "neurons": _digest(trained.identity),
        "settings": settings.model_dump(),
        "trained_on": _digest(asked),
        "versions": versions(),
    }


def _digest(what: Any) -> str:
    return sha256(repr(what).encode()).hexdigest()[:16]
