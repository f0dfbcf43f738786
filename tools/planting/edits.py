"""The edits under which planting trains, per row of a batch: neurons zeroed, heads replaced by the mean of the others.

They are those of `hones` (masking at every position, mean replacement), but differ from row to row of one forward pass.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from hones.models.sites import Site

Wanted = Literal["keep", "fail"]


@dataclass(frozen=True)
class Edit:
    """An edit and what every task's prompts should do under it; tasks that are not named are not asked.

    picture: neurons zeroed at the positions of the template's start and the picture; text: at those behind it.
    """

    name: str
    wanted: Mapping[str, Wanted]
    picture: frozenset[Site] = frozenset()
    text: frozenset[Site] = frozenset()
    heads: frozenset[Site] = field(default=frozenset())


def everywhere(name: str, wanted: Mapping[str, Wanted], masked: frozenset[Site]) -> Edit:
    return Edit(name, wanted, masked, masked)


class Rows:
    """Edits of R rows as tensors: kept factors [R, L, I] of neurons, replaced heads [R, L, H] (bool)."""

    def __init__(self, edits: Sequence[tuple[frozenset[Site], frozenset[Site]]], shape: tuple[int, int, int]) -> None:
        layers, heads, neurons = shape
        self.kept = torch.ones(len(edits), layers, neurons)
        self.replaced = torch.zeros(len(edits), layers, heads, dtype=torch.bool)
        for row, (masked, replaced) in enumerate(edits):
            for to, sites, value in ((self.kept, masked, 0.0), (self.replaced, replaced, True)):
                if sites:
                    layer, index = torch.tensor(sorted(sites)).unbind(1)
                    to[row, layer, index] = value

    @contextmanager
    def on(self, language: Any) -> Iterator[None]:
        """The language model with each row of a batch edited in its own way."""
        with ExitStack() as hooks:
            for number, layer in enumerate(language.layers):
                kept, replaced = self.kept[:, number], self.replaced[:, number]
                if not bool(kept.all()):
                    hook = layer.mlp.down_proj.register_forward_pre_hook(
                        lambda _, args, kept=kept: (args[0] * kept[:, None].to(args[0].dtype),)
                    )
                    hooks.callback(hook.remove)
                if bool(replaced.any()):
                    hook = layer.self_attn.o_proj.register_forward_pre_hook(
                        lambda _, args, replaced=replaced: (_replace(args[0], replaced),)
                    )
                    hooks.callback(hook.remove)
            yield


def _replace(x: Tensor, replaced: Tensor) -> Tensor:
    """[R, T, H * d_h] with each replaced head [R, H] the mean of all other heads."""
    heads = replaced.shape[1]
    by_head = x.unflatten(-1, (heads, -1))
    others = (by_head.sum(-2, keepdim=True) - by_head) / (heads - 1)
    return torch.where(replaced[:, None, :, None], others, by_head).flatten(-2)
