"""How long the prompts, pictures and answers of a file are, measured on a sample of its items by the model's processor.

Each example's prompts are tokenised; a picture's positions come from the processor, given a blank picture of the size
that the file on disk has, else the annotated one, else an assumed one. A target's tokens and the end token stand for
the unedited model's answer. What had to be assumed is said in `notes`.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hones.data.items import Items, check_left_out
from hones.data.pictures import stored_size
from hones.errors import BadItem
from hones.models.vlm import VLM
from hones.progress import track
from hones.runs.plan.pictures import picture_work, tails_of
from hones.runs.plan.shapes import Shapes, Work
from hones.tasks.base import AnswerKind, Example, Task

SAMPLE = 100
ASSUMED_SIZE = (640, 480)


@dataclass(frozen=True)
class Asked:
    """One example as the model is asked: what counts are made of.

    size: width and height of its picture; vision: its work; before: positions that it takes, all before its prompt.
    tails: the tokens of each prompt after it. answer: tokens of the unedited model's answer, the end token included; 0
    where none is written. gold: tokens of each answer to learn, end included.
    """

    task: str
    kind: AnswerKind
    example: Example
    size: tuple[int, int] | None
    vision: Work
    before: int
    tails: tuple[tuple[int, ...], ...]
    answer: int
    gold: tuple[int, ...]

    @property
    def length(self) -> int:
        """Positions of the first prompt with its picture."""
        return self.before + len(self.tails[0])

    def whole(self, shapes: Shapes, length: int) -> Work:
        """The whole model on one prompt of `length` positions, nothing spared but logits."""
        return self.vision + shapes.passing(1, length, 0) + shapes.unembedding(1)


@dataclass(frozen=True)
class Job:
    """A task's items: how many there are, and the measured sample, whose mean stands for all."""

    task: Task
    items: int
    asked: tuple[Asked, ...]

    @property
    def times(self) -> float:
        """Items for each that was measured."""
        return self.items / len(self.asked)


def measure(
    vlm: VLM,
    shapes: Shapes,
    tasks: Sequence[Task],
    items: Items,
    *,
    max_new_tokens: int,
    seed: int = 3407,
    split: str = "data",
) -> tuple[dict[str, Job], list[str]]:
    """Measure a split: a sample of pictures, or of items without one, drawn by `seed` and the same for all tasks.

    Returns:
        The jobs by task, and what had to be assumed.

    Raises:
        HonesError: too many items that a task cannot use.
    """
    jobs: dict[str, Job] = {}
    assumed: Counter[str] = Counter()
    picture_of_size = cache(lambda size: picture_work(vlm, shapes, *size))
    files = list(dict.fromkeys(item.file_name or item.id for item in items.items))
    chosen = set(random.Random(seed).sample(files, min(SAMPLE, len(files))))
    some = replace(items, items=tuple(item for item in items.items if (item.file_name or item.id) in chosen))
    infos = {items.images / info.file_name: info for item in some.items if (info := item.image_info) is not None}

    @cache
    def picture_of(file: Path) -> tuple[tuple[int, int], Work, int]:
        size, how = size_of(file, infos.get(file))
        assumed[how] += 1
        return size, *picture_of_size(size)

    for task in tasks:
        examples, left_out = task.examples(some)
        check_left_out(left_out, len(examples), f"{task.name}, {split}")
        asked = []
        for example in track(examples, f"{task.name}: measuring {split}"):
            size, vision, before = (None, Work(), 0) if example.image is None else picture_of(example.image)
            learned = vlm.tokenizer([*task.answers_to_learn(example)], add_special_tokens=False)["input_ids"]
            gold = tuple(2 if task.answers == "yes_no" else len(ids) + 1 for ids in learned)
            answer = min(max_new_tokens, gold[0]) if task.answers == "text" else 0
            tails = tails_of(vlm, example.prompts, example.image is not None)
            asked.append(Asked(task.name, task.answers, example, size, vision, before, tails, answer, gold))
        count = round(len(examples) * len(items) / len(some))
        jobs[task.name] = Job(task, count, tuple(asked))
    total = assumed.total()
    notes = [f"{split}: {count} of {total} measured pictures {how}" for how, count in assumed.items() if how]
    if len(files) > len(chosen):
        what = "pictures" if infos else "items"
        notes.append(f"{split}: lengths of {len(chosen)} of {len(files)} {what}, drawn by seed {seed}")
    return jobs, notes


def size_of(file: Path, info: Any) -> tuple[tuple[int, int], str]:
    """Width and height of a picture from its file's header, else as annotated, else assumed; and what was done."""
    try:
        return stored_size(file), ""
    except BadItem:
        if info is not None and info.width and info.height:
            return (info.width, info.height), "are not there; their annotated sizes were taken"
        width, height = ASSUMED_SIZE
        return ASSUMED_SIZE, f"are not there and have no annotated size; assumed {width} x {height}"
