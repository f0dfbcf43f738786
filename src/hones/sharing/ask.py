"""One question about one picture, or about none, asked of the model as it is and of the edited one.

Each of the two answers is given its probability, teacher forced, by both models: what the edit does to an answer shows
even where the words stay the same. It is p(answer, end | picture, prompt) where the model wrote its end token, and
p(answer | picture, prompt) where a text ended it or it was cut. Beside it the likeliest first tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import exp, nan
from pathlib import Path

import torch
from PIL import Image

from hones.errors import BadItem
from hones.method.steering.settings import Scales
from hones.models.context import encode_question
from hones.models.interventions import BASELINE, Intervention
from hones.models.stopping import stopped
from hones.models.vlm import VLM
from hones.sharing.origin import scales_for
from hones.tabular import Column, Table, Tabular
from hones.tasks import make_task
from hones.tasks.asking import Box, ask_as
from hones.tasks.base import Task

FIRST_TOKENS = 3


@dataclass(frozen=True)
class Reply:
    """One model's answer.

    probability: of its own answer. others: of the other model's answer; None where there is no other model. cut: the
    answer was cut off before its end. first: the likeliest first tokens. ended: the model wrote an end token, which
    then is part of what has the probability.
    """

    model: str
    answer: str
    cut: bool
    probability: float
    others: float | None
    first: tuple[tuple[str, float], ...]
    ended: bool = True


@dataclass(frozen=True)
class Asked(Tabular):
    """The prompt without template, and the replies: of the model as it is and, with an edit, of the edited one.

    neurons: how many are scaled; heads: replaced; masked: neurons.
    """

    prompt: str
    neurons: int
    replies: tuple[Reply, ...]
    heads: int = 0
    masked: int = 0

    @property
    def edit(self) -> str:
        """What was done to the model, in words; empty where nothing was."""
        return ", ".join(self._edits())

    def _edits(self) -> Iterator[str]:
        for n, noun, done in (
            (self.heads, "head", "replaced"),
            (self.masked, "neuron", "masked"),
            (self.neurons, "neuron", "scaled"),
        ):
            if n:
                yield f"{n:,} {noun}{'' if n == 1 else 's'} {done}"

    def tables(self) -> list[Table]:
        """One row per model."""
        edited = len(self.replies) > 1
        ends = {reply.ended for reply in self.replies}
        end = " and its end token" if ends == {True} else ", and of its end token where the model wrote one"
        caption = f"p: probability of the whole answer{end if any(ends) else ', which no end token ended'}"
        if edited:
            caption += f", of the other model's answer beside it; {self.edit or '0 neurons scaled'}"
        columns = (
            Column("model", "model"),
            Column("answer", "answer", "text"),
            Column("probability", "p", "number", form=".3g"),
            Column("others", "p of the other" if edited else "", "number", form=".3g"),
            Column("tokens", "likeliest first tokens", "text"),
        )
        rows = [
            vars(reply)
            | {
                "answer": f"{reply.answer} ..." if reply.cut else reply.answer or "(empty)",
                "tokens": ", ".join(f"{token!r} {p:.3g}" for token, p in reply.first),
            }
            for reply in self.replies
        ]
        return [Table("answers", self.prompt, columns, rows, caption)]


@torch.no_grad()
def ask(
    vlm: VLM,
    picture: str | Path | None,
    question: str | None = None,
    *,
    scales: str | Path | Scales | None = None,
    edit: Intervention = BASELINE,
    task: str | Task = "vqa",
    fields: Mapping[str, str] | None = None,
    box: Box | None = None,
    max_new_tokens: int = 24,
) -> Asked:
    """Ask about a picture, with and without scales or another edit.

    Args:
        picture: None: the prompt alone.
        question: what the task's prompt has a field for; some ask their own (`hones.tasks.asking`).
        scales: scales.json or scales just learned; without it and `edit` only the model as it is answers.
        edit: heads replaced, neurons masked; in place of its scales those of `scales`, where they are given.
        task: how the prompt is worded: a task, or what `make_task` takes.
        fields: values of further fields of the task's prompt, by name.
        box: [x, y, width, height] to outline in blue, for ocr and tasks with a box.

    Raises:
        HonesError: a picture that cannot be read, no question, an unknown task, an edit that does not fit the model.
    """
    task = make_task(task) if isinstance(task, str) else task
    asked = ask_as(task, picture, question, fields, box)
    opened, (prompt,) = asked.open_picture(), asked.prompts
    stop = vlm.stop_of(task.stop, prompt)
    encoded = encode_question(vlm, opened, prompt, max_new_tokens)
    arms = {"as it is": BASELINE}
    if scales is not None:
        learned = scales if isinstance(scales, Scales) else scales_for(vlm, scales)[0]
        edit = replace(edit, scales=learned.values)
    if scales is not None or edit != BASELINE:
        arms["steered" if edit == Intervention(scales=edit.scales) else "edited"] = edit
    drafts = {}
    for name, of_arm in arms.items():
        with of_arm.on(vlm.model):
            (ids,) = vlm.generate_ids(encoded, max_new_tokens)
            likeliest = vlm.logits(encoded, keep=1)[0, -1].softmax(-1).topk(FIRST_TOKENS)
        words = [vlm.tokenizer.decode([token]) for token in likeliest.indices.tolist()]
        first = tuple(zip(words, likeliest.values.tolist(), strict=True))
        at_end = ids[-1] in vlm.eos_ids
        is_stopped = stopped(vlm.tokenizer, ids[:-1] if at_end else ids, stop)
        ended = at_end and not is_stopped
        drafts[name] = Reply(name, vlm.text_of(ids, stop), not (ended or is_stopped), nan, None, first, ended)
    replies = []
    for name, of_arm in arms.items():
        p = {}
        with of_arm.on(vlm.model):
            for arm, draft in drafts.items():
                p[arm] = _probability(vlm, opened, prompt, draft)
        others = next((p[arm] for arm in arms if arm != name), None)
        replies.append(replace(drafts[name], probability=p[name], others=others))
    scaled = sum(s != 0 for s in edit.scales.values())
    return Asked(prompt, scaled, tuple(replies), len(edit.heads), len(edit.masked))


def _probability(vlm: VLM, picture: Image.Image | None, prompt: str, reply: Reply) -> float:
    """Of an answer, and its end token if it has one; NaN where it is no tokens of its own behind the template."""
    try:
        taught = vlm.encode_with_answers([picture], [prompt], [reply.answer], reply.ended)
    except BadItem:
        return nan
    if taught.answer is None or not taught.answer.any():  # an empty answer that a text ended is no event of the model
        return nan
    return exp(float(vlm.log_probabilities(taught)[0]))
