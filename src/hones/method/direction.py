"""What a neuron writes toward an answer: its contribution, and the direction that it is measured in.

    c[l,i](x) = z[l,i](x) <W_down[:,i], u_y>                               contribution to the answer's direction
    u_y = v / ||v||,  v = sum over target tokens t of w_t U[t]             U: raw lm_head rows, first 128 tokens

z is read at the last prompt position, which predicts the first answer token. Shapes: z and c [items, L, I], u
[items, d], W_down [d, I]. Everything after z is float32, whatever the model's dtype. Where a norm or a gate stands
between down_proj and the residual, z and W_down are those of the true write-in (`hones.models.writing`). Two variants:
`Reading.norm_gain` folds the final norm's gain g into the direction (g U[t] in place of U[t]), `Reading.all_tokens`
reads z at every position that predicts a target token, teacher forced, and takes the mean over these positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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
    gain = final_gain(vlm).to(unembedding.device) if norm_gain else None
    directions = []
    for example, ids, weights in zip(examples, tokens, task.token_weights(tokens), strict=True):
        # v = sum_t w_t U[t], u_y = v / ||v||
        rows = unembedding[torch.tensor(ids, device=unembedding.device)].detach().float()
        v = torch.as_tensor(weights, dtype=torch.float32, device=rows.device) @ rows
        v = v if gain is None else gain * v
        norm = v.norm()
        if not ids or not norm > 0:
            raise TaskStops(f"item {example.id}: its target {example.target!r} has no direction in the vocabulary")
        directions.append(v / norm)
    return torch.stack(directions)


@torch.no_grad()
def final_gain(vlm: VLM) -> Float[Tensor, " width"]:
    """g of the final norm x -> g x / rms(x), up to a positive factor, float32.

    Raises:
        HonesError: the final norm is not of this form.
    """
    norm = vlm.anatomy.decoder.get_submodule("norm")
    weight = vlm.anatomy.lm_head.weight
    # norm(1) = g / rms(1); whether the norm is only that shows on another vector
    gain = norm(weight.new_ones(1, vlm.anatomy.width))[0].float()
    probe = weight[:1].detach()
    normed = norm(probe)[0].float()
    if not torch.cosine_similarity(normed, gain * probe[0].float(), dim=0) > 0.9999:
        raise HonesError(
            f"{vlm.name}: its final norm {type(norm).__name__} is more than a gain", expected="an RMS norm"
        )
    return gain


def target_ids(vlm: VLM, task: Task, example: Example) -> list[int]:
    """The target's tokens as the model would continue its template with them, at most 128."""
    if task.answers == "yes_no":
        return [vlm.answer_tokens.of(example.target)]
    return vlm.answer_ids(example.prompts[0], example.target)[:MAX_TARGET_TOKENS]
