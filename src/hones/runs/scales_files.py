"""What ways to steer have learned, as files of a run folder: scales as JSON, adapters as safetensors.

scales.json             one {layer, neuron, scale} per neuron
adapter.safetensors     LAYER.lora_A [r, I] and LAYER.lora_B [d, r]; or LAYER.heads [k], LAYER.offset [k, d_h] and
                        maybe LAYER.scale [k, d_h]; all layers alike, float32
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from hones.errors import HonesError
from hones.files import read_bytes, write_bytes
from hones.method.steering.controls import Steering, SteeringContext
from hones.method.steering.settings import Scales
from hones.models.adapters import Adapter, LowRank, OfHeads, Part
from hones.runs.artifacts import read_scales, write_scales
from hones.runs.stage import Stage
from hones.sweep.resume import DAMAGE

SCALES = "scales.json"
ADAPTER = "adapter.safetensors"


@dataclass(frozen=True)
class ScalesFile:
    """The scales of one way and seed. stage: makes them; None where T/steer does. context: with the seed."""

    way: Steering
    context: SteeringContext
    file: Path
    stage: Stage | None = None


def folder_name(way: str) -> str:
    """The folder of a way: its name with a dash for the colon."""
    return way.replace(":", "-")


def write_learned(path: Path, scales: Scales) -> None:
    """Scales or an adapter, by the file's name."""
    if path.name == ADAPTER:
        assert scales.adapter is not None
        write_adapter(path, scales.adapter)
    else:
        write_scales(path, scales)


def read_learned(path: Path) -> Scales:
    """What `write_learned` wrote.

    Raises:
        HonesError: no such file, or not of that form.
    """
    return Scales({}, adapter=read_adapter(path)) if path.name == ADAPTER else read_scales(path)


def write_adapter(path: Path, adapter: Adapter) -> None:
    """adapter.safetensors."""
    part = adapter.part
    tensors: dict[str, Tensor] = {}
    for layer, vector in adapter.vectors.items():
        named = part.tensors(layer, vector)
        if isinstance(part, OfHeads):
            named["heads"] = torch.tensor(part.of_layer[layer])
        tensors |= {f"{layer}.{name}": tensor.contiguous() for name, tensor in named.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(tensors, {"format": "pt"}))


def read_adapter(path: Path) -> Adapter:
    """adapter.safetensors; whether it fits a model is for `Adapter.check` to say.

    Raises:
        HonesError: no such file, or not one of `write_adapter`.
    """
    content = read_bytes(path)
    try:
        by_layer: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in load(content).items():
            layer, _, what = name.partition(".")
            by_layer[int(layer)][what] = tensor
        part = _part_of(by_layer)
        values = {}
        for layer, named in sorted(by_layer.items()):
            vector = torch.zeros(part.sizes[layer])
            for name, view in part.tensors(layer, vector).items():
                tensor = named[name]
                if tensor.shape != view.shape or tensor.dtype != view.dtype or not torch.isfinite(tensor).all():
                    raise ValueError(f"{layer}.{name}")
                view.copy_(tensor)
            values[layer] = vector.numpy()
    except DAMAGE as error:
        raise HonesError(
            f"{path} is not an adapter ({error})", expected=f"{ADAPTER} as `hones steer` writes it", do="steer again"
        ) from error
    return Adapter(part, values)


def _part_of(by_layer: dict[int, dict[str, Tensor]]) -> Part:
    """What the tensors are of, by the first layer's names.

    Raises:
        Some of DAMAGE: they are of nothing known, or of several things.
    """
    (names,) = {frozenset(named) for named in by_layer.values()}
    first = by_layer[min(by_layer)]
    if names == {"lora_A", "lora_B"}:
        rank, neurons = first["lora_A"].shape
        return LowRank(tuple(sorted(by_layer)), rank, neurons, len(first["lora_B"]))
    if names - {"scale"} != {"heads", "offset"}:
        raise ValueError(json.dumps(sorted(names)))
    heads = tuple((layer, head) for layer, named in sorted(by_layer.items()) for head in named["heads"].tolist())
    if heads != tuple(sorted(set(heads))) or not all(isinstance(head, int) for _, head in heads):
        raise ValueError("heads")
    _, head_dim = first["offset"].shape
    return OfHeads(heads, head_dim, "scale" in names)
