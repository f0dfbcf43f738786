"""What a neuron writes toward an answer: its contribution, and the direction that it is measured in.

    c[l,i](x) = z[l,i](x) <W_down[:,i], u_y>                               contribution to the answer's direction
    u_y = v / ||v||,  v = sum over target tokens t of w_t U[t]             U: raw lm_head rows, first 128 tokens

z is read at the last prompt position, which predicts the first answer token. Shapes: z and c [items, L, I], u
[items, d], W_down [d, I]. Everything after z is float32, whatever the model's dtype. Where a norm or a gate stands
between down_proj and the residual, z and W_down are those of the true write-in (`hones.models.writing`). Two variants:
`Reading.norm_gain` folds the final norm's gain g into the direction (g U[t] in place of U[t], less its mean where the
norm is a layer norm, which takes the residual's off), `Reading.all_tokens`
reads z at every position that predicts a target token, teacher forced, and takes the mean over these positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hones.errors import HonesError, TaskStops
from hones.models.vlm import VLM
from hones.tasks.base import Example, Task

MAX_TARGET_TOKENS = 128


@dataclass(frozen=True)
class Reading:
    """How a contribution is read. norm_gain: u with the final norm's gain. all_tokens: the mean over the positions that
    predict the target's tokens, not the first alone.
    """

    norm_gain: bool = False
    all_tokens: bool = False


RELEASED = Reading()


def target_directions(
    vlm: VLM, task: Task, examples: Sequence[Example], norm_gain: bool = False
) -> Float[Tensor, "items width"]:
    """u_y of every example, unit length, float32; with `norm_gain`, the final norm's gain in it.

    Raises:
        HonesError: a target has no token or its direction vanishes.
    """
    tokens = [target_ids(vlm, task, e) for e in examples]
    unembedding = vlm.anatomy.lm_head.weight
    norm = final_norm(vlm) if norm_gain else None
    directions = []
    for example, ids, weights in zip(examples, tokens, task.token_weights(tokens), strict=True):
        # v = sum_t w_t U[t], u_y = v / ||v||
        rows = unembedding[torch.tensor(ids, device=unembedding.device)].detach().float()
        v = torch.as_tensor(weights, dtype=torch.float32, device=rows.device) @ rows
        v = v if norm is None else norm.folded(v)
        length = v.norm()
        if not ids or not length > 0:
            raise TaskStops(f"item {example.id}: its target {example.target!r} has no direction in the vocabulary")
        directions.append(v / length)
    return torch.stack(directions)


@dataclass(frozen=True)
class FinalNorm:
    """The norm behind the layers, x -> a g (x - m) + b with a = 1 / s: m is the mean of a layer norm, 0 of an RMS norm.

    gain: g, up to a positive factor, float32. centred: whether m is the mean.
    """

    module: nn.Module
    gain: Float[Tensor, " width"]
    bias: Float[Tensor, " width"]
    centred: bool

    def folded(self, rows: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """U' with <U', x> = <U, g (x - m)> for every x."""
        rows = rows * self.gain.to(rows)
        return rows - rows.mean(-1, keepdim=True) if self.centred else rows

    def scale(self, x: Float[Tensor, "*rows width"], dtype: torch.dtype) -> Float[Tensor, "*rows"]:
        """a at each x, as the norm in this dtype has it, its epsilon included."""
        plain = self.gain.to(x) * (x - x.mean(-1, keepdim=True) if self.centred else x)
        normed = self.module(x.to(dtype)).float() - self.bias.to(x)
        return (normed * plain).sum(-1) / plain.square().sum(-1)


@torch.no_grad()
def final_norm(vlm: VLM) -> FinalNorm:
    """What a vector of zeros, of ones, and of -1 and 1 in turn becomes tells g, b and m; another shows that it is all.

    Raises:
        HonesError: the final norm is not of this form.
    """
    module = vlm.anatomy.norm or nn.Identity()
    weight = vlm.anatomy.lm_head.weight.detach()
    ones = weight.new_ones(1, vlm.anatomy.width)
    signs = ones.clone()
    signs[:, ::2] = -1
    bias = module(torch.zeros_like(ones))[0].float()
    gain = (module(signs)[0].float() - bias) * signs[0].float()
    centred = bool((module(ones)[0].float() - bias).norm() < 1e-2 * gain.norm())
    norm = FinalNorm(module, gain, bias, centred)
    probe = weight[0].float()
    expected = gain * (probe - probe.mean() if centred else probe)
    if not torch.cosine_similarity(module(weight[:1])[0].float() - bias, expected, dim=0) > 0.9999:
        raise HonesError(
            f"{vlm.name}: its final norm {type(module).__name__} is more than a gain",
            expected="an RMS norm or a layer norm",
        )
    return norm


def target_ids(vlm: VLM, task: Task, example: Example) -> list[int]:
    """The target's tokens as the model would continue its template with them, at most 128."""
    if task.answers == "yes_no":
        return [vlm.answer_tokens.of(example.target)]
    return vlm.answer_ids(example.prompts[0], example.target)[:MAX_TARGET_TOKENS]
