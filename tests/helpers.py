"""Independent routes to what the library computes: edits folded into the weights of a copy of the model."""

import copy
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hones.data.shapes import draw, make_scene
from hones.models.anatomy import find_anatomy
from hones.models.vlm import VLM, Encoded

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
