"""What the families' builders share: a family's files on disk, the built-in tokenizer with its marks, small shapes.

Every folder holds config, safetensors, tokenizer, chat template and image processor, as on the hub; three layers, width
32, 4 heads of width 8, 24 neurons.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from random_models import fill_weights
from transformers import AutoTokenizer, PreTrainedModel

from hones.models.loading import auto_model
from hones.models.place import BUILT_IN_FOLDER

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CLIP_VISION = {"model_type": "clip_vision_model", "projection_dim": 16, **VISION}
SIGLIP_VISION = {"model_type": "siglip_vision_model", **VISION}
PIXELS = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"size": {"height": 32, "width": 32}, **PIXELS}
TEMPLATE = (
    "{{% for m in messages %}}USER: {{% for part in m['content'] %}}{{% if part['type'] == 'image' %}}{mark}\n"
    "{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}\n{{% endfor %}}ASSISTANT:"
)


class Words:
    """The built-in tokenizer with a family's own marks, which are attributes of it (`image_token`) where named so."""

    def __init__(self, marks: Mapping[str, str], plain: tuple[str, ...] = ()) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(BUILT_IN_FOLDER / "tiny-llava")
        self.marks = dict(marks)
        self.tokenizer.add_special_tokens({"additional_special_tokens": [*marks.values(), *plain]})

    def __getitem__(self, token: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(token)

    def text(self, model_type: str, **more: Any) -> dict[str, Any]:
        """The settings of a text model with this vocabulary."""
        ends = {"bos_token_id": self["<s>"], "eos_token_id": self["</s>"], "pad_token_id": self["<pad>"]}
        return {"model_type": model_type, "vocab_size": len(self.tokenizer), **ends, **SHAPE, **more}

    def save(self, folder: Path, template: str | None) -> None:
        self.tokenizer.save_pretrained(folder)
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text()) | {"extra_special_tokens": self.marks}
        for name in ("processor_class", "image_token", "additional_special_tokens"):
            settings.pop(name, None)
        file.write_text(json.dumps(settings | self.marks))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)


def save(
    folder: Path,
    config: dict[str, Any],
    words: Words,
    *,
    picture: str,
    image_processor: dict[str, Any],
    processor: dict[str, Any],
    template: bool = True,
) -> Path:
    """A model of this configuration with random weights, and its processor's files.

    picture: what the chat template writes for a picture.
    """
    settings = dict(config)
    made = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    model: PreTrainedModel = auto_model(made).from_config(made)
    fill_weights(model)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = words["</s>"]
    model.generation_config.pad_token_id = words["<pad>"]
    model.save_pretrained(folder)
    words.save(folder, TEMPLATE.format(mark=picture) if template else None)
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder
