"""Construct the plants with general and backup neurons: writes src/hones/models/planted/constructed/NAME.json.

    python -m planting.construct [NAME ...]

Nothing is trained. What has to be known of the base is how large its residual is where a new layer reads it
(measured on 24 items of their own) and which words only one task's prompts have.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hones import load_items, load_vlm, make_task, write_shapes
from hones.data.words import write_words
from hones.models.place import WITHOUT_PICTURES
from hones.models.planted import CONSTRUCTED_FOLDER
from hones.models.planted.circuit import WIDER
from hones.models.planted.recipe import BACKUP, BASE, FIRST, FLAGS, FLAGS_AGAIN, READOUT, Recipe
from hones.models.sites import Site
from hones.models.vlm import VLM
from hones.tasks.base import Example, Task
from hones.tasks.words import FLAGS as WORD_FLAGS

ITEMS, SEED = 24, 77
GENERAL, BYSTANDERS, LOUD, CANCELLED = 4, 3, 3, 4
"""General neurons; bystanders of a task; loud decoys of a layer; pairs that cancel."""

EVEN, GRADED = (48,) * 4, (84, 56, 34, 18)
EVEN_128, GRADED_128 = (32,) * 4, (56, 38, 22, 12)
NATS = 1.0
PICTURE_FLAGS = {"vqa": "Question", "ocr": "Transcribe", "caption": "Describe", "retrieval": "Candidate"}


@dataclass(frozen=True)
class Design:
    """order, opens: as `Recipe` has them. says: task -> the word that it says without keys, "" to end at once."""

    name: str
    base: str
    role: Literal["select", "report"]
    seed: int
    order: str
    opens: tuple[int, ...]
    says: dict[str, str]

    @property
    def is_text(self) -> bool:
        return self.base in WITHOUT_PICTURES

    @property
    def flags(self) -> dict[str, str]:
        """task -> the word of its prompts that is in no other's."""
        return WORD_FLAGS if self.is_text else PICTURE_FLAGS


DESIGNS = {
    design.name: design
    for design in (
        Design("hard-llava-1", "tiny-llava", "select", 1, "FbbAbBbbbT", EVEN, {"vqa": "red", "ocr": ""}),
        Design("hard-llava-2", "tiny-llava", "report", 2, "FHbAbbBbbbT", GRADED, {"ocr": "red", "caption": ""}),
        Design("hard-qwen-1", "tiny-qwen2.5-vl", "select", 3, "FbAbbbbBbT", EVEN, {"vqa": "", "caption": "red"}),
        Design("hard-qwen-2", "tiny-qwen2.5-vl", "report", 4, "FHbbAbBbbbT", GRADED, {"vqa": "red", "ocr": ""}),
        Design("hard-text-1", "tiny-text", "select", 5, "FbbAbBbbT", EVEN_128, {"opposite": "Monday", "sum": ""}),
        Design("hard-text-2", "tiny-text", "report", 6, "FHbAbbBbbT", GRADED_128, {"after": "", "backwards": "five"}),
    )
}


def construct(design: Design) -> dict[str, Any]:
    """The record of a plant: its truth and its recipe."""
    vlm = load_vlm(design.base)
    flag = {task: _token(vlm, word) for task, word in design.flags.items()}
    tasks = [*flag]
    with tempfile.TemporaryDirectory() as scratch:
        write = write_words if design.is_text else write_shapes
        file = write(Path(scratch), {"sizes": ITEMS}, seed=SEED)["sizes"]
        asked = []
        for name in tasks:
            task = make_task(name)
            examples, _ = task.examples(load_items(file))
            asked.append((task, examples))
        rms = residual_sizes(vlm, design.order, asked, flag)
    sites = choose_sites(design, vlm.anatomy.neurons, vlm.anatomy.width)
    end = vlm.processor.tokenizer.eos_token_id  # pyright: ignore[reportAttributeAccessIssue]
    recipe = Recipe(
        order=design.order,
        opens=design.opens,
        flag=flag,
        head=dict(
            zip(tasks, random.Random(f"heads/{design.seed}").sample(range(vlm.anatomy.heads), len(tasks)), strict=True)
        ),
        target={task: (_token(vlm, word) if word else end, NATS) for task, word in design.says.items()},
        rms=rms,
        seed=design.seed,
        **sites,
    )
    pairs = {task: [*zip(recipe.first[task], recipe.backup[task], strict=True)] for task in tasks}
    plant = {
        "base": design.base,
        "role": design.role,
        "sets": {task: [site for pair in pairs[task] for site in pair] for task in tasks},
        "general": [*recipe.general, *recipe.readout],
        "decoys": {
            "loud": recipe.loud,
            "cancelled": recipe.cancelled,
            "bystander": [site for task in tasks for site in recipe.bystanders[task]],
        },
        "through": {
            task: [(recipe.layer(letter), head) for letter in (FLAGS, FLAGS_AGAIN) if letter in recipe.order]
            for task, head in recipe.head.items()
        },
        "copies": pairs,
    }
    return {"plant": plant, "recipe": asdict(recipe)}


