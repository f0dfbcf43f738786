"""How long the prompts, pictures and answers of a file are, measured on a sample of its items by the model's processor.

Each example's prompts are tokenised; a picture's positions come from the processor, given a blank picture of the size
that the file on disk has, else the annotated one, else an assumed one. A target's tokens and the end token stand for
the unedited model's answer. What had to be assumed is said in `notes`.
"""

import random
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from hones.data.items import Items, check_left_out
from hones.models.vlm import VLM
from hones.runs.plan.shapes import Shapes
from hones.progress import track
from hones.tasks.base import AnswerKind, Example, Task

SAMPLE = 100
ASSUMED_SIZE = (640, 480)


@dataclass(frozen=True)
class Seen:
    """What a picture becomes: patches of the vision part, tiles, positions that show it, all before its prompt."""

    patches: int
    tiles: int
    tokens: int
    positions: int


@dataclass(frozen=True)
class Asked:
    """One example as the model is asked: what counts are made of.

    image: the file, or an item without one; drawn: with the box in it, which is what is encoded. tails: the tokens of
    each prompt after the picture. answer: tokens of the unedited model's answer, the end token included; 0 where none
    is written.
    gold: tokens of each answer to learn, end included.
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
        jobs = {name: replace(job, items=items) for name, job in self.jobs.items()}
        return Measured(jobs, self.sizes, self.notes)


NO_PICTURE = Seen(0, 0, 0, 0)


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
    found, sizes = Measured(), Sizes(vlm, shapes)
    about = {item.id: item.file_name or item.id for item in items.items}
    files = list(dict.fromkeys(about.values()))
    chosen = set(files if len(files) <= sample else random.Random(seed).sample(files, sample))
    some = replace(items, items=tuple(item for item in items.items if about[item.id] in chosen))
    infos = [item.image_info for item in some.items if item.image_info is not None]
    annotated = {items.images / info.file_name: (info.width, info.height) for info in infos}
    times = len(items) / len(some)
    for task in tasks:
        good, left_out = task.examples(some)
        check_left_out(left_out, len(good), f"{task.name}, {split}")
        asked = []
        for example in track(good, f"{task.name}: measuring {split}"):
            seen = NO_PICTURE
            if example.image is not None:
                size = found.sizes[example.image] = sizes.of(example.image, annotated.get(example.image))
                seen = sizes.seen(*size)
            asked.append(asked_of(vlm, task, example, seen, max_new_tokens))
        found.jobs[task.name] = Job(task, round(len(good) * times), tuple(asked), tuple(good))
    found.notes += sizes.notes(split, found.sizes)
    if len(files) > len(chosen):
        what = "pictures" if infos else "items"
        found.notes.append(f"{split}: lengths of {len(chosen)} of {len(files)} {what}, drawn by seed {seed}")
    return found


def asked_of(vlm: VLM, task: Task, example: Example, seen: Seen, max_new_tokens: int) -> Asked:
    """An example's lengths."""
    learned = [1 if task.answers == "yes_no" else tokens_of(vlm, a) for a in task.answers_to_learn(example)]
    answer = min(max_new_tokens, learned[0] + 1) if task.answers == "text" else 0
    drawn, tails = (example.about, example.box), tails_of(vlm, example.prompts, example.image is not None)
    gold = tuple(count + 1 for count in learned)
    return Asked(task.name, task.answers, example.about, drawn, seen, tails, answer, gold)


def tails_of(vlm: VLM, prompts: Sequence[str], picture: bool = True) -> tuple[tuple[int, ...], ...]:
    """The tokens of each prompt after its picture; of a template without a single picture token, all but the first.

    picture: False for prompts without one, all of whose tokens count.
    """
    if not picture:
        return tuple(map(tuple, vlm.tokenizer([vlm.wrap(prompt, picture=False) for prompt in prompts])["input_ids"]))
    token = vlm.tokenizer.convert_tokens_to_ids(vlm.processor.image_token)  # pyright: ignore[reportAttributeAccessIssue]
    rows = vlm.tokenizer([vlm.wrap(prompt) for prompt in prompts])["input_ids"]
    return tuple(tuple(ids[(ids.index(token) if token in ids else 0) + 1 :]) for ids in rows)


def tokens_of(vlm: VLM, answer: str) -> int:
    """Tokens of an answer, without specials."""
    return len(vlm.tokenizer(answer, add_special_tokens=False)["input_ids"])


class Sizes:
    """Sizes of pictures, and what the processor makes of them: that depends on the size alone."""

    def __init__(self, vlm: VLM, shapes: Shapes) -> None:
        self.seen: Callable[[int, int], Seen] = cache(lambda w, h: seen_of(vlm, shapes, w, h))
        self.annotated: set[Path] = set()
        self.assumed: set[Path] = set()

    def of(self, picture: Path, annotated: tuple[int | None, int | None] | None) -> tuple[int, int]:
        """Width and height from the file, else as annotated, else assumed."""
        size = size_of_file(picture)
        if size is not None:
            return size
        if annotated is not None and annotated[0] and annotated[1]:
            self.annotated.add(picture)
            return annotated[0], annotated[1]
        self.assumed.add(picture)
        return ASSUMED_SIZE

    def notes(self, split: str, measured: Collection[Path]) -> list[str]:
        """Where sizes are not those of the files."""
        said, of = [], f"of {len(measured)} measured pictures"
        if self.annotated:
            said.append(f"{split}: {len(self.annotated)} {of} are not there; their annotated sizes were taken")
        if self.assumed:
            size = "{} x {}".format(*ASSUMED_SIZE)
            said.append(f"{split}: {len(self.assumed)} {of} are not there and have no annotated size; assumed {size}")
        return said


@cache
def size_of_file(path: Path) -> tuple[int, int] | None:
    """Width and height, from the file's header; None where it cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None


def seen_of(vlm: VLM, shapes: Shapes, width: int, height: int) -> Seen:
    """What the processor makes of a blank picture."""
    prepare: Any = vlm.processor
    prompt = vlm.wrap("?")
    made = prepare(images=[[Image.new("RGB", (width, height))]], text=[prompt], return_tensors="pt")
    pixels = made["pixel_values"]
    patches = pixels.numel() // shapes.vision.patch
    tiles = 1 if "image_grid_thw" in made else pixels.numel() // pixels.shape[-3:].numel()
    placeholder = vlm.tokenizer.convert_tokens_to_ids(prepare.image_token)
    tokens = int((made["input_ids"] == placeholder).sum())
    return Seen(patches, tiles, tokens, made["input_ids"].shape[1] - len(tails_of(vlm, ["?"])[0]))
