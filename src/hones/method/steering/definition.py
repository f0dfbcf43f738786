"""The objective of one step, by the formula: the slow definition that `hones.method.steering.fast` is proven against.

    CE(answer tokens) + beta KL(original || scaled, answer tokens) + gamma mean(s^2)

CE and KL are means over an answer's tokens, its end token included, then over the items of a step. Both models are run
whole, on the pictures themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hones.method.steering.pairs import Pair
from hones.method.steering.settings import SteeringSettings
from hones.method.steering.trainable import Trainable
from hones.models.vlm import VLM, Encoded


@dataclass(frozen=True)
class Losses:
    """The objective of one step, with gradients, and its two main parts without beta, in nats."""

    total: Float[Tensor, ""]
    cross_entropy: Float[Tensor, ""]
    divergence: Float[Tensor, ""]


def objective(
    vlm: VLM,
    pairs: Sequence[Pair],
    scales: dict[int, Tensor],
    trained: Trainable,
    settings: SteeringSettings,
) -> Losses:
    """The objective of one step.

    Args:
        scales: s by layer, [k_l] each, or what else is trained.
    """
    encoded = vlm.encode_with_answers(
        [p.example.open_picture() for p in pairs], [p.prompt for p in pairs], [p.answer for p in pairs]
    )
    # The answers under theta, and under z[l,i] <- (1 + s[l,i]) z[l,i], or what else is trained
    with torch.no_grad():
        original = answer_logits(vlm, encoded)
    with trained.on(scales):
        scaled = answer_logits(vlm, encoded)
    assert encoded.answer is not None
    labels = encoded.inputs["input_ids"][encoded.answer]
    return losses(original, scaled, labels, encoded.answer.sum(1), scales, settings)


def answer_logits(vlm: VLM, encoded: Encoded) -> Float[Tensor, "tokens vocabulary"]:
    """Logits that predict each answer token, rows in order."""
    assert encoded.answer is not None
    keep = int(encoded.answer.sum(1).max()) + 1
    logits = vlm.logits(encoded, keep=keep)
    return logits[:, :-1][encoded.answer[:, -keep + 1 :]]


def losses(
    original: Float[Tensor, "tokens vocabulary"],
    scaled: Float[Tensor, "tokens vocabulary"],
    labels: Int[Tensor, " tokens"],
    per_row: Int[Tensor, " rows"],
    scales: dict[int, Tensor],
    settings: SteeringSettings,
) -> Losses:
    """The objective from both models' logits of all answer tokens; per_row: how many tokens each row's answer has."""
    # Means over an answer's tokens, then over the items
    weight = (1 / (per_row * len(per_row)).to(scaled)).repeat_interleave(per_row)
    cross_entropy = (weight * F.cross_entropy(scaled, labels, reduction="none")).sum()

    # KL(original || scaled) at every token
    log_p = original.log_softmax(-1)
    log_q = scaled.log_softmax(-1)
    divergence = (weight * (log_p.exp() * (log_p - log_q)).sum(-1)).sum()

    # CE + beta KL + gamma mean(s^2)
    size = torch.cat(list(scales.values())).square().mean()
    total = cross_entropy + settings.beta * divergence + settings.gamma * size
    return Losses(total, cross_entropy, divergence)
