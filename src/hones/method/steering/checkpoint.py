"""A training's state on disk, so that a killed one goes on where it was and ends with the same scales.

One safetensors file, replaced as a whole: by layer the scales, AdamW's two moments and the best scales so far; the
losses of all steps done; and as metadata what the training depends on. All pairs are drawn before the first step, so no
random state is needed.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hones.errors import HonesError
from hones.files import digest_of, versions, write_bytes
from hones.method.steering.pairs import TrainingPlan
from hones.method.steering.settings import SteeringSettings
from hones.models.anatomy import Site
from hones.models.vlm import VLM
from hones.sweep.journal import flat, refuse_other
from hones.sweep.running_sum import metadata_of
from hones.tasks.base import Task

SECONDS_BETWEEN = 20.0
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """All that changes during training.

    scales: s by layer, with gradients. losses: total, cross-entropy and divergence of each step done. held_out: the
    objective on the pictures held out, before training and after each epoch. best: the scales of the best epoch.
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


class Checkpoint:
    """The checkpoint of one training; a context that keeps other processes out.

    Args:
        fingerprint: what the scales depend on; a checkpoint of another training is refused.

    Raises:
        HonesError: on entering, another process has the file.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        self.path = path
        self.fingerprint = flat(json.loads(json.dumps(fingerprint)))
        self._lock, self._written = FileLock(path.with_suffix(".lock")), time.monotonic()

    def __enter__(self) -> "Checkpoint":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise HonesError(
                f"another process is writing {self.path}", do="wait for it, or use another --out"
            ) from error
        except OSError as error:
            raise HonesError(f"cannot write {self.path} ({error.strerror})", expected="a writable folder") from error
        for left in self.path.parent.glob(f".{self.path.name}.*.part"):
            left.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        """Let other processes have the file; it stays."""
        self._lock.release()

    def read(self, state: TrainingState) -> None:
        """Put what the file holds into the state; nothing where there is no file.

        Raises:
            HonesError: the file belongs to another training (the difference is named) or is damaged.
        """
        if not self.path.exists():
            return
        try:
            content = self.path.read_bytes()
            tensors, header = load(content), metadata_of(content)
            if "training" not in header:
                raise ValueError("no fingerprint")
            refuse_other(self.path, "training", json.loads(header["training"]), self.fingerprint)
            state.take(tensors)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise HonesError(f"{self.path} is not a whole checkpoint ({error})", do="--fresh to start again") from error

    def write(self, state: TrainingState, *, now: bool) -> None:
        """Replace the file; where it need not be `now`, only every so often."""
        if now or time.monotonic() - self._written >= SECONDS_BETWEEN:
            write_bytes(self.path, save(state.tensors(), {"training": json.dumps(self.fingerprint)}))
            self._written = time.monotonic()


def fingerprint_of(
    vlm: VLM, task: Task, plan: TrainingPlan, neurons: Sequence[Site], settings: SteeringSettings
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
        "neurons": _digest(sorted(set(neurons))),
        "settings": settings.model_dump(),
        "trained_on": _digest(asked),
        "versions": versions(),
    }


def _digest(what: Any) -> str:
    return sha256(repr(what).encode()).hexdigest()[:16]
