"""A small random model of any family of transformers, in the family's own files, by rule; no network.

What no rule gives is in `census_settings`.
"""

import json
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from census_files import (
    CannotBeBuilt,
    CensusWords,
    image_class,
    image_processor_name,
    image_processor_settings,
    marks_of,
    processor_class,
    processor_settings,
    with_ids,
    write_template,
)
from census_settings import Settings, settings_of
from census_shapes import made_of, merged, small_config
from random_models import fill_weights
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from hones import attach, load_vlm
from hones.errors import HonesError, seam
from hones.models.finding import FACTORS, find_anatomy
from hones.models.processors import load_processor, picture_processor
from hones.models.vlm import VLM

QFORMER = "qformer_tokenizer"
PARTS = ("feature_extractor", "image_processor", "video_processor", "tokenizer")


def load(model_type: str, folder: Path) -> VLM:
    """The small model of this type, as a user loads it.

    Raises:
        CannotBeBuilt: why it cannot be had here.
        HonesError: why it is not served.
    """
    own = settings_of(model_type)
    build(model_type, folder)
    if own.stand_in is None:
        return load_vlm(str(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    find_anatomy(model)
    return attach(model_type, model, stood_in(model_type, own, folder))


def stood_in(model_type: str, own: Settings, folder: Path) -> Any:
    """The family's own processor around a stand-in for its image processor."""
    pictures = image_class(own.stand_in or "").from_pretrained(folder)
    for name, value in own.pictures.items():
        setattr(pictures, name, value)
    made: Any = picture_processor(processor_class(model_type, own.processor_class))
    parts = {
        "image_processor": pictures,
        "video_processor": pictures,
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
    }
    named = [name for name in signature(made.__init__).parameters if name in PARTS]
    processor = made(**{name: parts.get(name) for name in named})
    processor.chat_template = (folder / "chat_template.jinja").read_text()
    return processor


def build(model_type: str, folder: Path) -> Path:
    """A vision-language model of this type with its processor's files.

    Raises:
        CannotBeBuilt: why not.
        HonesError: why it would not be served, where its processor cannot be had.
    """
    own = settings_of(model_type)
    try:
        if why := own.why_not():
            raise CannotBeBuilt(why)
        family = processor_class(model_type, own.processor_class)
        image_processor = own.stand_in or image_processor_name(model_type, own.image_processor_class)
    except CannotBeBuilt:
        _check_served(model_type, own)
        raise
    for name, value in own.of_class.items():
        setattr(family, name, value)
    named, plain = marks_of(family)
    named = {name: text for name, text in {**named, **own.marks}.items() if name not in own.without}
    words = CensusWords(named, (*plain, *own.plain))
    more = own.config_for(words)
    folder.mkdir(parents=True, exist_ok=True)
    words.save(folder, None)
    if QFORMER in signature(family.__init__).parameters:
        words.save(folder / QFORMER, None, padding_side="right")
    image_processor_settings(image_processor, folder, own.image_processor)
    config = small_config(model_type, len(words.tokenizer), more)
    settings = merged(processor_settings(family, config), own.processor)
    (folder / "processor_config.json").write_text(json.dumps(settings))
    write_template(folder, "")
    try:
        processor = stood_in(model_type, own, folder) if own.stand_in else load_processor(str(folder), model_type)
    except HonesError:  # loading the model says so
        processor = None
    mark = own.picture if own.picture is not None else getattr(processor, "image_token", None) or "<image>"
    write_template(folder, mark)
    config = made_of(model_type, merged(with_ids(config.to_dict(), words, processor), more))
    save_model(AutoModelForImageTextToText, config, words, folder)
    return folder


def _check_served(model_type: str, own: Settings) -> None:
    """Raises HonesError where a model without a processor is refused for what it is."""
    words = CensusWords({}, own.plain)
    try:
        with seam(f"build a {model_type}"):
            config = small_config(model_type, len(words.tokenizer), own.config_for(words))
            model = AutoModelForImageTextToText.from_config(config)
    except HonesError:  # a package is missing, or no class of transformers is known: what was said already stands
        return
    find_anatomy(model)


def build_text(model_type: str, folder: Path) -> Path:
    """A causal language model of this type with a tokenizer and a chat template."""
    own = settings_of(model_type)
    if why := own.why_not():
        raise CannotBeBuilt(why)
    words = CensusWords({})
    more = own.config_for(words)
    folder.mkdir(parents=True, exist_ok=True)
    words.save(folder, None)
    write_template(folder, "")
    config = small_config(model_type, len(words.tokenizer), more)
    config = made_of(model_type, merged(with_ids(config.to_dict(), words, None), more))
    save_model(AutoModelForCausalLM, config, words, folder)
    return folder


def save_model(auto: Any, config: Any, words: CensusWords, folder: Path) -> None:
    """The model of a configuration, with random weights."""
    torch.manual_seed(0)
    model: PreTrainedModel = auto.from_config(config)
    fill_weights(model)
    for name, number in model.named_buffers():
        if name.endswith(FACTORS):
            number.fill_(0.7)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=words["</s>"], pad_token_id=words["<pad>"], bos_token_id=words["<s>"]
        )
    model.save_pretrained(folder)
