"""Where in the picture an answer comes from: maps over the picture's patches, for one token of one answer.

With q the position that predicts the answer's token y, and s the tokens of a place in the picture
(`hones.models.layout`; one, or several where the model is shown tiles and a view of the whole):

    attention    sum_s A[l,h](q, s)                             how much of head (l, h)'s attention goes there
    activation   mean_s z[l,i](s)                               neuron (l, i)'s activation, the input of down_proj
    lens         mean_s (lens[l](s)[y] - mean_v lens[l](s)[v])  the logit lens of y after layer l (`lens`)
    drop         log p(y.., end) - log p(y.., end | e_s = e)    what the answer loses with the place's patches replaced
                                                                by the picture's mean patch e (`where_drop`)

Only the last is causal. The first three read what is there, which may not matter: an attention may move nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hones.errors import HonesError
from hones.method.analysis.picture_map import PictureMap as PictureMap
from hones.method.analysis.tokens import token_name
from hones.method.analysis.where_drop import place_drops
from hones.models.capture import HEADS, LEAVING, Z, capture
from hones.models.layout import Layout, find_layout
from hones.models.sites import Site
from hones.models.vlm import VLM, Encoded
from hones.sweep.engines import TOLERANCE
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example

AT_ONCE = 256  # positions whose logits are held at once


def picture_maps(
    vlm: VLM,
    example: Example,
    *,
    head: Site | None = None,
    neuron: Site | None = None,
    token: int = 0,
    layout: Layout | None = None,
    settings: SweepSettings | None = None,
) -> tuple[PictureMap, ...]:
    """The drop; of a head its attention, and the lens of what it reads (after layer 0 at least); of a neuron z.

    Args:
        example: with its answer as target, about a picture.
        token: of the answer, counted from 0.
        layout: of its picture, where that is known already (`find_layout`).

    Raises:
        HonesError: no picture, no such head, neuron or token. `NoLayout`: it is not known where its patches stand.
    """
    layout = layout or layout_of(vlm, example)
    maps = [drop_map(vlm, example, layout=layout, settings=settings)]
    if head is not None:
        maps.append(attention_map(vlm, example, head, token=token, layout=layout))
        maps.append(lens_map(vlm, example, max(0, head[0] - 1), token=token, layout=layout))
    if neuron is not None:
        maps.append(activation_map(vlm, example, neuron, layout=layout))
    return tuple(maps)


def layout_of(vlm: VLM, example: Example) -> Layout:
    """The proven layout of the example's picture in its prompt.

    Raises:
        HonesError: it has no picture. `NoLayout`: it is not known where its patches stand.
    """
    picture = example.open_picture()
    if picture is None:
        raise HonesError(f"item {example.id} has no picture", expected="a picture, to show where in it")
    return find_layout(vlm, picture, example.prompts[0])


def drop_map(
    vlm: VLM, example: Example, *, layout: Layout | None = None, settings: SweepSettings | None = None
) -> PictureMap:
    """What the answer's log-probability loses when a place's patches become the picture's mean patch, in nats."""
    layout = layout or layout_of(vlm, example)
    drops = place_drops(vlm, example, layout.tokens_at(), settings)
    title = f"What the answer {example.target!r} loses without a patch"
    return PictureMap("drop", title, layout.grid(drops), "nats of log-probability", layout.box)


@torch.no_grad()
def attention_map(
    vlm: VLM, example: Example, head: Site, *, token: int = 0, layout: Layout | None = None
) -> PictureMap:
    """How much of a head's attention goes from where the answer's token is predicted to each place, a share.

    Raises:
        HonesError: no such head or token; the family's attention does not give its weights.
    """
    layer, number = head
    vlm.anatomy.check_head(layer, number)
    if vlm.anatomy.layers[layer].keeps_state:
        raise HonesError(f"layer {layer} has no attention to show", expected="a head of a layer with attention")
    layout = layout or layout_of(vlm, example)
    encoded, at, text = _asked(vlm, example, token)
    heads: dict[int, Tensor] = {}
    weights: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], Tensor):
            weights.append(output[1][0, number, at].float())

    def see(which: int) -> Any:
        return capture(vlm.anatomy, HEADS, lambda _, x: heads.__setitem__(which, x[0, at].float()), [layer])

    with see(0):
        vlm.logits(encoded, keep=1)
    with eager(vlm), see(1), vlm.anatomy.layers[layer].attention.register_forward_hook(keep):
        vlm.logits(encoded, keep=1)
    if not weights:
        raise HonesError(f"{vlm.name}: its attention does not give its weights", expected="an eager attention")
    apart = float((heads[0] - heads[1]).abs().max() / heads[0].std())
    if not apart <= TOLERANCE[vlm.model.dtype]:
        raise HonesError(
            f"{vlm.name}: head outputs of layer {layer} differ by {apart:.2g} of their spread under eager attention",
            expected="the attention that the model runs with",
        )
    of_place = [float(weights[0][places].sum()) for places in layout.tokens_at()]
    title = f"Attention of head {layer}, {number} where it predicts {text!r}"
    return PictureMap("attention", title, layout.grid(of_place), "share of its attention", layout.box)


