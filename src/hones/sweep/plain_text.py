"""Plain text under interventions: the log loss of every paragraph that ships with us (`hones.tasks.plain_text`)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hones.data.unified import LeftOut
from hones.errors import BadItem
from hones.models.context import check_fits
from hones.models.interventions import Intervention
from hones.models.vlm import VLM
from hones.sweep.run import Job, SweepSettings, sweep
from hones.tasks.base import Example
from hones.tasks.plain_text import PlainText, paragraphs


@dataclass(frozen=True)
class Paragraphs:
    """The paragraphs that a model can be asked, as a job of a sweep, and those that it cannot."""

    task: PlainText
    examples: tuple[Example, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def job(self) -> Job:
        return self.task, self.examples


def plain_text_of(vlm: VLM) -> Paragraphs:
    """The paragraphs, counted in the model's tokens; none of a model whose processor asks for a picture."""
    tokens: dict[str, int] = {}
    left_out = []
    for name, example in paragraphs().items():
        prompt = example.prompts[0]
        try:
            count = len(vlm.answer_ids(prompt, example.target))
            check_fits(vlm, vlm.encode([None], [prompt]), count)
            tokens[name] = count
        except BadItem as error:
            left_out.append(LeftOut.of(name, error))
    return Paragraphs(PlainText(tokens), tuple(paragraphs()[name] for name in tokens), tuple(left_out))


def plain_text_losses(
    vlm: VLM, edits: Sequence[Intervention], settings: SweepSettings | None = None
) -> Float[np.ndarray, "edits paragraphs"]:
    """The log loss of every paragraph under every intervention, in nats a token.

    Paragraphs that the model cannot be asked are not among them (`plain_text_of` names them).

    Raises:
        HonesError: as `hones.sweep.run.sweep`.
    """
    task, examples = plain_text_of(vlm).job
    return task.score(sweep(vlm, task, examples, edits, settings, "plain text").astype(np.float64))
