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
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hones.errors import HonesError, TaskStops
from hones.models.vlm import VLM, Encoded
from hones.models.writing import write_vectors, written
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


def importance_shape(vlm: VLM) -> tuple[int, int]:
    """(L, I)."""
    return len(vlm.anatomy.layers), vlm.anatomy.neurons


class Readouts:
    """<W_down[:,i], u> of all layers, computed once for each distinct direction u, within bounded memory."""

    LIMIT = 256 * 2**20

    def __init__(self, vlm: VLM) -> None:
        self.vlm = vlm
        self.known: dict[bytes, list[Float[Tensor, " neurons"]]] = {}
        self.most = max(1, self.LIMIT // (4 * vlm.anatomy.total_neurons))

    def of(self, directions: Float[Tensor, "batch width"]) -> list[Float[Tensor, "batch neurons"]]:
        """For every layer."""
        keys = [row.numpy().tobytes() for row in directions.cpu()]
        missing = {key: row for row, key in enumerate(keys) if key not in self.known}
        if missing:
            if len(self.known) + len(missing) > self.most:
                self.known.clear()
                missing = {key: row for row, key in enumerate(keys)}
            found = readout_of(self.vlm, directions[[*missing.values()]])
            self.known.update({key: [layer[n] for layer in found] for n, key in enumerate(missing)})
        return [torch.stack([self.known[key][layer] for key in keys]) for layer in range(len(self.vlm.anatomy.layers))]


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
    norm, weight = vlm.anatomy.decoder.get_submodule("norm"), vlm.anatomy.lm_head.weight
    gain = norm(weight.new_ones(1, vlm.anatomy.width))[0].float()
    probe = weight[:1].detach()
    normed, expected = norm(probe)[0].float(), gain * probe[0].float()
    if not torch.cosine_similarity(normed, expected, dim=0) > 0.9999:
        raise HonesError(
            f"{vlm.name}: its final norm {type(norm).__name__} is more than a gain", expected="an RMS norm"
        )
    return gain


def target_ids(vlm: VLM, task: Task, example: Example) -> list[int]:
    """The target's tokens as the model would continue its template with them, at most 128."""
    if task.answers == "yes_no":
        return [vlm.answer_tokens.of(example.target)]
    return vlm.answer_ids(example.prompts[0], example.target)[:MAX_TARGET_TOKENS]


def readout_of(vlm: VLM, directions: Float[Tensor, "batch width"]) -> list[Float[Tensor, "batch neurons"]]:
    """<W_down[:,i], u_y> for every layer.

    Raises:
        HonesError: what a neuron writes is not known for this model.
    """
    vlm.check_write_in()
    return [directions.to(x.down_proj.weight.device) @ write_vectors(x) for x in vlm.anatomy.layers]


@torch.no_grad()
def contributions(
    vlm: VLM,
    encoded: Encoded,
    readout: Sequence[Float[Tensor, "batch neurons"]],
    weights: Float[Tensor, "batch positions"] | None = None,
) -> Float[Tensor, "batch layers neurons"]:
    """c[l,i](x) of `activations`, under whatever edits are in force."""
    z = activations(vlm, encoded, weights, as_written=True)
    return z * torch.stack([x.to(z.device) for x in readout], dim=1)


@torch.no_grad()
def activations(
    vlm: VLM,
    encoded: Encoded,
    weights: Float[Tensor, "batch positions"] | None = None,
    *,
    as_written: bool = False,
) -> Float[Tensor, "batch layers neurons"]:
    """z[l,i] at the last position, or summed over positions with `weights`; down_proj's true input, float32.

    as_written: multiplied by what a norm after down_proj lets through.
    """
    parts: dict[int, Tensor] = {}

    def capture(layer: int):
        def hook(_: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            z = (args[0][:, -1:] if weights is None else args[0]).float()
            z = written(vlm.anatomy.layers[layer], z) if as_written else z
            parts[layer] = z[:, 0] if weights is None else torch.einsum("bt,bti->bi", weights.to(z.device), z)

        return hook

    with ExitStack() as stack:
        for i, layer in enumerate(vlm.anatomy.layers):
            stack.callback(layer.down_proj.register_forward_pre_hook(capture(i)).remove)
        vlm.logits(encoded, keep=1)
    return torch.stack([parts[i].to(vlm.device) for i in range(len(parts))], dim=1)
