"""How long the prompts, pictures and answers of a file are, measured on a sample of its items by the model's processor.

Each example's prompts are tokenised; a picture's positions come from the processor, given a blank picture of the size
that the file on disk has, else the annotated one, else an assumed one. A target's tokens and the end token stand for
the unedited model's answer. What had to be assumed is said in `notes`.
"""

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from hones.data.items import Items, check_left_out
from hones.models.vlm import VLM
from hones.progress import track
from hones.runs.plan.shapes import Shapes
from hones.tasks.base import AnswerKind, Example, Task

SAMPLE = 100
ASSUMED_SIZE = (640, 480)


@dataclass(frozen=True)
class Seen:
    """What a picture becomes: patches of the vision part, tiles, positions that show it, all before its prompt."""

    patches: int = 0
    tiles: int = 0
    tokens: int = 0
    positions: int = 0


@dataclass(frozen=True)
class Asked:
    """One example as the model is asked: what counts are made of.

    image: the file, or an item without one; drawn: with the box in it, which is what is encoded. tails: the tokens of
    each prompt after the picture. answer: tokens of the unedited model's answer, the end token included; 0 where none
    is written. gold: tokens of each answer to learn, end included.
    """

    task: str
    kind: AnswerKind
    image: Hashable
    drawn: Hashable
    seen: Seen
    tails: tuple[tuple[int, ...], ...]
    answer: int
    gold: tuple[int, ...]

    @property
    def length(self) -> int:
        """Positions of the first prompt with its picture."""
        return self.seen.positions + len(self.tails[0])


@dataclass(frozen=True)
class Job:
    """A task's items: how many there are, and the measured sample, whose mean stands for all."""

    task: Task
    items: int
    asked: tuple[Asked, ...]
    examples: tuple[Example, ...]

    @property
    def times(self) -> float:
        """Items for each that was measured."""
        return self.items / len(self.asked)


@dataclass
class Measured:
    """The jobs of one split, by task, what had to be assumed, and the pictures' width and height."""

    jobs: dict[str, Job] = field(default_factory=dict)
    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, items: int) -> "Measured":
        """The same lengths for another number of items of every task."""
        return replace(self, jobs={name: replace(job, items=items) for name, job in self.jobs.items()})


def measure(
    vlm: VLM,
    shapes: Shapes,
    tasks: Sequence[Task],
    items: Items,
    *,
    max_new_tokens: int,
    sample: int = SAMPLE,
    seed: int = 3407,
    split: str = "data",
) -> Measured:
    """Measure a split.

    Args:
        sample: how many pictures, or items without one, are measured; drawn by `seed` and the same for all tasks.

    Raises:
        HonesError: too many items that a task cannot use.
    """
    measured, assumed = Measured(), Counter()
    seen_of_size = cache(lambda size: seen_of(vlm, shapes, *size))
    files = list(dict.fromkeys(item.file_name or item.id for item in items.items))
    chosen = set(random.Random(seed).sample(files, min(sample, len(files))))
    some = replace(items, items=tuple(item for item in items.items if (item.file_name or item.id) in chosen))
    infos = {items.images / info.file_name: info for item in some.items if (info := item.image_info) is not None}
    for task in tasks:
        examples, left_out = task.examples(some)
        check_left_out(left_out, len(examples), f"{task.name}, {split}")
        asked = []
        for example in track(examples, f"{task.name}: measuring {split}"):
            if example.image is not None and example.image not in measured.sizes:
                measured.sizes[example.image], how = size_of(example.image, infos.get(example.image))
                assumed[how] += 1
            seen = Seen() if example.image is None else seen_of_size(measured.sizes[example.image])
            learned = vlm.tokenizer([*task.answers_to_learn(example)], add_special_tokens=False)["input_ids"]
            gold = tuple(2 if task.answers == "yes_no" else len(ids) + 1 for ids in learned)
            answer = min(max_new_tokens, gold[0]) if task.answers == "text" else 0
            tails = tails_of(vlm, example.prompts, example.image is not None)
            drawn = (example.about, example.box)
            asked.append(Asked(task.name, task.answers, example.about, drawn, seen, tails, answer, gold))
        count = round(len(examples) * len(items) / len(some))
        measured.jobs[task.name] = Job(task, count, tuple(asked), tuple(examples))
    for how, count in assumed.items():
        if how:
            measured.notes.append(f"{split}: {count} of {len(measured.sizes)} measured pictures {how}")
    if len(files) > len(chosen):
        what = "pictures" if infos else "items"
        measured.notes.append(f"{split}: lengths of {len(chosen)} of {len(files)} {what}, drawn by seed {seed}")
    return measured


def size_of(file: Path, info: Any) -> tuple[tuple[int, int], str]:
    """Width and height of a picture from its file's header, else as annotated, else assumed; and what was done."""
    try:
        with Image.open(file) as picture:
            return picture.size, ""
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        if info is not None and info.width and info.height:
            return (info.width, info.height), "are not there; their annotated sizes were taken"
        width, height = ASSUMED_SIZE
        return ASSUMED_SIZE, f"are not there and have no annotated size; assumed {width} x {height}"


def tails_of(vlm: VLM, prompts: Sequence[str], picture: bool = True) -> tuple[tuple[int, ...], ...]:
    """The tokens of each prompt after its picture; of a template without a single picture token, all but the first.

    picture: False for prompts without one, all of whose tokens count.
    """
    rows = vlm.tokenizer([vlm.wrap(prompt, picture) for prompt in prompts])["input_ids"]
    if not picture:
        return tuple(map(tuple, rows))
    token = vlm.tokenizer.convert_tokens_to_ids(vlm.processor.image_token)  # pyright: ignore[reportAttributeAccessIssue]
    return tuple(tuple(ids[(ids.index(token) if token in ids else 0) + 1 :]) for ids in rows)


def seen_of(vlm: VLM, shapes: Shapes, width: int, height: int) -> Seen:
    """What the processor makes of a blank picture: that depends on its size alone."""
    prepare: Any = vlm.processor
    encoded = prepare(images=[[Image.new("RGB", (width, height))]], text=[vlm.wrap("?")], return_tensors="pt")
    pixels = encoded["pixel_values"]
    tiles = 1 if "image_grid_thw" in encoded else pixels.numel() // pixels.shape[-3:].numel()
    placeholder = vlm.tokenizer.convert_tokens_to_ids(prepare.image_token)
    tokens = int((encoded["input_ids"] == placeholder).sum())
    positions = encoded["input_ids"].shape[1] - len(tails_of(vlm, ["?"])[0])
    return Seen(pixels.numel() // shapes.vision.patch, tiles, tokens, positions)
