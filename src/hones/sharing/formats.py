"""The same scaled model, z[l,i] <- (1 + s[l,i]) z[l,i], in forms that other software loads.

With W [d, I] the matrix of a layer's down_proj (a Conv1D's weight is its transpose; in a mixture of experts the columns
of all of them) and S its k scaled neurons:

    merged   W' = W diag(1 + s), float32 arithmetic, then the model's dtype; a plain checkpoint with its processor
    ia3      the input of down_proj times the vector 1 + s [1, I]; a PEFT adapter ((IA)3, a feed-forward module)
    lora     W + B A with A [r, I] one-hot rows of S and B [d, r] = W[:, S] diag(s), alpha = r; a PEFT adapter. r is the
             largest k of all layers, at most 512; rows and columns beyond a layer's own k are zero
    json     steering.json: the scales under a header that says which model's they are

Adapters name the language model's modules in full: a vision tower often has a down_proj as well. Layers without scales
have no adapter, and a mixture's experts no module to name. Weights are safetensors, in float32 for adapters.
"""

import shutil
from collections import defaultdict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from hones.errors import HonesError
from hones.models.anatomy import Projection, matrix
from hones.models.mixtures import ExpertProjection
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.models.writing import check_weights
from hones.sharing.base import LICENSE_FILES, PROCESSOR_FILES, files_of
from hones.sharing.manifest import BaseModelFacts, Format

MAX_RANK = 512  # what servers that swap LoRA adapters take at most


def scale_vectors(vlm: VLM, scales: Mapping[Site, float]) -> dict[int, Float[Tensor, " neurons"]]:
    """s [I] in float32 of every layer with a scale other than 0, on the CPU."""
    vectors: dict[int, Tensor] = defaultdict(lambda: torch.zeros(vlm.anatomy.neurons))
    for (layer, neuron), scale in sorted(scales.items()):
        if scale != 0:
            vectors[layer][neuron] = scale
    return dict(vectors)


def lora_rank(vectors: Mapping[int, Float[Tensor, " neurons"]]) -> int:
    """The largest number of scaled neurons in one layer.

    Raises:
        HonesError: it is larger than 512; the line names the layer.
    """
    counts = {layer: int((s != 0).sum()) for layer, s in vectors.items()}
    layer = max(counts, key=counts.__getitem__)
    if counts[layer] > MAX_RANK:
        raise HonesError(
            f"layer {layer} has {counts[layer]} scaled neurons, each takes one rank of a LoRA",
            expected=f"at most {MAX_RANK} per layer, which is what servers take",
            do="export as merged or ia3, or select fewer neurons",
        )
    return counts[layer]


def write_merged(vlm: VLM, scales: Mapping[Site, float], folder: Path) -> None:
    """A plain checkpoint, with the base model's own processor and licence files.

    Raises:
        HonesError: the weights are quantised, or a scaled one does not fit the model's dtype.
    """
    vlm.model.save_pretrained(folder, state_dict={**vlm.model.state_dict(), **merged_weights(vlm, scales)})
    copied = files_of(vlm, PROCESSOR_FILES)
    if not copied:  # an attached model has no files of its own
        vlm.processor.save_pretrained(folder)
    for file in (*copied, *files_of(vlm, LICENSE_FILES)):
        shutil.copyfile(file, folder / file.name)


def merged_weights(vlm: VLM, scales: Mapping[Site, float]) -> dict[str, Tensor]:
    """The scaled down_proj weights by their name in the model, in its dtype; others stay as they are.

    Raises:
        HonesError: they are quantised, or one does not fit the model's dtype.
    """
    names = {id(parameter): name for name, parameter in vlm.model.named_parameters()}
    weights = {}
    for layer, s in scale_vectors(vlm, scales).items():
        check_weights(vlm.anatomy.layers[layer], f"{vlm.name}: layer {layer}")
        of_layer = vlm.anatomy.layers[layer]
        for parameter, factors in _factors(of_layer.down_proj, 1 + s[: of_layer.neurons]):
            wide = torch.promote_types(parameter.dtype, torch.float32)
            scaled = (parameter.detach().to(wide) * factors.to(parameter.device, wide)).to(parameter.dtype)
            if not torch.isfinite(scaled).all():
                raise HonesError(
                    f"layer {layer}: a scaled weight does not fit {vlm.dtype}",
                    expected="finite weights",
                    do="see --dtype",
                )
            weights[names[id(parameter)]] = scaled
    return weights


