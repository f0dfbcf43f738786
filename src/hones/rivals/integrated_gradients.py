"""Integrated gradients of p(answer) along one layer's z: the definition, by the whole model for every layer and step.

    A[l,i] = z[l,i] / m * sum over k = 1..m of d p(answer) / d z[l,i] at (k / m) z[l],    d p = p d log p

z[l] is the whole layer's activation at the last prompt position, scaled jointly; other layers and positions follow.
Over a layer, A adds up to p(answer) - p(answer | z[l] = 0) as m grows. `tail` finds the same faster.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hones.models.capture import Z, capture, collect
from hones.models.vlm import VLM, Encoded


def integrated_gradients(vlm: VLM, encoded: Encoded, steps: int, rows: int) -> Float[Tensor, "layers neurons"]:
    """Of one encoded item, layer by layer, `rows` steps at once; at least in float32. The model must be frozen."""
    assert encoded.answer is not None
    position, z_of_layers = z_at_last_prompt_position(vlm, encoded)
    by_layer = []
    for layer, z in enumerate(z_of_layers):
        total = at_least_float32(torch.zeros_like(z))
        for part in path(steps, vlm.device).split(rows):
            inputs = {name: x.repeat(len(part), *[1] * (x.ndim - 1)) for name, x in encoded.inputs.items()}
            repeated = Encoded(inputs, encoded.answer.repeat(len(part), 1))
            log_p, gradient = gradients_along(vlm, repeated, layer, position, z, part)
            total += (log_p.exp()[:, None] * gradient).sum(0).to(total)
        by_layer.append((at_least_float32(z) * total / steps).to(vlm.device))
    return torch.stack(by_layer)


def path(steps: int, device: torch.device) -> Float[Tensor, " steps"]:
    """1 / m, 2 / m, .. 1."""
    return torch.arange(1, steps + 1, device=device) / steps


def z_at_last_prompt_position(vlm: VLM, encoded: Encoded) -> tuple[int, list[Float[Tensor, " neurons"]]]:
    """Where the first answer token of one encoded item is predicted, and z of every layer there."""
    assert encoded.answer is not None
    position = int(encoded.answer.int().argmax()) - 1
    with torch.no_grad(), collect(vlm.anatomy, Z, lambda x: x[0, position]) as z:
        vlm.logits(encoded, keep=1)
    return position, [z[layer] for layer in range(len(z))]


def gradients_along(
    vlm: VLM, encoded: Encoded, layer: int, position: int, z: Float[Tensor, " neurons"], alphas: Float[Tensor, " rows"]
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows neurons"]]:
    """log p(answer) of every row and its gradient, at alpha z of one layer."""
    scaled = (alphas.to(z.device)[:, None] * z).to(z.dtype).requires_grad_()

    def put(_: int, x: Tensor) -> Tensor:
        return torch.cat([x[:, :position], scaled[:, None], x[:, position + 1 :]], 1)

    with torch.enable_grad(), capture(vlm.anatomy, Z, put, [layer]):
        log_p = vlm.log_probabilities(encoded)
        (gradient,) = torch.autograd.grad(log_p.sum(), scaled)
    return log_p.detach().to(z.device), at_least_float32(gradient)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
