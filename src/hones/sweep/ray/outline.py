"""The driver's model: processor, shapes and settings of the replicas, its weights nowhere (torch's meta device).

A driver prepares items, cuts shards and adds results; it computes nothing with the model, so it needs no GPU and no
memory for it.
"""

from dataclasses import dataclass, field

import torch
from transformers import AutoConfig

from hones.models.conventions import pad_with
from hones.models.dtypes import DTYPES
from hones.models.finding import find_anatomy
from hones.models.loading import auto_model, source_of
from hones.models.planted import config_of
from hones.models.processors import processor_for
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.sweep.ray.worker import Facts


@dataclass(repr=False)
class Outline(VLM):
    """A VLM that encodes and has shapes, but cannot be run. place: the kind of device that the replicas are on."""

    place: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def device(self) -> torch.device:
        """Where the replicas compute."""
        return self.place


def outline(spec: ModelSpec, name: str, facts: Facts) -> Outline:
    """The outline of the replicas.

    Args:
        name: what the user called the model.
    """
    source = source_of(spec.name)
    hub = {"trust_remote_code": spec.trust_remote_code}
    if spec.revision is not None:
        hub["revision"] = facts.revision  # pyright: ignore[reportArgumentType]
    config = config_of(spec.name, AutoConfig.from_pretrained(source, **hub))
    with torch.device("meta"):
        model = auto_model(config).from_config(
            config,
            dtype=DTYPES[facts.dtype],
            attn_implementation=facts.attention,
            trust_remote_code=spec.trust_remote_code,
        )
    processor = processor_for(source, config, **hub)
    pad_with(processor, facts.conventions.padding)
    return Outline(
        name,
        model.eval(),
        processor,
        find_anatomy(model),
        facts.revision,
        facts.image_backend,
        facts.answer_tokens,
        facts.conventions,
        facts.no_write_in,
        place=torch.device(facts.device),
    )
