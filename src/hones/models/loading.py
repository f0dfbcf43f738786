"""Loading a model: a hub id, a local folder, or one of the built-in or planted models.

Pictures are always prepared by the PIL backend (the two backends of transformers resize differently); it is recorded.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.processing_utils import ProcessorMixin
from transformers.utils.hub import resolve_revision

from hones.errors import HonesError
from hones.models.anatomy import find_anatomy
from hones.models.head import find_after_head
from hones.models.planted import FOLDER as PLANTED_FOLDER
from hones.models.planted import PLANTS, apply_difference, load_plant
from hones.models.probe import check_edits, find_answer_tokens, probe_inputs
from hones.models.processors import first_line, processor_for
from hones.models.text import TextProcessor
from hones.models.vlm import VLM

BUILT_IN_FOLDER = Path(__file__).parent / "tiny"
BUILT_IN = ("tiny-llava", "tiny-qwen2.5-vl")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_vlm(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> VLM:
    """Load a model and check it.

    Args:
        name: `tiny-llava`, `tiny-qwen2.5-vl`, one of `hones.models.planted.PLANTS`, a local folder or a hub id.
        dtype: float32, bfloat16, float16; auto: float32 on a CPU, bfloat16 on a GPU.
        device: a torch device; auto: the GPU if there is one.
        revision: branch, tag or commit on the hub; the commit that it stands for is loaded and recorded.
        device_map: "auto" to spread the layers over all devices, or which part goes where; in place of `device`.
        attn_implementation: of transformers, such as eager, sdpa or flash_attention_2; by default the model's own.
        trust_remote_code: run the model's own code from the hub.

    Raises:
        HonesError: no such model, an unsupported one, equal Yes and No tokens, or an edit that changes nothing.
    """
    if device_map is not None and device != "auto":
        raise HonesError(f"device {device!r} and a device_map", expected="one of them")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    dtype = ("bfloat16" if device.startswith("cuda") else "float32") if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise HonesError(f"unknown dtype {dtype!r}", expected=f"auto or one of {', '.join(DTYPES)}")
    source = source_of(name)
    place = _device(device)
    commit = getattr(resolve_revision(source, revision), "resolved", revision)
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, **({"revision": commit} if commit else {})}
    model = _load_model(source, name, place, device_map, attn_implementation, dtype=DTYPES[dtype], **hub)
    if name in PLANTS:
        apply_difference(model, Path(source) / "model.safetensors", PLANTED_FOLDER / f"{name}.safetensors")
    processor = processor_for(source, model.config, **hub)
    return attach(name, model, processor, _revision(name, source) or commit or "unknown")


def attach(
    name: str, model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase, revision: str = ""
) -> VLM:
    """A VLM from a model and a processor that are loaded already, checked as `load_vlm` does.

    With a tokenizer in place of a processor the model is a text-only one.

    The model may be quantised or spread over several devices; it is put into evaluation mode, and the tokenizer pads on
    the left from here on (one without a padding token pads with its end token). Nothing else about either is changed.

    Args:
        name: what errors and run.json call the model. revision: recorded in run.json.

    Raises:
        HonesError: as `load_vlm`, or the processor has no tokenizer or image processor.
    """
    if isinstance(processor, PreTrainedTokenizerBase):
        processor = TextProcessor(processor)
    for part in ("tokenizer",) if isinstance(processor, TextProcessor) else ("tokenizer", "image_processor"):
        if not hasattr(processor, part):
            raise HonesError(f"{name}: {type(processor).__name__} has no {part}", expected="a family's processor")
    offloaded = next((n for n, p in model.named_parameters() if p.device.type == "meta"), None)
    if offloaded is not None:
        raise HonesError(
            f"{name}: {offloaded} is not on any device (offloaded)",
            expected="all weights in memory",
            do="use more devices, a smaller dtype or a quantised checkpoint",
        )
    model.eval()
    processor.tokenizer.padding_side = "left"  # pyright: ignore[reportAttributeAccessIssue]
    anatomy = find_anatomy(model)
    answers = find_answer_tokens(name, model, processor)
    vlm = VLM(name, model, processor, anatomy, revision, _image_backend(processor), answers)
    vlm.after_head = find_after_head(model, anatomy.lm_head, probe_inputs(model, processor))
    vlm.no_write_in = next((check.problem for check in check_edits(vlm) if check.problem is not None), None)
    return vlm


def _image_backend(processor: ProcessorMixin) -> str:
    if isinstance(processor, TextProcessor):
        return "none"
    return "pil" if type(processor.image_processor).__name__.endswith("Pil") else "torchvision"  # pyright: ignore


def source_of(name: str) -> str:
    """The folder of a built-in model; other names as they are."""
    if name in BUILT_IN:
        return str(BUILT_IN_FOLDER / name)
    return str(BUILT_IN_FOLDER / load_plant(name).base) if name in PLANTS else name


def _device(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise HonesError(
            f"no device {device!r}", expected="cpu, cuda or cuda:N", do=str(error).splitlines()[0]
        ) from error


def _load_model(
    source: str,
    name: str,
    device: torch.device,
    device_map: str | dict[str, Any] | None,
    attn_implementation: str | None,
    *,
    dtype: torch.dtype,
    **hub: Any,
) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(source, **hub)
        if device_map is None and getattr(config, "quantization_config", None) is not None:
            device_map = {"": device}  # packed weights cannot be moved afterwards
        placed = {} if device_map is None else {"device_map": device_map}
        attention = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        loaded: Any = auto_model(config).from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, **placed, **attention, **hub
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise HonesError(
            f"cannot load the model {name!r} ({first_line(error)})",
            expected=f"{', '.join(BUILT_IN)}, a folder with an image-text-to-text or causal language model, a hub id",
            do="check the spelling, the folder or the network",
        ) from error
    except ImportError as error:  # of a quantisation, an attention implementation or a device map
        raise HonesError(f"cannot load the model {name!r} ({first_line(error)})", do="install that package") from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise HonesError(
            f"{name}: {len(missing)} weights are missing, the first is {missing[0]}",
            do="download or save the model again",
        )
    return model.to(device) if device_map is None else model


def auto_model(config: Any) -> Any:
    """The class of transformers that loads a model of this configuration with its lm_head.

    Phi-4 multimodal takes pictures, and is registered as a causal language model alone.
    """
    pictures = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForCausalLM if causal and not pictures else AutoModelForImageTextToText


def _revision(name: str, source: str) -> str | None:
    """Of all files of a local folder, a planted model's difference included; None for a model of the hub."""
    if not Path(source).is_dir():
        return None
    difference = [PLANTED_FOLDER / f"{name}.safetensors"] if name in PLANTS else []
    digest = hashlib.sha256()
    for path in [*sorted(p for p in Path(source).iterdir() if p.is_file()), *difference]:
        digest.update(f"{path.name} ".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