@torch.no_grad()
def activation_map(vlm: VLM, example: Example, neuron: Site, *, layout: Layout | None = None) -> PictureMap:
    """z of a neuron at each place.

    Raises:
        HonesError: no such neuron.
    """
    layer, number = neuron
    vlm.anatomy.check_neuron(layer, number)
    layout = layout or layout_of(vlm, example)
    encoded, _, _ = _asked(vlm, example, 0)
    z: list[Tensor] = []
    with capture(vlm.anatomy, Z, lambda _, x: z.append(x[0, :, number].float()), [layer]):
        vlm.logits(encoded, keep=1)
    of_place = [float(z[0][places].mean()) for places in layout.tokens_at()]
    title = f"Activation of neuron {layer}, {number}"
    return PictureMap("activation", title, layout.grid(of_place), "activation z", layout.box)


@torch.no_grad()
def lens_map(vlm: VLM, example: Example, layer: int, *, token: int = 0, layout: Layout | None = None) -> PictureMap:
    """The logit lens of the answer's token at each place, after a layer: its logit above the vocabulary's mean.

    Raises:
        HonesError: no such layer or token.
    """
    layers = len(vlm.anatomy.layers)
    if not 0 <= layer < layers:
        raise HonesError(f"no layer {layer}", expected=f"0 to {layers - 1}")
    layout = layout or layout_of(vlm, example)
    encoded, at, text = _asked(vlm, example, token)
    residual: list[Tensor] = []
    with capture(vlm.anatomy, LEAVING, lambda _, x: residual.append(x[0]), [layer]):
        vlm.logits(encoded, keep=1)
    norm = vlm.anatomy.norm or nn.Identity()
    wanted = int(encoded.inputs["input_ids"][0, at + 1])
    above = []
    for part in residual[0][layout.positions.tolist()].split(AT_ONCE):
        logits = vlm.head(norm(part)).float()
        above.append((logits[:, wanted] - logits.mean(-1)).cpu())
    at_position = dict(zip(layout.positions.tolist(), torch.cat(above).tolist(), strict=True))
    of_place = [float(np.mean([at_position[p] for p in places])) for places in layout.tokens_at()]
    title = f"Logit lens of {text!r} after layer {layer}"
    return PictureMap("lens", title, layout.grid(of_place), "logit above the vocabulary's mean", layout.box)


@contextmanager
def eager(vlm: VLM) -> Iterator[None]:
    """The language model with the attention that gives its weights; its own afterwards."""
    decoder: Any = vlm.anatomy.decoder
    own = vlm.attention
    decoder.set_attn_implementation({"": "eager"})  # its own alone: a decoder may hold the vision part
    try:
        yield
    finally:
        decoder.set_attn_implementation({"": own})


def _asked(vlm: VLM, example: Example, token: int) -> tuple[Encoded, int, str]:
    """The prompt with its answer, the position that predicts a token of the answer, and that token's text."""
    ids = vlm.gold_ids(example.prompts[0], example.target)
    if not 0 <= token < len(ids):
        raise HonesError(f"token {token} of the answer {example.target!r}", expected=f"0 to {len(ids) - 1}")
    encoded = vlm.encode_with_answers([example.open_picture()], example.prompts[:1], [example.target])
    length = encoded.inputs["input_ids"].shape[1]
    return encoded, length - len(ids) - 1 + token, token_name(vlm.tokenizer, ids[token])
