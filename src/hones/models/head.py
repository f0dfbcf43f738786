"""From final hidden states to logits: lm_head, and what some families put behind it.

    logits = cap tanh(scale U h / cap)         scale = 1 and no cap in most families

Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`, Gemma 2 caps by `final_logit_softcapping`. What
a model does of this is measured: a vision-language model around such a decoder may do none of it.
"""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from hones.errors import HonesError
from hones.models.capture import after

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""How far logits that are the same but for rounding may be apart, in their standard deviation."""
SCALES = ("logit_scale", "output_multiplier")


@dataclass(frozen=True)
class AfterHead:
    """What is done to U h. cap: the bound of a soft cap, None without one."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Float[Tensor, "*positions vocabulary"]) -> Float[Tensor, "*positions vocabulary"]:
        """The model's logits from those of its lm_head."""
        logits = logits if self.scale == 1 else logits * self.scale
        return logits if self.cap is None else (logits / self.cap).tanh() * self.cap


PLAIN_HEAD = AfterHead()


@torch.no_grad()
def find_after_head(model: PreTrainedModel, lm_head: nn.Linear, inputs: dict[str, Tensor]) -> AfterHead:
    """What the model does behind its lm_head, measured on these inputs.

    Where its logits are none of the known forms it is taken to do nothing, which the engines then find out.
    """
    config = model.config.get_text_config()
    scales = [1.0, *(float(scale) for name in SCALES if (scale := getattr(config, name, None)))]
    if divisor := getattr(config, "logits_scaling", None):
        scales.append(1 / float(divisor))
    cap = getattr(config, "final_logit_softcapping", None)
    bounds = (None, float(cap)) if cap else (None,)
    known = [AfterHead(scale, bound) for scale, bound in product(dict.fromkeys(scales), bounds)]
    if len(known) == 1:
        return PLAIN_HEAD
    of_head: list[Tensor] = []
    with after(lm_head, of_head.append):
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits
    apart = [float((candidate(of_head[0]) - logits).abs().max()) for candidate in known]
    nearest = min(range(len(known)), key=apart.__getitem__)
    close = apart[nearest] <= 8 * torch.finfo(logits.dtype).eps * float(logits.abs().max())
    return known[nearest] if close else PLAIN_HEAD


def forward_logits(
    model: PreTrainedModel, inputs: dict[str, Tensor], keep: int, name: str
) -> Float[Tensor, "batch kept vocabulary"]:
    """One forward pass; see `hones.models.vlm.VLM.logits`."""
    inputs = {**inputs, **counted_positions(model, inputs)}
    logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    check_finite(logits, name)
    return logits


def counted_positions(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The positions of tokens, padding left out; none where the model places pictures and text itself."""
    placed = "image_grid_thw" in inputs and any(hasattr(x, "get_rope_index") for x in (model, model.base_model))
    if placed or "mm_token_type_ids" in inputs:
        return {}
    return {"position_ids": (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)}


def spread(logits: Tensor) -> Tensor:
    """The standard deviation of logits, those left out that a family never says (Chameleon's of pictures)."""
    return logits[logits > torch.finfo(logits.dtype).min / 2].std()


def check_finite(logits: Tensor, name: str) -> None:
    """Raises HonesError unless all logits are finite; name: of the model."""
    if not torch.isfinite(logits).all():
        raise HonesError(
            f"{name} gives logits that are not finite",
            expected="finite numbers",
            do="try --dtype float32 or bfloat16, or check the weights",
        )
