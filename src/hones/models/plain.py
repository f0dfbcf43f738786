"""Whether a model is one as transformers loads it, without a wrapper around it or adapters inside.

A wrapper has a forward of its own, and an adapter stands where a projection was: what is edited must be the model.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hones.errors import HonesError

INNER = ("_orig_mod", "module", "_fsdp_wrapped_module")
"""Where torch.compile, DataParallel and its like, DeepSpeed, and FSDP keep the model."""
MERGED = "merge_and_unload() of its PeftModel gives the plain model: attach that"


def check_plain(name: str, model: Any) -> None:
    """Look for what people put around and into a model.

    Raises:
        HonesError: it is wrapped, has adapters that are not merged, or is no model of transformers.
    """
    kind = type(model).__name__
    if hasattr(model, "merge_and_unload") or hasattr(model, "peft_config"):  # prompt tuning has the second alone
        raise HonesError(f"{name}: this {kind} has an adapter that is not merged", expected="a plain model", do=MERGED)
    for attribute in INNER:
        if isinstance(getattr(model, attribute, None), nn.Module):
            raise HonesError(
                f"{name}: {kind} is a wrapper around a model",
                expected="the model itself",
                do=f"attach its .{attribute}",
            )
    if not isinstance(model, PreTrainedModel):
        raise HonesError(f"{name}: a {kind} is no model of transformers", expected="what from_pretrained gives")
    for path, module in model.named_modules():
        if hasattr(module, "base_layer") or hasattr(module, "modules_to_save"):  # every tuner of PEFT
            raise HonesError(
                f"{name}: {path} is a {type(module).__module__}.{type(module).__name__}, an adapter that is not merged",
                expected="plain layers",
                do=MERGED,
            )
