"""A family's files made by rule: the marks that its processor asks a tokenizer for, and its settings made small."""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import census_pictures
import transformers
from census_shapes import PATCH, SIDE, merged
from family_files import TEMPLATE, Words
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

PIXELS = (SIDE * SIDE, 4 * SIDE * SIDE)  # fewest and most that a picture is resized to
_ATTRIBUTE = re.compile(r"(?:tokenizer\.|attr\((?:self\.)?tokenizer, [\"'])(\w+_token)\b")
_LITERAL = re.compile(r"[\"'](<[^\"'<>\s{}]{1,40}>|\[[A-Z_]{2,20}\])[\"']")
_NAMED = re.compile(r"[\"'](\w+_token)[\"'](?:, None)?\)?[^\n]*?else [\"']([^\"'\s]+)[\"']")
_GIVEN = re.compile(r"self\.(\w+_token) = [\"']([^\"'\s]+)[\"']")
_OWN = ("bos_token", "eos_token", "pad_token", "unk_token", "add_bos_token", "add_eos_token", "sep_token")


class CannotBeBuilt(Exception):
    """A family of which no model can be built here; the line says why."""


def processor_class(model_type: str, named: str | None = None) -> type:
    """The family's processor.

    Raises:
        CannotBeBuilt: transformers names none.
    """
    name = named or PROCESSOR_MAPPING_NAMES.get(model_type)
    if name is None:
        raise CannotBeBuilt("transformers names no processor for it")
    return getattr(transformers, name)


def image_processor_name(model_type: str, named: str | None = None) -> str:
    """The family's image processor: for PIL, or, where there is none, for torchvision if that is here.

    Raises:
        CannotBeBuilt: transformers has none, or none without torchvision.
    """
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    found = named or names.get("pil") or names.get("torchvision")
    if found is None:
        raise CannotBeBuilt("transformers names no image processor for it")
    if found == names.get("torchvision") and not is_torchvision_available():
        raise CannotBeBuilt(f"{found} needs torchvision")
    return found


def image_class(name: str) -> Any:
    """The image processor of that name: transformers' own, or a stand-in of `census_pictures`."""
    return getattr(transformers, name, None) or getattr(census_pictures, name)


def is_of_pil(model_type: str, named: str | None = None) -> bool:
    """Whether pictures of a family can be prepared by PIL, or no image processor of it is known."""
    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    return named is not None or not names or names.get("pil") is not None


def marks_of(family: type) -> tuple[dict[str, str], tuple[str, ...]]:
    """The marks that a processor reads from its tokenizer by name, and those that its code names by their text."""
    try:
        source = inspect.getsource(family)
    except (OSError, TypeError):
        return {}, ()
    given = dict(_GIVEN.findall(source))
    texts = given | dict(_NAMED.findall(source))
    names = [name for name in dict.fromkeys([*given, *_ATTRIBUTE.findall(source)]) if name not in _OWN]
    parameters = inspect.signature(family.__init__).parameters
    for name in names:
        default = getattr(parameters.get(name), "default", None)
        if name not in texts:
            texts[name] = default if isinstance(default, str) else f"<|{name.removesuffix('_token')}|>"
    texts = {name: text for name, text in texts.items() if name in names}
    literals = [text for text in dict.fromkeys(_LITERAL.findall(source)) if text not in texts.values()]
    defaults = [p.default for name, p in parameters.items() if name.endswith("_token") and isinstance(p.default, str)]
    return texts, tuple(dict.fromkeys(text for text in (*literals, *defaults) if text not in ("<s>", "</s>", "<pad>")))


def image_processor_settings(name: str, folder: Path, more: Mapping[str, Any] | None) -> None:
    """Writes preprocessor_config.json: pictures of 32 x 32 pixels in patches of 8."""
    image_class(name)().save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    small = {key: _of_picture(key, value) for key, value in json.loads(file.read_text()).items()}
    file.write_text(json.dumps(merged(small, more or {})))


