"""Loading a model: a hub id, a local folder, or one of the built-in models.

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
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available

from hones.errors import HonesError
from hones.models.anatomy import find_anatomy
from hones.models.pixtral import PixtralParts
from hones.models.probe import check_edits, find_answer_tokens
from hones.models.vlm import VLM

BUILT_IN_FOLDER = Path(__file__).parent / "tiny"
BUILT_IN = ("tiny-llava", "tiny-qwen2.5-vl")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_vlm(name: str, *, dtype: str = "auto", device: str = "auto", revision: str | None = None) -> VLM:
    """Load a model and check it.

    Args:
        name: `tiny-llava`, `tiny-qwen2.5-vl`, a local folder or a hub id.
        dtype: float32, bfloat16, float16; auto: float32 on a CPU, bfloat16 on a GPU.
        device: a torch device; auto: the GPU if there is one.
        revision: branch, tag or commit on the hub.

    Raises:
        HonesError: no such model, an unsupported one, equal Yes and No tokens, or an edit that changes nothing.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    dtype = ("bfloat16" if device.startswith("cuda") else "float32") if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise HonesError(f"unknown dtype {dtype!r}", expected=f"auto or one of {', '.join(DTYPES)}")
    source = _source(name)
    model = _load_model(source, name, DTYPES[dtype], revision).to(_device(device)).eval()  # pyright: ignore
    processor = load_processor(source, model.config.model_type, revision)
    return attach(name, model, processor, _revision(source, model))


def attach(name: str, model: PreTrainedModel, processor: ProcessorMixin, revision: str = "") -> VLM:
    """A VLM from an already loaded model and processor, self-checked.

    Raises:
        HonesError: as `load_vlm`.
    """
    processor.tokenizer.padding_side = "left"  # pyright: ignore[reportAttributeAccessIssue]
    anatomy = find_anatomy(model)
    vlm = VLM(name, model, processor, anatomy, revision, "pil", find_answer_tokens(name, model, processor))
    vlm.no_write_in = next((check.problem for check in check_edits(vlm) if check.problem is not None), None)
    return vlm


def _source(name: str) -> str:
    if name in BUILT_IN:
        return str(BUILT_IN_FOLDER / name)
    return name


def _device(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise HonesError(
            f"no device {device!r}", expected="cpu, cuda or cuda:N", do=str(error).splitlines()[0]
        ) from error


def _load_model(source: str, name: str, dtype: torch.dtype, revision: str | None) -> PreTrainedModel:
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise HonesError(
            f"cannot load the model {name!r} ({_first_line(error)})",
            expected=f"{', '.join(BUILT_IN)}, a folder with an image-text-to-text model, or a hub id",
            do="check the spelling, the folder or the network",
        ) from error
    model, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise HonesError(
            f"{name}: {len(missing)} weights are missing, the first is {missing[0]}",
            do="download or save the model again",
        )
    return model


def load_processor(source: str, model_type: str, revision: str | None = None) -> ProcessorMixin:
    """The family's processor with its picture and text parts only, pictures prepared by PIL.

    Raises:
        HonesError: the family has no processor, its files are missing, or it needs a package that is not there.
    """
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        named = ProcessorMixin.get_processor_dict(source, **options)[0].get("processor_class")
    except OSError:
        named = None  # a checkpoint may have no processor_config.json
    family = named or PROCESSOR_MAPPING_NAMES.get(model_type)
    if family is None:
        raise HonesError(f"no processor is known for models of type {model_type!r}")
    try:
        return picture_processor(_processor_class(family)).from_pretrained(source, **options)
    except ImportError as error:
        raise HonesError(f"{family} cannot be loaded ({_first_line(error)})", do="install that package") from error
    except (OSError, ValueError) as error:
        raise HonesError(
            f"cannot load the processor of {source} ({_first_line(error)})",
            expected="tokenizer.json, tokenizer_config.json and preprocessor_config.json or processor_config.json",
        ) from error


def _processor_class(family: str) -> type[ProcessorMixin]:
    if family == "PixtralProcessor" and not is_torchvision_available():
        return PixtralParts
    found = getattr(transformers, family, None)
    if found is None:
        raise HonesError(f"transformers {transformers.__version__} has no processor {family}")
    return found


def picture_processor(family: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class without its video part."""

    def get_attributes(cls: type) -> list[str]:
        return ["image_processor", "tokenizer"]

    def load_image_processor(cls: type, source: str, processor_dict: dict | None = None, **options: Any) -> list[Any]:
        options.pop("subfolder", None)
        image_processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil", **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        wants_video = [*signature(family.__init__).parameters][3:4] == ["video_processor"]
        return [image_processor, tokenizer, *([None] if wants_video else [])]

    members = {
        "get_attributes": classmethod(get_attributes),
        "_get_arguments_from_pretrained": classmethod(load_image_processor),
    }
    if family.__name__ == "PaliGemmaProcessor":  # its own call would put a line break behind a given answer
        members["prepare_inputs_layout"] = ProcessorMixin.prepare_inputs_layout
        members["__call__"] = partialmethod(ProcessorMixin.__call__, return_token_type_ids=True)
    return type(family.__name__, (family,), members)


def _revision(source: str, model: PreTrainedModel) -> str:
    """The hub's commit, or for a local folder a digest of all its files."""
    if not Path(source).is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "unknown")
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(source).iterdir() if p.is_file()):
        digest.update(f"{path.name} ".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
