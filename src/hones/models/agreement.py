"""Whether a configuration and the weights beside it are of one model.

transformers leaves weights out that have no place in the model which the configuration describes, and fills those that
are missing with random numbers. Of the decoder, whose heads and neurons are edited, each is refused here by name. Left
alone are weights elsewhere without a place (a head for another purpose, parts of a vision tower), buffers that other
versions saved, layers for predicting further tokens, and what a quantisation keeps beside its weights.

A part of config.json that is not there is refused before loading: transformers takes its defaults for it, and makes a
model of billions of random numbers from them.

What no shape tells is not noticed: where config.json has no head_dim, twice the heads and twice the keys, each half as
wide, fit the same weights.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hones.errors import HonesError
from hones.models.finding import blocks_of, decoder_of

QUANTISATION = "quantization_config"
MEND = "put config.json back as it was published, or download or save the model again"


PARTS = ("text_config", "vision_config")
FLAT = ("hidden_size", "num_hidden_layers")
"""What stands at the top of a config.json that has no text_config of its own (Qwen2-VL's)."""


def check_parts(folder: Path, config: Any) -> None:
    """Check that a folder's config.json has the parts that its family's configuration is made of.

    Where it has a part under a name that is not the family's, nothing is said.

    Raises:
        HonesError: one is not there, or empty.
    """
    file = folder / "config.json"
    if not file.is_file():
        return
    written = json.loads(file.read_text(encoding="utf-8"))
    parts = type(config).sub_configs
    renamed = any(key.endswith("_config") and key not in parts and key != QUANTISATION for key in written)
    for part in PARTS:
        flat = part == "text_config" and any(key in written for key in FLAT)
        if part in parts and not written.get(part) and not flat and not renamed:
            raise HonesError(f"{file} has no {part}", expected=f"all parts of a {config.model_type}", do=MEND)


def check_weights(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Check what transformers reports of loading (`output_loading_info`).

    Raises:
        HonesError: layers, heads or other weights of config.json and of the files differ.
    """
    config = model.config.get_text_config()
    blocks = blocks_of(decoder_of(model))
    path = next((path for path, module in model.named_modules() if module is blocks), "layers")
    within = re.compile(rf"{re.escape(path)}\.(\d+)\.")
    layers = 0 if blocks is None else len(blocks)
    unplaced = {key: int(found[1]) for key in sorted(report["unexpected_keys"]) if (found := within.match(key))}
    missing = sorted(report["missing_keys"])

    further = int(getattr(config, "num_nextn_predict_layers", None) or 0)  # saved behind the last layer, not run
    held = 1 + max(unplaced.values(), default=-1)
    if held > layers + further:
        _refuse_layers(name, layers, held)
    absent = layers
    while absent and _is_absent(model, f"{path}.{absent - 1}.", missing):
        absent -= 1
    if 0 < absent < layers:
        _refuse_layers(name, layers, absent)

    shapes = {key: (tuple(held), tuple(wanted)) for key, held, wanted in sorted(report["mismatched_keys"])}
    for key, (held_shape, wanted) in shapes.items():
        if within.match(key) and key.endswith("o_proj.weight") and held_shape[0] == wanted[0]:
            heads = int(config.num_attention_heads)
            raise HonesError(
                f"{name}: config.json says {heads} heads of width {wanted[1] // heads}, {wanted[1]} together, "
                f"but the weights have {held_shape[1]} ({key})",
                expected="the number of heads and the head_dim that the weights were trained with",
                do=MEND,
            )
    if shapes:
        key, (held_shape, wanted) = next(iter(shapes.items()))
        raise HonesError(
            f"{name}: {len(shapes)} weights have another shape than config.json says, the first is {key}: "
            f"{list(held_shape)}",
            expected=f"{list(wanted)}",
            do=MEND,
        )
    if missing:
        raise HonesError(
            f"{name}: {len(missing)} weights are missing, the first is {missing[0]}",
            do="download or save the model again",
        )
    parameters = [key for key, at in unplaced.items() if at < layers and key.endswith((".weight", ".bias"))]
    if parameters and getattr(model.config, QUANTISATION, None) is None:
        raise HonesError(
            f"{name}: {len(parameters)} weights have no place in the model that config.json describes, "
            f"the first is {parameters[0]}",
            expected="a place for every weight of the decoder",
            do=MEND,
        )


def _is_absent(model: PreTrainedModel, layer: str, missing: list[str]) -> bool:
    """Whether every parameter of a layer is missing."""
    wanted = {key for key, _ in model.named_parameters() if key.startswith(layer)}
    return bool(wanted) and wanted <= {*missing}


def _refuse_layers(name: str, said: int, held: int) -> None:
    raise HonesError(
        f"{name}: config.json says {said} layers, the weights hold {held}", expected="one number of layers", do=MEND
    )
