"""A family's processor as the method uses it: its picture and text parts only, pictures prepared by PIL.

So families whose full processor wants a video part load without torchvision, with the same inputs. A family that has
an image processor for torchvision alone has that. A text-only model's processor is its tokenizer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partialmethod
from inspect import signature
from pathlib import Path
from typing import Any

import transformers
from PIL import Image
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.processing_utils import ProcessorMixin
from transformers.utils import is_torchvision_available

from hones.errors import BadItem, HonesError, cause, seam
from hones.models.files import what_is_wrong
from hones.models.pixtral import PixtralParts

QFORMER = "qformer_tokenizer"  # InstructBLIP's, of what its picture part reads of the prompt
OPEN_END = "return_for_text_completion"  # Chameleon's, without which it writes a separator behind every text
READ = ("image_processor", "tokenizer", QFORMER)


class TextProcessor(ProcessorMixin):
    """A tokenizer in the place of a processor; it takes no pictures."""

    tokenizer: PreTrainedTokenizerBase

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    @property
    def chat_template(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The tokenizer's, None for a base model."""
        return self.tokenizer.chat_template

    def __call__(self, text: list[str], **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The tokens of texts."""
        return self.tokenizer(text, **options)

    def save_pretrained(self, folder: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The tokenizer's files."""
        return self.tokenizer.save_pretrained(folder, **options)


def is_causal(config: Any) -> bool:
    """Whether transformers knows a configuration as a causal language model alone; Phi-4 multimodal is one too."""
    pictures = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not pictures


def is_text_only(config: Any) -> bool:
    """Whether a configuration is that of a causal language model that takes no pictures."""
    return is_causal(config) and not hasattr(config, "vision_config")


@contextmanager
def loading(what: str, expected: str, do: str | None = None, source: str | None = None) -> Iterator[None]:
    """Whatever a library raises while it loads something, as a HonesError.

    Args:
        source: where it is loaded from; of a folder the file at fault is named.
    """
    with seam(f"load {what}", expected=expected, do=do):
        try:
            yield
        except (HonesError, BadItem):
            raise
        except Exception as error:
            if (better := _in_words(error, what, source)) is not None:
                raise better from error
            raise


def _in_words(error: Exception, what: str, source: str | None) -> HonesError | None:
    """What is known to help against an error; None where nothing is."""
    if isinstance(error, ImportError):  # of a quantisation, an attention implementation, a device map or a processor
        return HonesError(f"cannot load {what} ({cause(error)})", do="install that package")
    if "trust_remote_code" in str(error):
        return HonesError(
            f"cannot load {what}: it needs code of its own, which would run here",
            expected="a model that transformers knows",
            do="read that code, then allow it with --trust-remote-code (trust_remote_code in Python and in YAML)",
        )
    wrong = what_is_wrong(Path(source)) if source is not None and Path(source).is_dir() else None
    return None if wrong is None else HonesError(f"cannot load {what}: {wrong}", do="download the file again")


def processor_for(source: str, config: Any, **hub: Any) -> ProcessorMixin:
    """The processor of a model with this configuration; of a text-only model its tokenizer.

    Raises:
        HonesError: as `load_processor`.
    """
    if not is_text_only(config):
        return load_processor(source, config.model_type, **hub)
    with loading(f"the tokenizer of {source}", expected="tokenizer.json and tokenizer_config.json", source=source):
        return TextProcessor(transformers.AutoTokenizer.from_pretrained(source, **hub))


def load_processor(source: str, model_type: str, **hub: Any) -> ProcessorMixin:
    """The family's processor with its picture and text parts only, pictures prepared by PIL where it can be.

    Args:
        hub: revision and trust_remote_code, as `from_pretrained` takes them.

    Raises:
        HonesError: the family has no processor, its files are missing, or it needs a package that is not there.
    """
    files = "tokenizer.json, tokenizer_config.json and preprocessor_config.json or processor_config.json"
    with loading(f"the processor of {source}", expected=files, source=source):
        try:
            named = ProcessorMixin.get_processor_dict(source, **hub)[0].get("processor_class")
        except OSError:
            named = None  # a checkpoint may have no processor_config.json
        family = named or PROCESSOR_MAPPING_NAMES.get(model_type)
        if family is None:
            raise HonesError(f"no processor is known for models of type {model_type!r}")
        if family == "PixtralProcessor" and not is_torchvision_available():
            kind = PixtralParts
        elif hasattr(transformers, family):
            kind = getattr(transformers, family)
        else:
            raise HonesError(f"transformers {transformers.__version__} has no processor {family}")
        return picture_processor(kind).from_pretrained(source, **hub)


def picture_processor(family: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The processor class without its parts for videos and sounds."""
    named = [*signature(family.__init__).parameters][1:]
    parts = [name for name in named if name == "feature_extractor" or name.endswith(("tokenizer", "_processor"))]
    used = [name for name in parts if name in READ]
    kept = parts[: 1 + parts.index(used[-1])] if used else ["image_processor", "tokenizer"]  # parameters go by position

    def init(self: Any, *args: Any, **given: Any) -> None:  # of those that families hand on by name
        ProcessorMixin.__init__(self, *args, **{k: v for k, v in given.items() if k in kept or k not in parts})

    def made_of(cls: Any, args: list[Any], processor_dict: dict[str, Any], **given: Any) -> Any:
        make = super(made, cls).from_args_and_dict
        try:
            return make(args, processor_dict, **given)
        except AttributeError:  # MiniCPM-V reads settings of its video part, which its picture part has too
            return make([args[0] if part is None else part for part in args], processor_dict, **given)

    def get_attributes(cls: type) -> list[str]:
        return kept

    def check_argument(self: Any, name: str, argument: Any) -> Any:
        if argument is None or name == "video_processor":
            return None
        return ProcessorMixin.check_argument_for_proper_class(self, name, argument)

    def load_parts(cls: type, source: str, processor_dict: dict | None = None, **options: Any) -> list[Any]:
        options.pop("subfolder", None)
        loaded = {
            "image_processor": transformers.AutoImageProcessor.from_pretrained(source, backend="pil", **options),
            "tokenizer": transformers.AutoTokenizer.from_pretrained(source, **options),
        }
        if QFORMER in parts:
            loaded[QFORMER] = transformers.AutoTokenizer.from_pretrained(source, subfolder=QFORMER, **options)
        return [loaded.get(name) for name in parts or kept]

    members: dict[str, Any] = {
        "from_args_and_dict": classmethod(made_of),
        "get_attributes": classmethod(get_attributes),
        "_get_arguments_from_pretrained": classmethod(load_parts),
        "check_argument_for_proper_class": check_argument,
    }
    if family.__name__ == "PaliGemmaProcessor":  # its own call would put a line break behind a given answer
        members["prepare_inputs_layout"] = ProcessorMixin.prepare_inputs_layout
        members["__call__"] = partialmethod(ProcessorMixin.__call__, return_token_type_ids=True)
    bases: Any = (family, type("PictureParts", (ProcessorMixin,), {"__init__": init}))
    made = type(family.__name__, bases, members)
    return made


def with_pictures(processor: Any, pictures: Sequence[Image.Image], **options: Any) -> Any:
    """What a processor makes of texts, each with one of the pictures."""
    try:
        return processor(images=[[picture] for picture in pictures], **options)
    except ValueError as error:
        if "Nested" not in str(error):
            raise
        return processor(images=list(pictures), **options)  # GOT-OCR: a list within is a document of several pages


def picture_token(processor: Any) -> str:
    """The token that stands for a picture in a prompt."""
    return str(getattr(processor, "image_token", None) or processor.picture_token)


def name_picture_token(name: str, config: Any, processor: Any) -> None:
    """Note on a processor without an image_token, as its picture_token, the one whose id the configuration names.

    Raises:
        HonesError: it names none.
    """
    if getattr(processor, "image_token", None) is not None:
        return
    token = getattr(config, "image_token_id", None)
    text = None if token is None else processor.tokenizer.convert_ids_to_tokens(token)
    if text is None and puts_in_front(processor):
        text = getattr(processor, "boi_token", None)  # Kosmos-2: no prompt of a user's may have it either
    if text is None:
        raise HonesError(
            f"{name}: {type(processor).__name__} names no token that stands for a picture in a prompt",
            expected="a processor with an image_token, which the chat template writes",
        )
    processor.picture_token = text


def behind_a_prompt(processor: Any) -> str:
    """What a processor by itself writes between a prompt and its answer."""
    end = processor.tokenizer.sep_token if getattr(processor, OPEN_END, None) is not None else None
    return end or ""


def puts_in_front(processor: Any) -> bool:
    """Whether a processor itself writes the tokens of a picture, before a text that has no mark for it (BLIP-2)."""
    ids = _ids_with_picture(processor, "a")
    return ids is not None and len(ids) > len(processor.tokenizer("a")["input_ids"])


def leaves_as_written(processor: Any, text: str) -> bool:
    """Whether a processor leaves a text as it is that has all tokens of a picture already (PP-Chart2Table)."""
    return _ids_with_picture(processor, text) == processor.tokenizer(text)["input_ids"]


def _ids_with_picture(processor: Any, text: str) -> list[int] | None:
    """The tokens of a text that is shown with a picture; None where it cannot be."""
    try:
        with seam("show a picture"):  # most say that the text and the picture do not fit, in many ways
            found = with_pictures(processor, [Image.new("RGB", (64, 64))], text=[text], return_tensors="pt")
    except HonesError:
        return None
    return found["input_ids"][0].tolist()
