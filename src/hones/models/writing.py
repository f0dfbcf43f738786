"""What an FFN adds to the residual, neuron by neuron.

    added = a(z) g * (W_down z + b),   so neuron i writes  a(z) z_i (g * W_down[:, i])

z [.., I] is the input of down_proj, W_down [d, I] its matrix whichever way a family keeps it, b its bias, which is no
neuron's. In most families g = 1 and a = 1. Where a norm follows down_proj (Gemma 3, GLM-4V), g [d] is its gain and
a(z) = 1 / rms(W_down z + b) its denominator, held fixed at the value that it has for this z: the norm is linear there,
and the neurons' shares sum to what the FFN adds. Where a gate follows (Mllama's cross-attention
layers), g = tanh(gate); a number that a layer multiplies by (Granite) is in g too. Where norms follow parts of an FFN
(Gemma 4 with experts), each is in g and a of its own neurons. `hones.models.probe` measures at
loading that the FFN adds just that.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hones.errors import HonesError
from hones.models.anatomy import Anatomy, Layer, Projection, matrix, sizes
from hones.models.capture import Z, capture
from hones.models.normed import NormedProjection
from hones.models.vlm import VLM, Encoded


def check_weights(layer: Layer, where: str) -> None:
    """Raises HonesError unless the weights of down_proj are plain numbers [d, I]."""
    if not has_plain_weights(layer.down_proj):
        raise HonesError(
            f"{where}: the weights of its {type(layer.down_proj).__name__} are quantised",
            expected=f"floating-point numbers {[*sizes(layer.down_proj)]}, whose columns are what neurons write",
            do="load the model without quantisation for this step",
        )


def has_plain_weights(projection: Projection) -> bool:
    """Whether the weights are plain numbers, not packed by a quantisation."""
    return projection.weight.is_floating_point() and tuple(matrix(projection).shape) == sizes(projection)


def is_plain(anatomy: Anatomy) -> bool:
    """Whether every neuron of the model writes z_i W_down[:, i]: nothing follows down_proj."""
    return not any(_has_gain(layer) for layer in anatomy.layers)


def _has_gain(layer: Layer) -> bool:
    return layer.ffn_enters or layer.post_norm is not None or layer.gate is not None or float(layer.factor) != 1


@torch.no_grad()
def gain(layer: Layer) -> Float[Tensor, " width"] | None:
    """g, up to a positive factor that `share` makes good; None where it is 1."""
    if not _has_gain(layer):
        return None
    g = torch.ones(sizes(layer.down_proj)[0], device=layer.down_proj.weight.device)
    if layer.post_norm is not None:
        g = _gain_of(layer.post_norm, g)
    if layer.gate is not None:
        g = g * layer.gate.detach().float().tanh()
    return g * float(layer.factor)


@torch.no_grad()
def write_vectors(layer: Layer) -> Float[Tensor, "width neurons"]:
    """g * W_down, float32: column i is the direction in which neuron i writes."""
    weight = matrix(layer.down_proj).detach().float()
    if isinstance(layer.down_proj, NormedProjection):
        ones = torch.ones(len(weight), device=weight.device)
        weight = torch.cat([_gain_of(norm, ones)[:, None] * x for norm, x, _ in layer.down_proj.parts(weight)], 1)
    weight = torch.nn.functional.pad(weight, (0, layer.absent)) if layer.absent else weight
    g = gain(layer)
    return weight if g is None else g[:, None] * weight


@torch.no_grad()
def written(layer: Layer, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions neurons"]:
    """a(z) z, float32: how much of its write vector each neuron writes."""
    z = z.float()
    outer = z if layer.post_norm is None else z * share(layer, z)[..., None]
    if not isinstance(layer.down_proj, NormedProjection):
        return outer
    within = [_share_of(norm, y)[..., None].expand(x.shape) for norm, x, y in _parts(layer.down_proj, z)]
    return outer * torch.nn.functional.pad(torch.cat(within, -1), (0, layer.absent))


@torch.no_grad()
def share(layer: Layer, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions"]:
    """a(z) of a layer with a norm after down_proj, as <norm(y), g * y> / |g * y|^2 of y = W_down z + b."""
    assert layer.post_norm is not None
    return _share_of(layer.post_norm, _output(layer, z))


def _share_of(norm: nn.Module, y: Float[Tensor, "*positions width"]) -> Float[Tensor, "*positions"]:
    plain = _gain_of(norm, torch.ones(y.shape[-1], device=y.device)) * y
    return (_through(norm, y).float() * plain).sum(-1) / plain.square().sum(-1).clamp(min=1e-30)


def _gain_of(norm: nn.Module, ones: Float[Tensor, " width"]) -> Float[Tensor, " width"]:
    """Up to a positive factor."""
    return _through(norm, ones[None])[0].float()


def _through(norm: nn.Module, x: Float[Tensor, "*positions width"]) -> Float[Tensor, "*positions width"]:
    """What a norm gives, whatever is in its forward's place while somebody looks at z (`hones.models.normed`)."""
    return type(norm).forward(norm, x)


@torch.no_grad()
def added(layer: Layer, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions width"]:
    """All that the FFN adds to the residual for this z, its bias included, float32."""
    y = _output(layer, z.float())
    g = gain(layer)
    y = y if g is None else g * y
    return y if layer.post_norm is None else y * share(layer, z.float())[..., None]


def _output(layer: Layer, z: Float[Tensor, "*positions neurons"]) -> Float[Tensor, "*positions width"]:
    if isinstance(layer.down_proj, NormedProjection):
        of_experts, of_dense = (_through(norm, y) for norm, _, y in _parts(layer.down_proj, z))
        return of_experts + of_dense
    bias = layer.down_proj.bias
    weight = matrix(layer.down_proj).detach().float()
    return torch.nn.functional.linear(z[..., : layer.neurons], weight, None if bias is None else bias.detach().float())


def _parts(down: NormedProjection, z: Float[Tensor, "*positions neurons"]) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Of each part of an FFN the norm behind it, its z, and what enters the norm, float32."""
    parts = down.parts(z[..., : down.in_features])
    return [(norm, x, torch.nn.functional.linear(x, torch.cat(w, 1).detach().float())) for norm, x, w in parts]


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
            readouts = readout_of(self.vlm, directions[[*missing.values()]])
            self.known.update({key: [layer[n] for layer in readouts] for n, key in enumerate(missing)})
        return [torch.stack([self.known[key][layer] for key in keys]) for layer in range(len(self.vlm.anatomy.layers))]


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
    reduced: dict[int, Tensor] = {}

    def reduce(layer: int, z: Tensor) -> None:
        # only what is asked for is kept: all positions of all layers would not fit a large model's memory
        z = (z[:, -1:] if weights is None else z).float()
        z = written(vlm.anatomy.layers[layer], z) if as_written else z
        reduced[layer] = z[:, 0] if weights is None else torch.einsum("bt,bti->bi", weights.to(z.device), z)

    with capture(vlm.anatomy, Z, reduce):
        vlm.logits(encoded, keep=1)
    return torch.stack([reduced[layer].to(vlm.device) for layer in range(len(reduced))], dim=1)
