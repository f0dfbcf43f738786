"""What stands for a model's configuration, or for annotations, that are not there when a run is planned.

A model of the paper whose configuration cannot be read has the shapes that are published; its prompts are counted by
the tokenizer of the built-in model of its family, whose few words make them longer. Annotations of the built-in
pictures stand for those of COCO, on pictures of the usual size. Both are said in the plan.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hones.data.items import Items, load_items
from hones.data.shapes.files import annotate
from hones.data.shapes.scene import make_scene
from hones.data.sources import Source, exists
from hones.data.unified import Item
from hones.errors import HonesError
from hones.models.loading import source_of
from hones.models.processors import load_processor
from hones.models.vlm import VLM
from hones.runs.plan.lengths import SAMPLE
from hones.runs.plan.request import Request
from hones.runs.plan.shapes import weightless, weightless_of
from hones.tasks import is_custom


@dataclass(frozen=True)
class Known:
    """Published shapes. built_in: the model of the same family. patch: side of a picture's patch. size, crop: what the
    family's image processor makes of a picture.
    """

    built_in: str
    text: dict[str, Any]
    vision: dict[str, Any]
    patch: int
    size: dict[str, int]
    crop: dict[str, int] | None = None


KNOWN = {
    "llava-hf/llava-1.5-7b-hf": Known(
        built_in="tiny-llava",
        text={
            "model_type": "llama",
            "vocab_size": 32064,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
        vision={
            "model_type": "clip_vision_model",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        patch=14,
        size={"shortest_edge": 336},
        crop={"height": 336, "width": 336},
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Known(
        built_in="tiny-qwen2.5-vl",
        text={
            "model_type": "qwen2_5_vl_text",
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        vision={
            "model_type": "qwen2_5_vl_vision",
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        patch=14,
        size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16384},
    ),
}


def planned_model(request: Request) -> tuple[VLM, list[str]]:
    """The model that is planned for, without weights, and what had to be assumed of it.

    Raises:
        HonesError: as `weightless`, for a model whose shapes are not known here.
    """
    name = request.model
    try:
        options: dict[str, Any] = {
            "trust_remote_code": request.trust_remote_code,
            "chat_template": request.chat_template,
        }
        return weightless(name, revision=request.revision, **options), []
    except HonesError as error:
        if name not in KNOWN or not isinstance(error.__cause__, OSError):
            raise
        known = KNOWN[name]
    said = f"the configuration of {name} could not be read; its shapes are those published, its prompts are counted by "
    return weightless_of(name, *_published(known), request.chat_template), [
        f"{said}the tokenizer of {known.built_in}, which makes them longer"
    ]


def _published(known: Known) -> tuple[Any, Any]:
    """The configuration, and a processor in place of the model's own."""
    source = source_of(known.built_in)
    of_family = AutoConfig.from_pretrained(source)
    config = AutoConfig.for_model(
        of_family.model_type,
        text_config=known.text,
        vision_config=known.vision,
        image_token_id=of_family.image_token_id,
        tie_word_embeddings=False,
    )
    processor: Any = load_processor(source, of_family.model_type)
    of_pictures = processor.image_processor
    of_pictures.size = known.size
    of_pictures.patch_size = processor.patch_size = known.patch
    if known.crop is not None:
        of_pictures.crop_size = known.crop
    return config, processor


def planned_items(request: Request, split: str, file: Path) -> tuple[Items, list[str]]:
    """The items of a split, and what had to be assumed of them.

    Raises:
        HonesError: as `load_items`; so for a file that is not there where nothing stands in, the number of its items is
            open, or a task is not one of the four.
    """
    images = request.steering.ood_images if split == "ood" else request.data.images
    source = Source.parse(file)
    if request.stand_in and images is not None and not images.is_dir():
        images = None  # whoever measures the pictures says that they are not there
    known = getattr(request.limit, split) is not None and not any(is_custom(name) for name in request.tasks)
    if not (request.stand_in and known) or source.hub or exists(source.path):
        return load_items(file, images=images), []
    rows = [annotate(make_scene(f"plan/{number}"), number, f"{number}.png") for number in range(1, SAMPLE + 1)]
    unknown = [row | {"image_info": {"file_name": row["image_info"]["file_name"]}} for row in rows]
    items = Items(tuple(Item.model_validate(row) for row in unknown), Path(), "")
    return items, [
        f"{split}: {file} is not there; questions and captions are as long as those of the built-in pictures"
    ]
