"""Finding the mixture of experts of a decoder layer, and whether it is of a form that `mixtures` serves."""

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from hones.errors import HonesError
from hones.models.experts import name_of_up
from hones.models.mixtures import ExpertProjection
from hones.models.normed import NormedProjection

MIXTURES = ("mlp", "block_sparse_moe", "feed_forward")
SHARED = ("shared_expert", "shared_experts")
BY_TOKEN = ("text_moe", "vision_moe")  # a mixture for text and one for a picture's tokens (ERNIE 4.5 VL)
NORMS = ("post_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm")
"""Behind the experts, behind the FFN beside them, behind the sum (Gemma 4)."""
SCALINGS = ("routed_scaling_factor",)  # in the router's weights already in most families (DeepSeek): measured
BESIDE = ("shared_mlp",)  # an FFN that a layer adds beside its mixture (GraniteMoeShared)
PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def find_mixture(block: nn.Module, where: str) -> tuple[nn.Module, ExpertProjection] | None:
    """The mixture of a decoder layer and its down projections as one; None in a layer without experts.

    Raises:
        HonesError: its experts are of a form that is not served; the line names it.
    """
    if hasattr(block, "experts") and all(hasattr(block, name) for name in NORMS):
        of_experts, of_dense, behind = (block.get_submodule(name) for name in NORMS)
        dense: Any = block.get_submodule("mlp.down_proj")
        experts = block.get_submodule("experts")
        _check(block, experts, block.get_submodule("mlp"), 1, f"{where}: ")
        return behind, NormedProjection(experts, dense, (of_experts, of_dense))
    found = next((name for name in MIXTURES if groups_of(getattr(block, name, None))), None)
    if found is None:
        return None
    mixture = block.get_submodule(found)
    groups = groups_of(mixture)
    shared = next((getattr(mixture, name) for name in SHARED if getattr(mixture, name, None) is not None), None)
    for experts in groups:
        _check(block, experts, shared, len(groups), f"{where}: {found}.")
    gate = getattr(mixture, "shared_expert_gate", None)
    scalings = [getattr(mixture, name) for name in SCALINGS if getattr(mixture, name, None) is not None]
    down = None if shared is None else shared.down_proj
    return mixture, ExpertProjection(groups, down, gate, tuple(dict.fromkeys([1.0, *map(float, scalings)])))


def _check(block: nn.Module, experts: nn.Module, shared: Any, groups: int, where: str) -> None:
    problem = next(_problems(block, experts, shared, groups), None)
    if problem is not None:
        raise HonesError(
            f"{where}experts is a {type(experts).__name__}: {problem}",
            expected="fused experts as transformers 5 has them, in plain numbers, whose sum is all of the FFN",
            do="load the model without quantisation" if "quantised" in problem else "this family is not served",
        )


def groups_of(mixture: Any) -> list[Any]:
    """The experts of a mixture, in two groups where a picture's tokens have their own; none of what is no mixture."""
    if hasattr(mixture, "experts"):
        return [mixture.experts]
    parts: list[Any] = [getattr(mixture, name, None) for name in BY_TOKEN]
    return [part.experts for part in parts] if all(hasattr(part, "experts") for part in parts) else []


def _problems(block: nn.Module, experts: Any, shared: Any, groups: int) -> Iterator[str]:
    """Why what experts write is not known as W z."""
    down = getattr(experts, "down_proj", None)
    if not isinstance(down, Tensor) or name_of_up(experts) is None:
        yield "not the weights of all experts in one"
    elif down.dtype not in PLAIN or down.ndim != 3:
        yield f"its weights are quantised ({str(down.dtype).removeprefix('torch.')} {[*down.shape]})"
    elif getattr(experts, "has_post_expert_norm", False):
        yield "a norm follows every expert"
    elif not hasattr(experts, "_apply_gate") and not isinstance(getattr(experts, "act_fn", None), nn.Module):
        yield "its activation is no part of it that could be run alone"
    elif (count := len(signature(experts.forward).parameters)) not in (1, 3):
        yield f"its forward takes {count} inputs"
    if groups > 1 and getattr(experts, "down_proj_bias", None) is not None:
        yield "experts of two groups with biases"
    if shared is not None:
        down = getattr(shared, "down_proj", None)
        if not isinstance(down, nn.Linear) or down.bias is not None:
            yield "the shared expert beside them has no down_proj without a bias"
        elif down.weight.dtype not in PLAIN:
            yield "the weights of the shared expert beside them are quantised"
    beside = next((name for name in BESIDE if getattr(block, name, None) is not None), None)
    if beside is not None:
        yield f"the layer has a {beside} beside them"