def _factors(projection: Projection, factors: Float[Tensor, " neurons"]) -> list[tuple[Tensor, Tensor]]:
    """The parameters that hold W, each with the factors of its columns, to multiply it by."""
    if isinstance(projection, ExpertProjection):
        return projection.factors(factors)
    return [(projection.weight, factors[:, None] if isinstance(projection, Conv1D) else factors)]


def write_adapter(vlm: VLM, scales: Mapping[Site, float], folder: Path, form: Format, base: BaseModelFacts) -> None:
    """ia3 or lora: adapter_config.json and adapter_model.safetensors.

    Raises:
        HonesError: peft is not installed; the model is a mixture of experts; for lora, more than 512 neurons of a layer
            are scaled, or the weights are quantised.
    """
    if vlm.anatomy.is_mixture:
        raise HonesError(
            f"a {form} adapter for neurons of a mixture of experts",
            expected="one module for every down_proj, which fused experts are not",
            do="export as merged or json",
        )
    names = _module_names(vlm)
    vectors = scale_vectors(vlm, scales)
    targets = [names[layer] for layer in vectors]
    weights: dict[str, Tensor] = {}
    if form == "ia3":
        config = peft().IA3Config()
        config.feedforward_modules = targets
        for layer, s in vectors.items():
            weights[f"{names[layer]}.ia3_l"] = 1 + s[None]
    else:
        rank = lora_rank(vectors)
        config = peft().LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0)
        for layer, s in vectors.items():
            a, b = lora_matrices(_weight(vlm, layer).float().cpu(), s, rank)
            weights[f"{names[layer]}.lora_A.weight"] = a
            weights[f"{names[layer]}.lora_B.weight"] = b
    config.fan_in_fan_out = any(_keeps_transpose(vlm, layer) for layer in vectors)
    config.target_modules = targets  # a list in order; given to the constructor it would become a set
    config.base_model_name_or_path = base.model
    config.revision = base.commit
    config.inference_mode = True
    named = {f"base_model.model.{name}": weight.contiguous() for name, weight in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def lora_matrices(
    weight: Float[Tensor, "width neurons"], s: Float[Tensor, " neurons"], rank: int
) -> tuple[Float[Tensor, "rank neurons"], Float[Tensor, "width rank"]]:
    """A, one one-hot row per scaled neuron, and B = W[:, S] diag(s), both padded with zeros to `rank`."""
    (chosen,) = s.nonzero(as_tuple=True)
    a = weight.new_zeros(rank, weight.shape[1])
    a[torch.arange(len(chosen)), chosen] = 1
    b = weight.new_zeros(weight.shape[0], rank)
    b[:, : len(chosen)] = weight[:, chosen] * s[chosen]
    return a, b


def _weight(vlm: VLM, layer: int) -> Float[Tensor, "width neurons"]:
    """The matrix of a layer's down_proj.

    Raises:
        HonesError: it is quantised.
    """
    check_weights(vlm.anatomy.layers[layer], f"{vlm.name}: layer {layer}")
    return matrix(vlm.anatomy.layers[layer].down_proj).detach()


def _keeps_transpose(vlm: VLM, layer: int) -> bool:
    return isinstance(vlm.anatomy.layers[layer].down_proj, Conv1D)


def _module_names(vlm: VLM) -> list[str]:
    """The full name of every layer's down_proj in the model."""
    names = {id(module): name for name, module in vlm.model.named_modules()}
    return [names[id(layer.down_proj)] for layer in vlm.anatomy.layers]


def peft() -> Any:
    try:
        return import_module("peft")
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise HonesError("ia3 and lora need peft", do="pip install 'hones[share]'") from error
