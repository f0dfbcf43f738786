"""README.md of an export: a model card with the hub's front matter, written from the manifest alone.

What the run did not record is said to be absent; figures are never made up.
"""

from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from hones.models.planted import CONSTRUCTED, PLANTS, load_plant
from hones.sharing.manifest import Manifest

LIBRARY = {"merged": "transformers", "ia3": "peft", "lora": "peft", "json": "hones"}


def card(manifest: Manifest) -> str:
    """The whole README.md."""
    kind = "vision-language" if manifest.pictures else "language-model"
    tags = ["hones", "steering", kind, f"hones-{manifest.format}", manifest.task, manifest.method]
    on_hub: dict[str, Any] = {}
    if manifest.kind == "hub":
        relation = "finetune" if manifest.format == "merged" else "adapter"
        on_hub = {"base_model": manifest.model, "base_model_relation": relation}
    front = ModelCardData(
        library_name=LIBRARY[manifest.format],
        pipeline_tag="image-text-to-text" if manifest.pictures else "text-generation",
        license=manifest.license or "other",
        license_name=None if manifest.license else "unknown",
        tags=[tag for tag in tags if tag],
        **on_hub,
    )
    environment = Environment(
        loader=PackageLoader("hones.sharing"),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    planted_in = load_plant(manifest.model).base if manifest.model in (*PLANTS, *CONSTRUCTED) else None
    return environment.get_template("card.md.j2").render(m=manifest, front=front.to_yaml(), planted_in=planted_in)