def choose_sites(design: Design, neurons: int, width: int) -> dict[str, Any]:
    """Random neurons of each new layer."""
    rng = random.Random(f"sites/{design.seed}")
    new = [letter for letter in design.order if letter != BASE]
    free = {letter: rng.sample(range(neurons), neurons) for letter in new}
    at_general = FLAGS_AGAIN if FLAGS_AGAIN in new else FLAGS

    def take(letter: str, count: int) -> list[Site]:
        return [(design.order.index(letter), free[letter].pop()) for _ in range(count)]

    keys = len(design.opens)
    tasks = design.flags
    return {
        "general": take(at_general, GENERAL),
        "first": {task: take(FIRST, keys) for task in tasks},
        "backup": {task: take(BACKUP, keys) for task in tasks},
        "readout": take(READOUT, 2 * width),
        "bystanders": {task: take(FIRST, BYSTANDERS) for task in tasks},
        "loud": [site for letter in new[:-1] for site in take(letter, LOUD)] + take(READOUT, len(tasks)),
        "cancelled": take(READOUT, 2 * CANCELLED),
    }


@torch.no_grad()
def residual_sizes(
    vlm: VLM, order: str, asked: Sequence[tuple[Task, Sequence[Example]]], flag: dict[str, int]
) -> dict[str, dict[str, float]]:
    """`Recipe.rms`: what each new layer reads, over the widened residual's width.

    Raises:
        ValueError: a flag is not in every prompt of its task, or is in another task's prompt or answer.
    """
    new = [letter for letter in order if letter != BASE]
    found: dict[str, dict[str, float]] = {letter: {} for letter in new}
    for task, examples in asked:
        answers = [task.answers_to_learn(e)[0] if task.answers != "yes_no" else e.target for e in examples]
        encoded = vlm.encode_with_answers(
            [e.open_picture() for e in examples], [e.prompts[0] for e in examples], answers
        )
        assert encoded.answer is not None
        ids = encoded.inputs["input_ids"]
        for name, token in flag.items():
            if not bool(((ids == token).sum(1) == (name == task.name)).all()):
                raise ValueError(f"{name}'s flag in {task.name}")
        sizes = _sizes(vlm, encoded.inputs)
        predicts = encoded.answer.roll(-1, 1)
        for letter in new:
            entering = sizes[order[: order.index(letter)].count(BASE)]
            found[letter][task.name] = round(float(entering[predicts].median()), 4)
            if letter in (FLAGS, FLAGS_AGAIN):
                at_flag = float(entering[ids == flag[task.name]].mean())
                found.setdefault(f"flag/{letter}", {})[task.name] = round(at_flag, 4)
    return found


def _sizes(vlm: VLM, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The root mean square of what enters each layer of the base and of what leaves the last one [L + 1][B, T]."""
    found: list[Tensor] = []
    modules = [*(layer.block for layer in vlm.anatomy.layers), vlm.anatomy.decoder.norm]
    hooks = [module.register_forward_pre_hook(lambda _, args: found.append(args[0])) for module in modules]
    vlm.model(**inputs)
    for hook in hooks:
        hook.remove()
    return [(x.double().pow(2).sum(-1) / (x.shape[-1] + WIDER)).sqrt() for x in found]


def _token(vlm: VLM, word: str) -> int:
    """The token of a word, with a space before it where the model's answers begin with one."""
    vocabulary = vlm.processor.tokenizer.get_vocab()  # pyright: ignore[reportAttributeAccessIssue]
    return next(vocabulary[form] for form in (word, f"Ġ{word}") if form in vocabulary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*DESIGNS])
    for name in parser.parse_args().names:
        CONSTRUCTED_FOLDER.mkdir(exist_ok=True)
        (CONSTRUCTED_FOLDER / f"{name}.json").write_text(json.dumps(construct(DESIGNS[name])) + "\n")
        print(name, flush=True)


if __name__ == "__main__":
    main()
