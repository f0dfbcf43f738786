"""Tokens that a direction of the vocabulary favours.

A neuron's write vector W_down[:, i] (`hones.models.writing`) changes the logits by U W_down[:, i] per unit of z: it
promotes the tokens with the largest values and suppresses those with the smallest. U [V, d] are the raw lm_head rows,
as in the method's u_y: the final norm's gain is not applied. float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hones.method.analysis.results import Token
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.models.writing import write_vectors

SHOWN = 8


@torch.no_grad()
def written_tokens(
    vlm: VLM, neurons: Sequence[Site], count: int = SHOWN
) -> list[tuple[tuple[Token, ...], tuple[Token, ...]]]:
    """The tokens that each neuron's write vector promotes most and suppresses most, strongest first."""
    if not neurons:
        return []
    vlm.check_write_in()
    unembedding = vlm.anatomy.lm_head.weight
    layers = vlm.anatomy.layers
    vectors = {at: write_vectors(layers[at]) for at in {at for at, _ in neurons}}
    columns = torch.stack([vectors[at][:, i].to(unembedding.device) for at, i in neurons], 1)
    written = torch.cat([rows.float() @ columns for rows in unembedding.split(8192)])
    return [(top_tokens(vlm, x, count), top_tokens(vlm, -x, count, sign=-1)) for x in written.T]


def top_tokens(
    vlm: VLM, weights: Float[Tensor, " vocabulary"], count: int, *, sign: int = 1, positive: bool = False
) -> tuple[Token, ...]:
    """The tokens of the largest weights, best first; `positive`: only where the weight is above zero."""
    values, ids = weights.float().topk(min(count, len(weights)))
    kept = [(value, token) for value, token in zip(values.tolist(), ids.tolist(), strict=True)]
    return tuple(Token(token_name(vlm.tokenizer, token), sign * v) for v, token in kept if v > 0 or not positive)


def token_name(tokenizer: Any, token: int) -> str:
    """A token's text with its leading space; part of a character, which has no text, is told by its number."""
    text = tokenizer.decode([token])
    piece = tokenizer.convert_ids_to_tokens(token)
    if "\N{REPLACEMENT CHARACTER}" in text:
        return f"{text}#{token}"
    drops_space = piece.startswith("▁") and not text.startswith(" ")
    return f" {text}" if drops_space else text
