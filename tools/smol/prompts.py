"""What is asked about a picture, worded as the product words it, and the sequences that training runs.

A picture's prompts stand one after another in one sequence behind the picture; each sees the picture and itself only
and counts its positions from the picture's end, so it is computed exactly as if it stood alone. Answers to the same
question (the captions of a photograph) share it: each sees the picture, the question and itself.
"""

import random
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from tiny.batches import Prompt
from torch import Tensor

from hones.data.shapes.language import Statement, captions, describe, false_statement, holds, perturb, questions
from hones.data.shapes.scene import Content
from hones.models.wordings import LLAVA, WORDINGS
from hones.tasks import caption, ocr, retrieval, vqa

from .architecture import GRID, PICTURE
from .photographs import Photograph, content_words, plain

WEIGHT = {"vqa": 1.0, "ocr": 3.0, "caption": 1.0, "retrieval": 1.5}
_QUESTION_WEIGHT = {"colour": 3.0, "shape": 1.5, "count": 1.0, "existence": 1.5, "relation": 2.0}
_PARAPHRASES = (0, 0, 0, 0, 1, 2, 3, 4)
NEGATIVES_SEEN = 60


def of_drawing(scene: Content, text: str | None, rng: random.Random) -> list[Prompt]:
    """Two questions, the text in the box if there is one, a caption and two candidates, one of them true."""
    asked = questions(scene, rng)
    keys = {q: rng.random() ** (1 / _QUESTION_WEIGHT[q[0]]) for q in asked}
    chosen = sorted(asked, key=keys.__getitem__, reverse=True)[:2]
    prompts = [Prompt("vqa", kind, vqa.PROMPT.format(question=q), a) for kind, q, a in chosen]
    if text is not None:
        prompts.append(Prompt("ocr", "ocr", ocr.PROMPT, text))
    place = scene.place

    def said(statement: Statement) -> str:
        return captions(statement, place)[rng.choice(_PARAPHRASES)]

    prompts.append(Prompt("caption", "caption", caption.PROMPT, said(describe(scene, rng))))
    true = describe(scene, rng)
    if rng.random() < 0.25:
        thing = rng.choice(scene.things)
        true = Statement(((thing.colour, thing.shape),))
        false = perturb(true, rng)
        while holds(false, scene):
            false = perturb(true, rng)
    else:
        false = false_statement(scene, rng, hard=rng.random() < 0.6)
    return [*prompts, candidate(said(true), True), candidate(said(false), False)]


def candidate(text: str, true: bool) -> Prompt:
    """Whether a candidate caption is true of the picture."""
    return Prompt(
        "retrieval", "true" if true else "false", retrieval.PROMPT.format(candidate=text), "Yes" if true else "No"
    )


def of_photograph(
    photograph: Photograph, text: str | None, others: list[Photograph], rng: random.Random, most: int = 4
) -> list[Prompt]:
    """The text in the box if there is one; questions, or all captions and a true and a false candidate, or one of them.

    The false one is the caption of another photograph: the one among some sixty that shares most words, or any one.
    """
    prompts = [Prompt("ocr", "word", ocr.PROMPT, text)] if text is not None else []
    if photograph.questions:
        asked = rng.sample(photograph.questions, min(most, len(photograph.questions)))
        return prompts + [Prompt("vqa", "photograph", vqa.PROMPT.format(question=q), a) for q, a in asked]
    prompts += captions_of(photograph)
    second = rng.choice(photograph.captions)
    negatives = [rng.choice(other.captions) for other in rng.sample(others, NEGATIVES_SEEN) if other is not photograph]
    own = set(content_words(second))
    hard = max(negatives, key=lambda other: len(own & set(content_words(other))))
    false = hard if rng.random() < 0.6 else negatives[0]
    pair = [candidate(second, True), candidate(false, False)]
    return [*prompts, *(pair if text is None else [rng.choice(pair)])]


def captions_of(photograph: Photograph) -> list[Prompt]:
    """All captions of a photograph."""
    return [Prompt("caption", "photograph", caption.PROMPT, plain(text)) for text in photograph.captions]


@dataclass
class Sequences:
    """B pictures with their prompts, T tokens, N supervised predictions."""

    ids: Tensor  # [B, T], the picture's tokens included
    positions: Tensor  # [B, T]
    mask: Tensor  # [B, 1, T, T], added to attention scores
    rows: Tensor  # [N]
    columns: Tensor  # [N] where each label is predicted
    labels: Tensor  # [N]
    weights: Tensor  # [N]
    owners: Tensor  # [N] index into all prompts
    prompts: list[Prompt]


class _Row:
    """One picture's sequence: groups of tokens, each of which sees the first, itself and one other, its parent."""

    def __init__(self, prefix: list[int]) -> None:
        self.ids = [*prefix]
        self.positions = [*range(len(prefix))]
        self.groups = [0] * len(prefix)
        self.parents = [0] * len(prefix)

    def append(self, tokens: list[int], start: int, parent: int = 0) -> int:
        """One group more, its first position `start`; its number."""
        number = self.groups[-1] + 1
        self.ids += tokens
        self.positions += range(start, start + len(tokens))
        self.groups += [number] * len(tokens)
        self.parents += [parent] * len(tokens)
        return number


class Sequencer:
    """Prompts of pictures as sequences."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.picture = tokenizer.convert_tokens_to_ids(PICTURE)
        self.end = tokenizer.eos_token_id
        before, _ = self._split("X")
        self.prefix = before + [self.picture] * GRID**2

    def _split(self, prompt: str) -> tuple[list[int], list[int]]:
        ids = self.tokenizer(WORDINGS[LLAVA].format(image=f"{PICTURE}\n", prompt=prompt))["input_ids"]
        at = ids.index(self.picture)
        return ids[:at], ids[at + 1 :]

    def sequences(self, asked: list[list[Prompt]]) -> Sequences:
        """The prompts of each picture."""
        packed, supervised, prompts = [], [], []
        for number, of_picture in enumerate(asked):
            row = _Row(self.prefix)
            for text, same in groupby(of_picture, key=lambda prompt: prompt.text):
                answered = [*same]
                _, question = self._split(text)
                group = row.append(question, len(self.prefix))
                end = len(row.ids) - 1
                for prompt in answered:
                    answer = [*self.tokenizer(f" {prompt.answer}", add_special_tokens=False)["input_ids"], self.end]
                    weight = WEIGHT[prompt.task] / (len(answer) * len(answered)) ** 0.5
                    columns = [end, *range(len(row.ids), len(row.ids) + len(answer) - 1)]
                    labelled = zip(columns, answer, strict=True)
                    supervised += [(number, column, label, weight, len(prompts)) for column, label in labelled]
                    row.append(answer[:-1], len(self.prefix) + len(question), group)
                    prompts.append(prompt)
            packed.append(row)
        rows, columns, labels, weights, owners = zip(*supervised, strict=True)
        group = _padded([row.groups for row in packed], -1)[:, None, :]
        parent = _padded([row.parents for row in packed], -1)[:, :, None]
        seen = torch.ones(group.shape[2], group.shape[2], dtype=torch.bool).tril()
        seen = seen & ((group == group.mT) | (group == parent) | (group == 0))
        mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[:, None]
        return Sequences(
            ids=_padded([row.ids for row in packed], self.end),
            positions=_padded([row.positions for row in packed], 0),
            mask=mask,
            rows=torch.tensor(rows),
            columns=torch.tensor(columns),
            labels=torch.tensor(labels),
            weights=torch.tensor(weights),
            owners=torch.tensor(owners),
            prompts=prompts,
        )


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])
