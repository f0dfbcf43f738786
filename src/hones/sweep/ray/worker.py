"""How a worker loads its replica, and what it says of it: the driver compares every replica with the first one."""

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hones.errors import HonesError
from hones.files import versions
from hones.models.answer_tokens import AnswerTokens
from hones.models.conventions import Conventions
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.models.wordings import BY_NAME
from hones.sweep.memory import free_memory


def for_workers(spec: ModelSpec, gpus: float) -> ModelSpec:
    """As a worker loads it: folders and files by their absolute paths; spread over its GPUs where it has several.

    Raises:
        HonesError: a single GPU is named, which a worker cannot choose.
    """
    if spec.device.startswith("cuda:"):
        raise HonesError(
            f"{spec.device} on Ray workers", argument="device", expected="cpu, cuda or auto: Ray gives GPUs out"
        )
    spread = spec.device_map or ("auto" if gpus > 1 else None)
    device = "auto" if spread is not None else spec.device
    if gpus == 0 and spread is None and device == "auto":
        device = "cpu"
    folder = Path(spec.name)
    name = str(folder.absolute()) if folder.is_dir() else spec.name
    template = spec.chat_template
    if template is not None and template not in BY_NAME:
        template = str(Path(template).absolute())
    return replace(spec, name=name, device=device, device_map=spread, chat_template=template)


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
    conventions: Conventions
    no_write_in: str | None
    versions: dict[str, str]

    @property
    def asked_in(self) -> dict[str, Any]:
        """The words in which the replica is asked, and where its answers end."""
        return self.conventions.decides()

    def check_same(self, first: "Facts") -> None:
        """Raises HonesError, which names the difference, unless both replicas compute the same numbers."""
        for name in ("device", "dtype", "revision", "attention", "image_backend", "shape", "versions", "asked_in"):
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
        conventions=vlm.conventions,
        no_write_in=vlm.no_write_in,
        versions=versions(),
    )
