"""A family's processor as the method uses it: its picture and text parts only, pictures prepared by PIL.

So families whose full processor wants a video part load without torchvision, with the same inputs.
"""

from functools import partialmethod
from inspect import signature
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available

from hones.errors import HonesError
from hones.models.pixtral import PixtralParts
from hones.models.text import TextProcessor


def is_text_only(config: Any) -> bool:
    """Whether a configuration is that of a causal language model that takes no pictures."""
    of_text = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not hasattr(config, "vision_config")
    return of_text and config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


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
        raise HonesError(f"{family} cannot be loaded ({first_line(error)})", do="install that package") from error
    except (OSError, ValueError) as error:
        raise HonesError(
            f"cannot load the processor of {source} ({first_line(error)})",
            expected="tokenizer.json, tokenizer_config.json and preprocessor_config.json or processor_config.json",
        ) from error


def _load_tokenizer(source: str, **hub: Any) -> TextProcessor:
    try:
        return TextProcessor(transformers.AutoTokenizer.from_pretrained(source, **hub))
    except ImportError as error:
        raise HonesError(f"the tokenizer cannot be loaded ({first_line(error)})", do="install that package") from error
    except (OSError, ValueError, KeyError) as error:
        raise HonesError(
            f"cannot load the tokenizer of {source} ({first_line(error)})",
            expected="tokenizer.json and tokenizer_config.json",
        ) from error


def _processor_class(family: str) -> type[ProcessorMixin]:
    if family == "PixtralProcessor" and not is_torchvision_available():
        return PixtralParts
    if not hasattr(transformers, family):
        raise HonesError(f"transformers {transformers.__version__} has no processor {family}")
    return getattr(transformers, family)


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
        loaded = {
            "image_processor": transformers.AutoImageProcessor.from_pretrained(source, backend="pil", **options),
            "tokenizer": transformers.AutoTokenizer.from_pretrained(source, **options),
        }
        return [loaded.get(name) for name in parts or kept]

    members = {
        "get_attributes": classmethod(get_attributes),
        "_get_arguments_from_pretrained": classmethod(load_parts),
        "check_argument_for_proper_class": check_argument,
    }
    if family.__name__ == "PaliGemmaProcessor":  # its own call would put a line break behind a given answer
        members["prepare_inputs_layout"] = ProcessorMixin.prepare_inputs_layout
        members["__call__"] = partialmethod(ProcessorMixin.__call__, return_token_type_ids=True)
    return type(family.__name__, (family,), members)


def first_line(error: BaseException) -> str:
    """What an error of a library says, without the lines after its first."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