def _of_picture(name: str, value: Any) -> Any:
    if name in ("size", "crop_size", "max_image_size", "high_res_size") and isinstance(value, dict):
        return {edge: _edge(edge, number) for edge, number in value.items()}
    if name in ("patch_size", "encoder_patch_size") and value is not None:
        return dict.fromkeys(value, PATCH) if isinstance(value, dict) else PATCH
    if name == "min_pixels" and value is not None:
        return PIXELS[0]
    if name == "max_pixels" and value is not None:
        return PIXELS[1]
    if name in ("image_grid_pinpoints",):
        return [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]
    if name in ("image_mean", "image_std") and isinstance(value, list):
        return [0.5] * len(value)
    if name in ("crop_to_patches", "do_image_splitting"):
        return False
    if name in ("min_image_size", "image_size") and isinstance(value, int):
        return SIDE
    return value


def _edge(name: str, number: Any) -> Any:
    if not isinstance(number, int):
        return number
    if number > 4 * 980:  # not an edge but how many pixels there are in all
        return PIXELS[0] if "shortest" in name or "min" in name else PIXELS[1]
    return SIDE


def processor_settings(family: type, config: Any) -> dict[str, Any]:
    """What a processor's own settings are for this configuration."""
    vision = getattr(config, "vision_config", None) or config
    tokens = (SIDE // PATCH) ** 2
    known = {
        "patch_size": PATCH,
        "image_seq_length": tokens,
        "image_seq_len": tokens,
        "num_image_tokens": tokens,
        "img_size": SIDE,
        "image_size": SIDE,
        "spatial_merge_size": getattr(config, "spatial_merge_size", 1),
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_additional_image_tokens": int("clip" in str(getattr(vision, "model_type", ""))),
    }
    parameters = inspect.signature(family.__init__).parameters
    found = {name: value for name, value in known.items() if name in parameters and value is not None}
    return {"processor_class": family.__name__, **found}


def with_ids(settings: Mapping[str, Any], words: "CensusWords", processor: Any) -> dict[str, Any]:
    """A configuration's settings with the ids that its tokens have in this vocabulary."""
    ends = {"bos_token_id": "<s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name in ("id2label", "label2id"):
            continue
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            found[name] = with_ids(value, words, processor)
        elif name in ends:
            found[name] = words[ends[name]]
        elif re.fullmatch(r"\w+_token_(id|index)|\w+_(patch|pad|line_break)_id", name) and not isinstance(value, list):
            found[name] = _id(name, words, processor)
        else:
            found[name] = value
    return found


def _id(name: str, words: "CensusWords", processor: Any) -> int:
    """Of a token that a configuration names: the processor's of that name, else the mark that is called so."""
    stem = re.sub(r"_(token_)?(id|index)$", "", name)
    for attribute in (f"{stem}_token_id", f"{stem}_token_ids", f"{stem}_id"):
        known = getattr(processor, attribute, None)
        if isinstance(known, int):
            return known
    text = getattr(processor, f"{stem}_token", None)
    if isinstance(text, str) and text in words.tokenizer.get_vocab():
        return words[text]
    marks = words.tokenizer.get_added_vocab()
    alike = [mark for mark in marks if re.sub(r"\W", "", mark).lower() == re.sub(r"\W", "", stem).lower()]
    if alike:
        return marks[alike[0]]
    return words.unused(stem)


class CensusWords(Words):
    """`Words` with room for tokens that a configuration names and no processor reads."""

    SPARE = 12

    def __init__(self, marks: Mapping[str, str], plain: tuple[str, ...] = ()) -> None:
        self.spare = {f"<|spare_{number}|>": "" for number in range(self.SPARE)}
        super().__init__(marks, (*plain, *self.spare))

    def save(self, folder: Path, template: str | None, **more: Any) -> None:
        """The tokenizer's files. more: settings of tokenizer_config.json."""
        super().save(folder, template)
        file = folder / "tokenizer_config.json"  # the built-in tokenizer's own mark for a picture is no other family's
        settings = json.loads(file.read_text())
        for name in ("model_specific_special_tokens", "padding_side"):
            settings.pop(name, None)
        file.write_text(json.dumps(settings | more))

    def unused(self, stem: str) -> int:
        """The id of a token that stands for nothing else."""
        mark = next(mark for mark, taken in self.spare.items() if taken in ("", stem))
        self.spare[mark] = stem
        return self[mark]


def write_template(folder: Path, picture: str) -> None:
    """A chat template that writes this for a picture."""
    (folder / "chat_template.jinja").write_text(TEMPLATE.format(mark=picture))
