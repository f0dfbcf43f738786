"""Loading a model: a hub id, a local folder, or one of the built-in or planted models.

Pictures are prepared by PIL wherever transformers has a form of the family's image processor for it, with torchvision
installed or not: the two resize differently, and a run gives the same on every machine. Where it has none, torchvision
prepares them, which is said. Which of them does is recorded.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging
from transformers.utils.hub import cached_file, extract_commit_hash

from hones.errors import BadItem, HonesError
from hones.log import remark
from hones.models.agreement import check_parts, check_weights
from hones.models.conventions import find_conventions
from hones.models.dtypes import DTYPES, device_named, dtype_named
from hones.models.files import check_files, former_revision_of, revision_of
from hones.models.finding import find_anatomy
from hones.models.head import find_after_head
from hones.models.place import BUILT_IN, check_place, folder_of
from hones.models.plain import check_plain
from hones.models.planted import CONSTRUCTED, CONSTRUCTED_FOLDER, PLANTS, apply_difference, load_plant, load_recipe
from hones.models.planted import FOLDER as PLANTED_FOLDER
from hones.models.planted.widen import widened
from hones.models.probe import check_edits, check_padding, find_answer_tokens, probe_inputs
from hones.models.processors import TextProcessor, is_causal, loading, name_picture_token, processor_for
from hones.models.rows import placed_by_row
from hones.models.vlm import VLM
from hones.models.wordings import given_text

BAR_FROM = 2 * 2**30  # bytes of a folder


def load_vlm(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
) -> VLM:
    """Load a model and check it.

    Args:
        name: `tiny-llava`, `tiny-qwen2.5-vl`, `tiny-text`, one of `hones.models.planted`'s PLANTS or CONSTRUCTED,
            `smol-llava` (`hones models get`), a local folder or a hub id.
        dtype: float32, bfloat16, float16; auto: float32 on a CPU, bfloat16 on a GPU; fast: bfloat16 where the device
            has units for it (`hones.models.dtypes`).
        device: a torch device; auto: the GPU if there is one.
        revision: branch, tag or commit on the hub; the commit that it stands for is loaded and recorded.
        device_map: "auto" to spread the layers over all devices, or which part goes where; in place of `device`.
        attn_implementation: of transformers, such as eager, sdpa or flash_attention_2; by default the model's own.
        trust_remote_code: run the model's own code from the hub.
        chat_template: in place of the model's own: a file with a Jinja template, or llava-1.5 for the paper's wording.

    Raises:
        HonesError: no such model, an unsupported one, files that are not what their names say, weights that config.json
            contradicts, a chat template that cannot be used, or an edit that changes nothing.
    """
    if device_map is not None and device != "auto":
        raise HonesError(f"device {device!r} and a device_map", expected="one of them")
    device = device_named(device)
    dtype = dtype_named(dtype, device)
    check_place(name)
    if chat_template is not None:
        given_text(chat_template)  # a bad file is named before a model is loaded
    source = source_of(name)
    if Path(source).is_dir():
        check_files(Path(source), trust_remote_code)
    try:
        place = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise HonesError(f"no device {device!r}", expected="cpu, cuda or cuda:N", do=said) from error
    pool = ThreadPoolExecutor(1)
    digest = pool.submit(_digest, name, trust_remote_code)  # beside loading: it reads every byte too
    pool.shutdown(wait=False)
    known = f"{', '.join(BUILT_IN)}, a folder with an image-text-to-text or causal language model, a hub id"
    remedy = "check the spelling, the folder or the network"
    with _bar(source), loading(f"the model {name!r}", expected=known, do=remedy, source=source):
        commit = _commit(source, revision)
        hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, **({"revision": commit} if commit else {})}
        config = AutoConfig.from_pretrained(source, **hub)
        check_parts(Path(source), config)
        if device_map is None and getattr(config, "quantization_config", None) is not None:
            device_map = {"": place}  # packed weights cannot be moved afterwards
        asked = {"device_map": device_map, "attn_implementation": attn_implementation}
        options = {option: value for option, value in asked.items() if value is not None}
        model, report = auto_model(config).from_pretrained(
            source,
            config=config,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by name below
            **options,
            **hub,
        )
    check_weights(name, model, report)
    model = model.to(place) if device_map is None else model
    if name in PLANTS:
        apply_difference(model, Path(source) / "model.safetensors", PLANTED_FOLDER / f"{name}.safetensors")
    if (recipe := load_recipe(name)) is not None:
        model = widened(model, recipe)
    find_anatomy(model)  # a family that is not served is named before its processor is asked for
    processor = processor_for(source, model.config, **hub)
    return attach(name, model, processor, digest.result() or commit or "unknown", chat_template)


def _commit(source: str, revision: str | None) -> str | None:
    """The commit that a revision on the hub stands for now; of a folder the revision as it is."""
    if Path(source).is_dir():
        return revision
    return extract_commit_hash(cached_file(source, "config.json", revision=revision), None) or revision


def attach(
    name: str,
    model: PreTrainedModel,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    revision: str = "",
    chat_template: str | None = None,
) -> VLM:
    """A VLM from a model and a processor that are loaded already, checked as `load_vlm` does.

    With a tokenizer in place of a processor the model is a text-only one.

    The model may be quantised or spread over several devices; it is put into evaluation mode, and the tokenizer pads on
    the left from here on (one without a padding token is given one: its end token, or else any). A model that numbers
    pictures through a batch numbers them in each row (`hones.models.rows`). Nothing else about either is changed. The
    chat template is the one that processor and tokenizer have now: one that is set in Python counts, one that is set
    afterwards does not.

    Args:
        name: what errors and run.json call the model. revision: recorded in run.json. chat_template: as `load_vlm`.

    Raises:
        HonesError: as `load_vlm`, or the processor has no tokenizer or image processor.
    """
    check_plain(name, model)
    if isinstance(processor, PreTrainedTokenizerBase):
        processor = TextProcessor(processor)
    shows_pictures = not isinstance(processor, TextProcessor)
    for part in ("tokenizer", "image_processor") if shows_pictures else ("tokenizer",):
        if not hasattr(processor, part):
            raise HonesError(f"{name}: {type(processor).__name__} has no {part}", expected="a family's processor")
    if shows_pictures:
        name_picture_token(name, model.config, processor)
    offloaded = next((n for n, p in model.named_parameters() if p.device.type == "meta"), None)
    if offloaded is not None and all(p.device.type == "meta" for p in model.parameters()):
        raise HonesError(f"{name}: it has no weights (meta)", expected="what from_pretrained gives")
    if offloaded is not None:
        raise HonesError(
            f"{name}: {offloaded} is not on any device (offloaded)",
            expected="all weights in memory",
            do="use more devices, a smaller dtype or a quantised checkpoint",
        )
    model.eval()
    anatomy = find_anatomy(model)
    conventions = find_conventions(name, model, processor, chat_template)
    conventions.say(name)
    try:
        inputs = probe_inputs(model, processor, conventions.template)
    except BadItem as error:  # of a prompt of ours: not the prompt's fault
        raise HonesError(f"{name}: {error}", expected="a model's own processor") from error
    with placed_by_row(model) as changed:
        answers = find_answer_tokens(name, model, processor, inputs)
    if changed:
        answers = find_answer_tokens(name, model, processor, inputs)
    backend = "none"
    if shows_pictures:
        kind = type(processor.image_processor).__name__  # pyright: ignore[reportAttributeAccessIssue]
        backend = "pil" if kind.endswith("Pil") else "torchvision"
        if getattr(processor.image_processor, "backend", None) == "torchvision":  # pyright: ignore
            remark(f"{name}: pictures are prepared by torchvision ({kind}), which resizes otherwise than PIL")
    vlm = VLM(name, model, processor, anatomy, revision, backend, answers, conventions)
    vlm.after_head = find_after_head(model, anatomy.lm_head, inputs)
    of_one = probe_inputs(model, processor, conventions.template, prompts=1)
    layers = check_edits(vlm, of_one)
    check_padding(vlm, of_one)
    vlm.no_write_in = next((layer.problem for layer in layers if layer.problem is not None), None)
    return vlm


def source_of(name: str) -> str:
    """The folder of a built-in model; other names as they are."""
    built_in = folder_of(load_plant(name).base if name in (*PLANTS, *CONSTRUCTED) else name)
    return name if built_in is None else str(built_in)


@contextmanager
def _bar(source: str) -> Iterator[None]:
    """transformers' bar of the weights, unless they are on this machine and load at once."""
    folder = Path(source)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else BAR_FROM
    hidden = size < BAR_FROM and logging.is_progress_bar_enabled()
    if hidden:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if hidden:
            logging.enable_progress_bar()


def auto_model(config: Any) -> Any:
    """The class of transformers that loads a model of this configuration with its lm_head."""
    return AutoModelForCausalLM if is_causal(config) else AutoModelForImageTextToText


def _digest(name: str, code: bool) -> str | None:
    """Of the files of a local folder that make the model; None for a model of the hub."""
    folder = Path(source_of(name))
    return revision_of(folder, _difference(name), code) if folder.is_dir() else None


def former_digest(name: str) -> str | None:
    """As versions before this one took it, of all files of the folder; None for a model of the hub."""
    folder = Path(source_of(name))
    return former_revision_of(folder, _difference(name)) if folder.is_dir() else None


def _difference(name: str) -> list[Path]:
    """What makes a planted model of its base."""
    if name in CONSTRUCTED:
        return [CONSTRUCTED_FOLDER / f"{name}.json"]
    return [PLANTED_FOLDER / f"{name}.safetensors"] if name in PLANTS else []
