"""Loading a model: a hub id, a local folder, or one of the built-in or planted models.

Pictures are always prepared by the PIL backend (the two backends of transformers resize differently); it is recorded.
The processor is the family's own class reduced to its picture and text parts, so that families whose full processor
wants a video part load without torchvision, with the same inputs.
"""

import hashlib
from functools import partialmethod
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
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
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available
from transformers.utils.hub import resolve_revision

from hones.errors import HonesError
from hones.models.anatomy import find_anatomy
from hones.models.head import find_after_head
from hones.models.pixtral import PixtralParts
from hones.models.planted import FOLDER as PLANTED_FOLDER
from hones.models.planted import PLANTS, apply_difference, load_plant
from hones.models.probe import check_edits, find_answer_tokens, probe_inputs
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
    source, place = source_of(name), _device(device)
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
            f"cannot load the model {name!r} ({_first_line(error)})",
            expected=f"{', '.join(BUILT_IN)}, a folder with an image-text-to-text or causal language model, a hub id",
            do="check the spelling, the folder or the network",
        ) from error
    except ImportError as error:  # of a quantisation, an attention implementation or a device map
        raise HonesError(f"cannot load the model {name!r} ({_first_line(error)})", do="install that package") from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise HonesError(
            f"{name}: {len(missing)} weights are missing, the first is {missing[0]}",
            do="download or save the model again",
        )
    return model.to(device) if device_map is None else model


def is_text_only(config: Any) -> bool:
    """Whether a configuration is that of a causal language model that takes no pictures."""
    of_text = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not hasattr(config, "vision_config")
    return of_text and config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def auto_model(config: Any) -> Any:
    """The class of transformers that loads a model of this configuration with its lm_head.

    Phi-4 multimodal takes pictures, and is registered as a causal language model alone.
    """
    pictures = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForCausalLM if causal and not pictures else AutoModelForImageTextToText


def processor_for(source: str, config: Any, **hub: Any) -> ProcessorMixin:
    """The processor of a model with this configuration; of a text-only model its tokenizer.

    Raises:
        HonesError: as `load_processor`.
    """
    return _load_tokenizer(source, **hub) if is_text_only(config) else load_processor(source, config.model_type, **hub)


def load_processor(source: str, model_type: str, **hub: Any) -> ProcessorMixin:
    """The family's processor with its picture and text parts only, pictures prepared by PIL.

    Args:
        hub: revision and trust_remote_code, as `from_pretrained` takes them.

    Raises:
        HonesError: the family has no processor, its files are missing, or it needs a package that is not there.
    """
    try:
        named = ProcessorMixin.get_processor_dict(source, **hub)[0].get("processor_class")
    except OSError:
        named = None  # a checkpoint may have no processor_config.json
    family = named or PROCESSOR_MAPPING_NAMES.get(model_type)
    if family is None:
        raise HonesError(f"no processor is known for models of type {model_type!r}")
    try:
        return picture_processor(_processor_class(family)).from_pretrained(source, **hub)
    except ImportError as error:
        raise HonesError(f"{family} cannot be loaded ({_first_line(error)})", do="install that package") from error
    except (OSError, ValueError) as error:
        raise HonesError(
            f"cannot load the processor of {source} ({_first_line(error)})",
            expected="tokenizer.json, tokenizer_config.json and preprocessor_config.json or processor_config.json",
        ) from error


def _load_tokenizer(source: str, **hub: Any) -> TextProcessor:
    try:
        return TextProcessor(transformers.AutoTokenizer.from_pretrained(source, **hub))
    except ImportError as error:
        raise HonesError(f"the tokenizer cannot be loaded ({_first_line(error)})", do="install that package") from error
    except (OSError, ValueError, KeyError) as error:
        raise HonesError(
            f"cannot load the tokenizer of {source} ({_first_line(error)})",
            expected="tokenizer.json and tokenizer_config.json",
        ) from error


def _processor_class(family: str) -> type[ProcessorMixin]:
    if family == "PixtralProcessor" and not is_torchvision_available():
        return PixtralParts
    found = getattr(transformers, family, None)
    if found is None:
        raise HonesError(f"transformers {transformers.__version__} has no processor {family}")
    return found


def picture_processor(family: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class without its parts for videos and sounds."""
    named = [*signature(family.__init__).parameters][1:]
    parts = [name for name in named if name == "tokenizer" or name.endswith("_processor")]
    used = [name for name in parts if name in ("image_processor", "tokenizer")]
    kept = parts[: 1 + parts.index(used[-1])] if used else ["image_processor", "tokenizer"]  # parameters go by position

    def get_attributes(cls: type) -> list[str]:
        return kept

    def check_argument(self: Any, name: str, argument: Any) -> Any:
        return None if argument is None else ProcessorMixin.check_argument_for_proper_class(self, name, argument)

    def load_parts(cls: type, source: str, processor_dict: dict | None = None, **options: Any) -> list[Any]:
        options.pop("subfolder", None)
        found = {
            "image_processor": transformers.AutoImageProcessor.from_pretrained(source, backend="pil", **options),
            "tokenizer": transformers.AutoTokenizer.from_pretrained(source, **options),
        }
        return [found.get(name) for name in parts or kept]

    members = {
        "get_attributes": classmethod(get_attributes),
        "_get_arguments_from_pretrained": classmethod(load_parts),
        "check_argument_for_proper_class": check_argument,
    }
    if family.__name__ == "PaliGemmaProcessor":  # its own call would put a line break behind a given answer
        members["prepare_inputs_layout"] = ProcessorMixin.prepare_inputs_layout
        members["__call__"] = partialmethod(ProcessorMixin.__call__, return_token_type_ids=True)
    return type(family.__name__, (family,), members)


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


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
