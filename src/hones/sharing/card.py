"""README.md of an export: a model card with the hub's front matter, written from the manifest alone.

What the run did not record is said to be absent; figures are never made up.
"""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from hones.models.planted import PLANTS, load_plant
from hones.sharing.manifest import Manifest, Split
from hones.stats import Interval

LIBRARY = {"merged": "transformers", "ia3": "peft", "lora": "peft", "json": "hones"}
WHAT = {
    "merged": "a plain checkpoint: the columns of the language model's `down_proj` are multiplied by 1 + s",
    "ia3": "a PEFT (IA)3 adapter: the input of the language model's `down_proj` is multiplied by 1 + s",
    "lora": "a PEFT LoRA adapter that is exactly the scaled model: A picks the scaled neurons, B holds s times their "
    "columns of `down_proj`",
    "json": "the scales s under a header, for use with hones",
}
ABSENT = "not recorded with the scales"


def card(manifest: Manifest) -> str:
    """The whole README.md."""
    title = (
        " ".join(x for x in (manifest.model, "steered for", manifest.task) if x) if manifest.task else manifest.model
    )
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(manifest), sort_keys=False)}---",
        f"# {title}, scaled neurons ({manifest.format})",
        f"This is {WHAT[manifest.format]}. {_size(manifest)}",
        f"## What it was made from\n\n{_table(_facts(manifest))}",
        f"## Measured\n\n{_measured(manifest)}",
        f"## How to load it\n\n{_how_to_load(manifest)}",
        f"## Check at export\n\n{_checked(manifest)}",
        f"## Licence\n\n{_license(manifest)}",
        "Made with hones: the HONES method of Wang, Hu and Jiang (arXiv 2604.17941). `scales.json` holds every scale.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(manifest: Manifest) -> dict[str, Any]:
    """What the hub reads. A base model is named only where it is on the hub."""
    matter: dict[str, Any] = {}
    if manifest.kind == "hub":
        relation = {"merged": "finetune", "json": "adapter", "ia3": "adapter", "lora": "adapter"}
        matter |= {"base_model": manifest.model, "base_model_relation": relation[manifest.format]}
    pipeline = "image-text-to-text" if manifest.pictures else "text-generation"
    matter |= {"library_name": LIBRARY[manifest.format], "pipeline_tag": pipeline}
    matter |= {"license": manifest.license or "other"}
    if manifest.license is None:
        matter |= {"license_name": "unknown"}
    kind = "vision-language" if manifest.pictures else "language-model"
    tags = ["hones", "steering", kind, f"hones-{manifest.format}", manifest.task, manifest.method]
    return matter | {"tags": list(dict.fromkeys(tag for tag in tags if tag))}


def _size(manifest: Manifest) -> str:
    total = manifest.layers * manifest.neurons_per_layer
    rank = f" Rank {manifest.rank}." if manifest.rank is not None else ""
    largest = f"the largest scale is {manifest.largest_scale:+.4g}, a factor of {1 + manifest.largest_scale:.4g}"
    return (
        f"{manifest.scaled_neurons} of {total} neurons are scaled, in {manifest.scaled_layers} of {manifest.layers} "
        f"layers; {largest}.{rank}"
    )


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    settings = ", ".join(f"{name} {value}" for name, value in manifest.settings.items())
    return [
        ("Base model", _base_model(manifest)),
        ("Its revision", manifest.revision or "unknown"),
        ("Task", manifest.task or ABSENT),
        ("Method", manifest.method or ABSENT),
        ("Learned on", _split(manifest.learned_on)),
        ("Tested on", _split(manifest.tested_on)),
        ("Settings", settings or ABSENT),
        ("Weights in", manifest.dtype),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]


def _base_model(manifest: Manifest) -> str:
    if manifest.kind != "built-in":
        return manifest.model
    planted = f": {load_plant(manifest.model).base} with planted neurons" if manifest.model in PLANTS else ""
    return f"{manifest.model}, built into hones{planted}"


def _split(split: Split | None) -> str:
    if split is None:
        return ABSENT
    digest = f", SHA-256 {split.data[:16]}" if split.data else ""
    return f"{split.items} items of {split.file or 'items in memory'}{digest}"


def _measured(manifest: Manifest) -> str:
    parts = [_tested(manifest)]
    if manifest.figures:
        rows = [
            (
                f.what,
                f.metric,
                str(f.items),
                *(_level(value, False) for value in (f.base, f.steered)),
                _level(f.gain, True),
            )
            for f in manifest.figures
        ]
        heads = ("Scales of", "metric", "items", "without", "with", "gain, paired")
        parts.append(
            f"Beside other ways to steer, on other data and other tasks (means over seeds):\n\n{_table(rows, heads)}"
        )
    return "\n\n".join(parts)


