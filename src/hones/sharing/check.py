"""An export checks itself: it is loaded again as anyone would load it, and its logits on a probe are compared with
those of the hooked model (`scale_neurons`).

    deviation = max |exported - hooked|     over all positions of three prompts about three drawn pictures
    effect    = max |hooked - base|         what the scales change there
    share     = <exported - base, hooked - base> / <hooked - base, hooked - base>

In float32 the deviation may be 1e-5 times the largest |logit| (or 1e-5, if that is below 1). In half precision both
sides round differently, and the bound is 8 roundings of the largest |logit|. Where the effect is smaller than that, the
base model deviates no more, so the export must also change what the scales change: its share is 1 for the hooked model
and 0 for the base. Rounding of the base is in both differences: where the effect is nothing but rounding, a right
merged checkpoint still has a share of about 1/2 (0.44 to 0.6 on the built-in models), and 1/4 is asked for. An
adapter's own numbers are read back instead, and must be the scales to the last bit. A merged checkpoint's weights must
be bit-equal to what was written in any dtype.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hones.data.shapes.scene import draw, make_scene
from hones.errors import HonesError
from hones.models.anatomy import matrix
from hones.models.conventions import pad_with
from hones.models.finding import find_anatomy
from hones.models.interventions import scale_neurons
from hones.models.loading import auto_model
from hones.models.processors import processor_for
from hones.models.sites import Site
from hones.models.vlm import VLM, Encoded, frozen
from hones.runs.artifacts import read_scales
from hones.sharing.formats import merged_weights, peft, scale_vectors
from hones.sharing.manifest import Check, Format
from hones.tasks import caption, ocr, vqa

PROMPTS = (vqa.PROMPT.format(question="What colour is the star?"), ocr.PROMPT, caption.PROMPT)
FLOAT32_TOLERANCE = 1e-5
HALF_ROUNDINGS = 8
LEAST_SHARE = 0.25

Logits = Float[Tensor, "positions vocabulary"]


@torch.no_grad()
def check_export(vlm: VLM, scales: Mapping[Site, float], folder: Path, form: Format) -> Check:
    """Load what was written to `folder` and compare.

    Raises:
        HonesError: it deviates from the hooked model by more than rounding can explain.
    """
    encoded = _probe(vlm)
    base = _logits(vlm, encoded)
    with scale_neurons(vlm.model, scales):
        hooked = _logits(vlm, encoded)
    match form:
        case "merged":
            exported = _logits_of_merged(vlm, scales, folder, encoded)
        case "json":
            with scale_neurons(vlm.model, read_scales(folder / "steering.json").values):
                exported = _logits(vlm, encoded)
        case "ia3" | "lora":
            with _adapted(vlm, folder):
                _check_layers(vlm, scales, form)
                exported = _logits(vlm, encoded)
    full = vlm.model.dtype in (torch.float32, torch.float64)
    relative = FLOAT32_TOLERANCE if full else HALF_ROUNDINGS * torch.finfo(vlm.model.dtype).eps
    largest = float(hooked.abs().max())
    change = hooked - base
    check = Check(
        dtype=vlm.dtype,
        deviation=float((exported - hooked).abs().max()),
        tolerance=relative * max(1.0, largest),
        effect=float(change.abs().max()),
        largest_logit=largest,
        positions=len(hooked),
    )
    do = "please report it with the model's name, or export as json"
    if not check.deviation <= check.tolerance:
        raise HonesError(
            f"the {form} export deviates from the scaled model by {check.deviation:.3g} logits",
            expected=f"at most {check.tolerance:.3g} in {check.dtype}; nothing was written",
            do=do,
        )
    share = float(((exported - base) * change).sum() / (change * change).sum())  # NaN without any effect
    if form in ("merged", "json") and share < LEAST_SHARE:
        raise HonesError(
            f"the {form} export makes {share:.0%} of the change that the scales make",
            expected="all of it, rounding aside; nothing was written",
            do=do,
        )
    return check


def _probe(vlm: VLM) -> Encoded:
    """Three drawn pictures, each with the prompt of another task; the prompts alone for a text-only model."""
    scenes = [make_scene(f"export/{i}") for i in range(len(PROMPTS))]
    return vlm.encode([draw(scene) if vlm.shows_pictures else None for scene in scenes], PROMPTS)


def _logits(vlm: VLM, encoded: Encoded) -> Logits:
    """At every position that is not padding."""
    return vlm.logits(encoded)[encoded.inputs["attention_mask"].bool()]


@contextmanager
def _adapted(vlm: VLM, folder: Path) -> Iterator[None]:
    """The model itself with the PEFT adapter in `folder`; afterwards it is as it was."""
    library = peft()
    before = {name for name in vars(vlm.model) if "peft" in name}
    with frozen(vlm.model):
        with warnings.catch_warnings():
            # peft asks transformers for a property that version 5 has renamed
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            adapted = library.PeftModel.from_pretrained(vlm.model, str(folder))
        try:
            yield
        finally:
            adapted.unload()
            for name in [name for name in vars(vlm.model) if "peft" in name and name not in before]:
                delattr(vlm.model, name)


def _check_layers(vlm: VLM, scales: Mapping[Site, float], form: Format) -> None:
    """Raises HonesError unless the adapter that was loaded is, on every layer, exactly the scales, and nowhere else.

    Small scales in half precision move logits by less than its rounding: only this tells them from others there.
    """
    tuner = peft().tuners.tuners_utils.BaseTunerLayer
    adapted = {id(module.base_layer): module for module in vlm.model.modules() if isinstance(module, tuner)}
    for layer, s in scale_vectors(vlm, scales).items():
        module: Any = adapted.pop(id(vlm.anatomy.layers[layer].down_proj), None)
        same = False
        if module is not None:
            (name,) = module.active_adapters
            if form == "ia3":
                same = module.is_feedforward and torch.equal(module.ia3_l[name].detach().float().cpu(), 1 + s[None])
            else:
                a, b = (part[name].weight.detach().float() for part in (module.lora_A, module.lora_B))
                weight = matrix(module.base_layer).detach().float()
                same = torch.equal(module.scaling[name] * (b @ a), weight * s.to(weight))
        if not same:
            raise HonesError(f"the {form} adapter reads back with another layer {layer}", expected="what was written")
    if adapted:
        raise HonesError(f"the {form} adapter adapts more than the scaled layers", expected="what was written")


def _logits_of_merged(vlm: VLM, scales: Mapping[Site, float], folder: Path, encoded: Encoded) -> Logits:
    """Its logits; its weights and the inputs that its processor makes must be exactly those expected."""
    loaded: Any = auto_model(vlm.model.config).from_pretrained(folder, dtype=vlm.model.dtype)
    model = loaded.to(vlm.device).eval()
    processor = processor_for(str(folder), model.config)
    pad_with(processor, vlm.conventions.padding)
    reloaded = replace(vlm, name=folder.name, model=model, processor=processor, anatomy=find_anatomy(model))
    found = _probe(reloaded)
    wrong = _differing({**vlm.model.state_dict(), **merged_weights(vlm, scales)}, model.state_dict())
    wrong += _differing(encoded.inputs, {name: found.inputs[name] for name in encoded.inputs if name in found.inputs})
    if wrong:
        raise HonesError(f"the merged checkpoint reads back with another {min(wrong)}", expected="what was written")
    return _logits(reloaded, found)


def _differing(wanted: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[str]:
    """The names under which two sets of tensors are not bit-equal."""
    both = wanted.keys() & there.keys()
    equal = {name for name in both if torch.equal(wanted[name], there[name].to(wanted[name].device))}
    return [*(wanted.keys() | there.keys()) - equal]
