"""README.md of an export: a model card with the hub's front matter, written from the manifest alone.

What the run did not record is said to be absent; figures are never made up.
"""

import json
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from hones.models.planted import PLANTS, load_plant
from hones.sharing.manifest import Manifest

WHAT = {
    "merged": "a plain checkpoint: the columns of the language model's `down_proj` are multiplied by 1 + s",
    "ia3": "a PEFT (IA)3 adapter: the input of the language model's `down_proj` is multiplied by 1 + s",
    "lora": "a PEFT LoRA adapter that is exactly the scaled model: A picks the scaled neurons, B holds s times their "
    "columns of `down_proj`",
    "json": "the scales s under a header, for use with hones",
}
LIBRARY = {"merged": "transformers", "ia3": "peft", "lora": "peft", "json": "hones"}


def card(manifest: Manifest) -> str:
    """The whole README.md."""
    environment = Environment(
        loader=PackageLoader("hones.sharing"),
        autoescape=False,  # Markdown
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=_cell, quoted=json.dumps)
    return (
        environment.get_template("card.md.j2")
        .render(
            m=manifest,
            front=_front_matter(manifest).to_yaml(),
            what=WHAT[manifest.format],
            base=_base(manifest),
            where=_where(manifest),
            revision=f", revision={json.dumps(manifest.commit)}" if manifest.commit else "",
            auto_model="AutoModelForImageTextToText" if manifest.pictures else "AutoModelForCausalLM",
            absent="not recorded with the scales",
        )
        .lstrip()
    )


def _front_matter(manifest: Manifest) -> ModelCardData:
    """What the hub reads. A base model is named only where it is on the hub."""
    kind = "vision-language" if manifest.pictures else "language-model"
    tags = ["hones", "steering", kind, f"hones-{manifest.format}", manifest.task, manifest.method]
    base: dict[str, Any] = {}
    if manifest.kind == "hub":
        relation = "finetune" if manifest.format == "merged" else "adapter"
        base = {"base_model": manifest.model, "base_model_relation": relation}
    return ModelCardData(
        library_name=LIBRARY[manifest.format],
        pipeline_tag="image-text-to-text" if manifest.pictures else "text-generation",
        license=manifest.license or "other",
        license_name=None if manifest.license else "unknown",
        tags=list(dict.fromkeys(tag for tag in tags if tag)),
        **base,
    )


def _base(manifest: Manifest) -> str:
    """The base model, and what a built-in one is."""
    if manifest.kind != "built-in":
        return manifest.model
    planted = f": {load_plant(manifest.model).base} with planted neurons" if manifest.model in PLANTS else ""
    return f"{manifest.model}, built into hones{planted}"


def _where(manifest: Manifest) -> str:
    """The comment behind the name of a base model that is not on the hub."""
    if manifest.kind == "hub":
        return ""
    if manifest.kind == "built-in":
        return "  # built into hones"
    digest = f", whose files have the digest {manifest.revision}" if manifest.revision else ""
    return f"  # the folder of the base model{digest}"


def _cell(text: str) -> str:
    """A text that stays inside its cell of a table."""
    return " ".join(text.split()).replace("|", "/")
