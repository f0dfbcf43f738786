"""Independent routes to what the library computes: edits folded into the weights of a copy of the model."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hones.data.shapes.scene import draw, make_scene
from hones.method.direction import target_ids
from hones.models.finding import find_anatomy
from hones.models.vlm import VLM, Encoded
from hones.tasks.base import Example, Task

PROMPTS = ("What?", "Question: What colour is the star?", "Describe the image in one sentence.")


def encoded_probe(vlm: VLM) -> Encoded:
    """Three pictures with prompts of three lengths."""
    return vlm.encode([draw(make_scene(f"test/{i}")) for i in range(3)], PROMPTS)


def with_model(vlm: VLM, model: PreTrainedModel) -> VLM:
    """The same VLM around another model."""
    return replace(vlm, model=model, anatomy=find_anatomy(model))


def without_head(model: PreTrainedModel, layer: int, head: int) -> PreTrainedModel:
    """A copy whose o_proj reads the mean of the other heads in place of one: W_j += W_h / (H - 1), W_h = 0."""
    copied = copy.deepcopy(model)
    anatomy = find_anatomy(copied)
    weight = anatomy.layers[layer].o_proj.weight.data
    heads, width = anatomy.heads, anatomy.head_dim
    removed = weight[:, head * width : (head + 1) * width].clone()
    for j in range(heads):
        part = weight[:, j * width : (j + 1) * width]
        part.copy_(torch.zeros_like(part) if j == head else part + removed / (heads - 1))
    return copied


def with_column_factors(model: PreTrainedModel, factors: dict[tuple[int, int], float]) -> PreTrainedModel:
    """A copy with columns of down_proj multiplied."""
    copied = copy.deepcopy(model)
    layers = find_anatomy(copied).layers
    for (layer, neuron), factor in factors.items():
        layers[layer].down_proj.weight.data[:, neuron] *= factor
    return copied


def replaced_by_hand(x: Tensor, heads: int, head: int) -> Tensor:
    """Mean replacement, one position and head at a time."""
    width = x.shape[-1] // heads
    out = x.clone()
    for row in range(x.shape[0]):
        for position in range(x.shape[1]):
            slices = [x[row, position, j * width : (j + 1) * width] for j in range(heads) if j != head]
            mean = sum(slices[1:], start=slices[0]) / (heads - 1)
            out[row, position, head * width : (head + 1) * width] = mean
    return out


def in_double(vlm: VLM, model: PreTrainedModel | None = None) -> VLM:
    """The same VLM around a copy of its model, or of another, in float64, its norms too (transformers' are float32)."""
    copied = copy.deepcopy(vlm.model if model is None else model).double()
    for module in copied.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(rms_norm, module)
    return with_model(vlm, copied)


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    """The definition, in the dtype of x."""
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()


def double_inputs(encoded: Encoded) -> Encoded:
    """The same inputs with floating-point numbers in float64."""
    inputs = {k: x.double() if x.is_floating_point() else x for k, x in encoded.inputs.items()}
    return Encoded(inputs, encoded.answer)


def entering_ffns(vlm: VLM, encoded: Encoded) -> list[Tensor]:
    """What enters the FFN of every layer, [batch, positions, d], no gradients."""
    entering: list[Tensor] = []
    blocks: Any = vlm.model.get_decoder().layers
    hooks = [b.mlp.register_forward_pre_hook(lambda _, args: entering.append(args[0])) for b in blocks]
    with torch.no_grad():
        vlm.model(**encoded.inputs)
    for hook in hooks:
        hook.remove()
    return entering


def gate_and_z(vlm: VLM, encoded: Encoded) -> list[tuple[Tensor, Tensor]]:
    """act(gate) and z of every layer, [batch, positions, I], from what enters the FFN."""
    found = []
    blocks: Any = vlm.model.get_decoder().layers
    for block, x in zip(blocks, entering_ffns(vlm, encoded), strict=True):
        with torch.no_grad():
            gate = torch.nn.functional.silu(block.mlp.gate_proj(x))
            found.append((gate, gate * block.mlp.up_proj(x)))
    return found


def slow_contributions(
    vlm: VLM,
    model: PreTrainedModel,
    task: Task,
    examples: Sequence[Example],
    norm_gain: bool = False,
    all_tokens: bool = False,
) -> np.ndarray:
    """c [items, L, I] in float64, one item, layer and neuron at a time, z recomputed from the FFN's own input."""
    double = in_double(vlm, model)
    anatomy = double.anatomy
    targets = [target_ids(vlm, task, e) for e in examples]
    result = []
    for example, ids, weights in zip(examples, targets, task.token_weights(targets), strict=True):
        v: Any = sum(w * anatomy.lm_head.weight[t] for w, t in zip(weights, ids, strict=True))
        v = v * anatomy.decoder.get_submodule("norm").weight if norm_gain else v
        u = (v / v.norm()).detach()
        encoded = vlm.encode([example.open_picture()], [example.prompts[0]])
        last = encoded.inputs["input_ids"].shape[1] - 1
        positions = [last]
        if all_tokens:
            encoded = vlm.encode_with_answers([example.open_picture()], [example.prompts[0]], [example.target])
            assert encoded.inputs["input_ids"][0, last + 1 : last + 1 + len(ids)].tolist() == ids
            positions = [last + k for k in range(len(ids))]
        rows = []
        for layer, (_, z) in zip(anatomy.layers, gate_and_z(double, double_inputs(encoded)), strict=True):
            read: Any = sum(z[0, position] for position in positions) / len(positions)
            rows.append([float(read[i] * (layer.down_proj.weight[:, i].detach() @ u)) for i in range(anatomy.neurons)])
        result.append(rows)
    return np.array(result)


def content(out: Path) -> dict[str, bytes]:
    """The bytes of what a run leaves, without times, who did it and what ended first."""
    found = {}
    for file in sorted(f for f in out.rglob("*") if f.suffix in (".json", ".npy") and ".locks" not in f.parts):
        found[str(file.relative_to(out))] = file.read_bytes()
        if file.suffix == ".json":
            untimed = without_times(json.loads(file.read_text()))
            found[str(file.relative_to(out))] = json.dumps(untimed, sort_keys=True).encode()
    return found


def without_times(content: Any) -> Any:
    if isinstance(content, dict):
        times = ("seconds", "finished", "workers", "artifacts")
        return {key: without_times(value) for key, value in content.items() if key not in times}
    return [without_times(x) for x in content] if isinstance(content, list) else content
