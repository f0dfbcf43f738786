"""What is done to the model, as the page holds it: small, without torch, and a file or a command at any time."""

import shlex
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hones.app.question import Question
from hones.files import sha256_of
from hones.models.sites import Site
from hones.models.spec import ModelSpec
from hones.runs.artifacts import read_neurons, read_scales
from hones.sharing.edits import EditNames, typed_heads
from hones.sweep.names import MAX_NEW_TOKENS

if TYPE_CHECKING:
    from hones.models.interventions import Intervention
    from hones.models.vlm import VLM


@dataclass(frozen=True)
class Edit:
    """Heads (layer, head) replaced by the mean of their layer's others, files' neurons masked, a file's scales on."""

    heads: tuple[Site, ...] = ()
    neurons: tuple[Path, ...] = ()
    scales: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def names(self) -> EditNames:
        """As the command line names it."""
        return EditNames(self.heads, self.neurons, self.scales)

    def toggled(self, head: Site) -> "Edit":
        """With this head replaced, or without, where it was."""
        without = tuple(site for site in self.heads if site != head)
        return replace(self, heads=without if head in self.heads else tuple(sorted((*self.heads, head))))

    def intervention(self, vlm: "VLM", task: str) -> "Intervention":
        """The edit of a model; the model as it is where there is none.

        Args:
            task: whose neurons of a published run.

        Raises:
            HonesError: a file cannot be read, is of another model, or the model has no such head or neuron.
        """
        return self.names.of(vlm, task)

    def as_json(self, model: ModelSpec, question: Question) -> dict[str, Any]:
        """All of it, with every neuron and scale, so that no other file is needed to do the same.

        `hones ask --scales` reads the scales of such a file.

        Raises:
            HonesError: a file cannot be read.
        """
        neurons = sorted({(n.layer, n.neuron) for file in self.neurons for n in read_neurons(file)})
        scales = {} if self.scales is None else read_scales(self.scales).values
        named = (*self.neurons, *(() if self.scales is None else (self.scales,)))
        return {
            "model": model.name,
            "revision": model.revision,
            "asked": {
                "task": question.task,
                "picture": None if question.picture is None else str(question.picture),
                "question": question.asked,
                "fields": question.read_fields,
                "box": question.read_box,
            },
            "heads": [{"layer": layer, "head": head} for layer, head in self.heads],
            "neurons": [{"layer": layer, "neuron": neuron} for layer, neuron in neurons],
            "scales": [{"layer": layer, "neuron": n, "scale": s} for (layer, n), s in sorted(scales.items())],
            "files": [{"file": str(file), "sha256": sha256_of(file)} for file in named],
        }

    def as_command(self, model: ModelSpec, question: Question, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The `hones ask` that asks the same of the same edit, ready to paste where the app was started."""
        words = ["hones", "ask", *model_options(model)]
        words += ["--heads", typed_heads(self.heads)] if self.heads else []
        for file in self.neurons:
            words += ["--neurons", str(file)]
        words += [] if self.scales is None else ["--scales", str(self.scales)]
        words += [] if max_new_tokens == MAX_NEW_TOKENS else ["--max-new-tokens", str(max_new_tokens)]
        return shlex.join([*words, *question.options()])


def model_options(model: ModelSpec) -> Sequence[str]:
    """The options that load a model so; what has its default is not named."""
    words = ["--model", model.name]
    for field in fields(model):
        value = getattr(model, field.name)
        if field.default is MISSING or value == field.default:
            continue
        option = f"--{field.name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    return words