def _tested(manifest: Manifest) -> str:
    metric = manifest.metric
    if metric is None:
        return "No test figures were recorded with these scales: what they alone gain is not known here."
    rows = [("Without the scales", metric.base), ("With the scales", metric.steered), ("Gain, paired", metric.gain)]
    table = _table([(name, _level(value, signed=name.startswith("Gain"))) for name, value in rows])
    return f"{metric.name} on {metric.items} test items, 95 % bootstrap intervals:\n\n{table}"


def _level(interval: Interval, signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{interval.value:{sign}.4f} [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _checked(manifest: Manifest) -> str:
    check = manifest.check
    if check is None:
        return "Not checked (`--no-check`)."
    text = (
        f"Loaded again and compared with the hooked model in {check.dtype} on {check.positions} positions of probe "
        f"prompts: the largest deviation is {check.deviation:.3g} logits (allowed {check.tolerance:.3g}); the scales "
        f"themselves move logits by up to {check.effect:.3g}, the largest logit is {check.largest_logit:.3g}."
    )
    if manifest.format == "merged":
        text += " Every weight was read back bit-equal to what was written, every input of the processor to the base's."
    elif check.effect <= check.tolerance:
        text += " The scales move the probe by no more than is allowed: export in float32 for a sharper check."
    return text


def _license(manifest: Manifest) -> str:
    if manifest.license is not None:
        return f"`{manifest.license}`, as the base model says."
    return "Unknown: the base model names none that could be read. Find it before you pass this on."


def _how_to_load(manifest: Manifest) -> str:
    code = {"merged": _merged_code, "ia3": _adapter_code, "lora": _adapter_code, "json": _json_code}[manifest.format]
    parts = [f"```python\n{code(manifest)}\n```"]
    asked = '--image photo.jpg "What is this?"' if manifest.pictures else '"What is a lighthouse?"'
    if manifest.format == "merged":
        reader = (
            "Its processor: `transformers.AutoProcessor"
            if manifest.pictures
            else "Its tokenizer: `transformers.AutoTokenizer"
        )
        parts.append(f"{reader}.from_pretrained(folder)`. With hones: `hones ask --model FOLDER {asked}`.")
    else:
        parts.append(f"The {'processor' if manifest.pictures else 'tokenizer'} is the base model's.")
    if manifest.format == "lora":
        parts.append(
            "Servers that swap LoRA adapters, for example vLLM with `--enable-lora` and a `--max-lora-rank` of at least"
            f" {manifest.rank}, can serve it beside the base model if they take adapters on `down_proj` (not tried)."
        )
    if manifest.format == "json":
        parts.append(f"Or: `hones ask --model BASE --scales scales.json {asked}`.")
    return "\n\n".join(parts)


def _auto_model(manifest: Manifest) -> str:
    return "AutoModelForImageTextToText" if manifest.pictures else "AutoModelForCausalLM"


def _merged_code(manifest: Manifest) -> str:
    return f"""from transformers import {_auto_model(manifest)}

folder = "."  # this folder, or the id of its repository on the hub
model = {_auto_model(manifest)}.from_pretrained(folder, dtype={json.dumps(manifest.dtype)})"""


def _adapter_code(manifest: Manifest) -> str:
    imports = ["from peft import PeftModel", f"from transformers import {_auto_model(manifest)}"]
    revision = f", revision={json.dumps(manifest.commit)}" if manifest.commit else ""
    base = f"{_auto_model(manifest)}.from_pretrained(base_model{revision})"
    if manifest.kind == "built-in":
        imports = ["import hones", "from peft import PeftModel"]
        base = 'hones.load_vlm(base_model, dtype="float32").model'
    return f"""{chr(10).join(imports)}

base_model = {json.dumps(manifest.model)}{_where(manifest)}
base = {base}
folder = "."  # this folder, or the id of its repository on the hub
model = PeftModel.from_pretrained(base, folder)"""


def _json_code(manifest: Manifest) -> str:
    revision = f", revision={json.dumps(manifest.commit)}" if manifest.commit else ""
    return f"""from pathlib import Path

import hones

base_model = {json.dumps(manifest.model)}{_where(manifest)}
vlm = hones.load_vlm(base_model{revision})
scales, _ = hones.scales_for(vlm, Path("scales.json"))
with hones.scale_neurons(vlm.model, scales.values):
    ...  # vlm.model is steered here"""


def _where(manifest: Manifest) -> str:
    """The comment after the name of a base model that is not on the hub."""
    if manifest.kind == "hub":
        return ""
    if manifest.kind == "built-in":
        return "  # built into hones"
    digest = f", whose files have the digest {manifest.revision}" if manifest.revision else ""
    return f"  # the folder of the base model{digest}"


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str] = ("", "")) -> str:
    cells = [[" ".join(cell.split()).replace("|", "/") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *cells])
