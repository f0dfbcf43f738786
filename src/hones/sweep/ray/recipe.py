"""How a replica is loaded, and what it is: the driver compares every replica with the first one."""

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hones.errors import HonesError
from hones.files import versions
from hones.models.loading import load_vlm
from hones.models.vlm import VLM, AnswerTokens
from hones.sweep.memory import free_memory


@dataclass(frozen=True)
class Recipe:
    """The arguments of `load_vlm`. Workers load it themselves, so a model in memory cannot be one."""

    name: str
    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None
    device_map: str | dict[str, Any] | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False

    def for_workers(self, gpus: float) -> "Recipe":
        """As a worker loads it: a folder by its absolute path; spread over its GPUs where it has several.

        Raises:
            HonesError: a single GPU is named, which a worker cannot choose.
        """
        if self.device.startswith("cuda:"):
            raise HonesError(f"--device {self.device} with --ray", expected="cpu, cuda or auto: Ray gives GPUs out")
        spread = self.device_map or ("auto" if gpus > 1 else None)
        device = "auto" if spread is not None else self.device
        if gpus == 0 and spread is None and device == "auto":
            device = "cpu"
        place = Path(self.name)
        name = str(place.absolute()) if place.is_dir() else self.name
        return replace(self, name=name, device=device, device_map=spread)

    def load(self) -> VLM:
        """The model, as `load_vlm` gives it."""
        return load_vlm(
            self.name,
            dtype=self.dtype,
            device=self.device,
            revision=self.revision,
            device_map=self.device_map,
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
        )


@dataclass(frozen=True)
class Facts:
    """What a worker says of its replica. node: host and Ray's node; card: the device's name; free: bytes of memory."""

    node: str
    card: str
    pid: int
    free: int
    device: str
    revision: str
    dtype: str
    attention: str
    image_backend: str
    shape: tuple[int, int, int]
    answer_tokens: AnswerTokens
    no_write_in: str | None
    versions: dict[str, str]

    def check_same(self, first: "Facts") -> None:
        """Raises HonesError, which names the difference, unless both replicas compute the same numbers."""
        for name in ("device", "dtype", "revision", "attention", "image_backend", "shape", "versions"):
            own, other = getattr(self, name), getattr(first, name)
            if own != other:
                raise HonesError(
                    f"the worker on {self.node} has {name} {own}, the one on {first.node} {other}",
                    expected="the same on all of them",
                )


def this_node(node_id: str) -> str:
    """Host and Ray's node: several nodes may share a host."""
    return f"{socket.gethostname()}/{node_id[:8]}"


def facts_of(vlm: VLM, node_id: str) -> Facts:
    """Of a replica in this process, which is a worker."""
    cuda = vlm.device.type == "cuda"
    return Facts(
        node=this_node(node_id),
        card=torch.cuda.get_device_name(vlm.device) if cuda else "cpu",
        pid=os.getpid(),
        free=free_memory(vlm.device),
        device=vlm.device.type,
        revision=vlm.revision,
        dtype=vlm.dtype,
        attention=vlm.attention,
        image_backend=vlm.image_backend,
        shape=vlm.anatomy.shape,
        answer_tokens=vlm.answer_tokens,
        no_write_in=vlm.no_write_in,
        versions=versions(),
    )
