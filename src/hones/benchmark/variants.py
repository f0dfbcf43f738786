"""The models of a benchmark: planted ones, whose task neurons are known, with fresh items to find them on."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from hones.data.items import Items, load_items
from hones.data.shapes.files import write_shapes
from hones.data.words import write_words
from hones.errors import HonesError
from hones.models.loading import load_vlm
from hones.models.place import WITHOUT_PICTURES
from hones.models.planted import CONSTRUCTED, PLANTS, Plant, load_plant
from hones.models.vlm import VLM
from hones.tasks import TASK_NAMES, WORD_TASK_NAMES
from hones.tasks.base import Task
from hones.tasks.words import WordTask

REPORT, SELECT = "report", "select"


@dataclass(frozen=True)
class Variant:
    """What was planted, and how the model is loaded."""

    plant: Plant
    load: Callable[[], VLM]

    @property
    def is_text(self) -> bool:
        """Whether its model takes no pictures."""
        return self.plant.base in WITHOUT_PICTURES

    def asked(self, tasks: Sequence[Task]) -> list[Task]:
        """Those of the tasks that it can be asked: tasks of words without pictures, else all others."""
        return [task for task in tasks if isinstance(task, WordTask) == self.is_text]

    def items(self, folder: Path, split: str, count: int, seed: int) -> Items:
        """What it is asked about, drawn from a seed."""
        return (words if self.is_text else pictures)(folder, split, count, seed)


def planted_variants(names: Sequence[str] | None = None, device: str = "auto") -> list[Variant]:
    """The planted models of these names, by default all that were trained.

    Raises:
        HonesError: no such model, or one named twice.
    """
    known = (*PLANTS, *CONSTRUCTED)
    chosen = list(PLANTS) if names is None else list(names)
    if wrong := [name for name in chosen if name not in known]:
        raise HonesError(f"no planted model {wrong[0]!r}", expected=f"one of {', '.join(known)}")
    if len(set(chosen)) < len(chosen):
        raise HonesError(f"--models {','.join(chosen)}", expected="each model once")
    return [Variant(load_plant(name), lambda name=name: load_vlm(name, device=device)) for name in chosen]


def task_names(names: str, variants: Sequence[Variant]) -> str:
    """Tasks with commas, as `make_tasks` takes them; all: the built-in tasks that the models can be asked."""
    if names != "all":
        return names
    kinds = {False: TASK_NAMES, True: WORD_TASK_NAMES}
    return ",".join(name for is_text in sorted({v.is_text for v in variants}) for name in kinds[is_text])


def check_asked(variants: Sequence[Variant], tasks: Sequence[Task], also: Sequence[Task] = ()) -> None:
    """Raises HonesError where a model can be asked none of the tasks, or a task none of the models."""
    for variant in variants:
        if not variant.asked(tasks):
            names = ", ".join(task.name for task in tasks)
            raise HonesError(
                f"{variant.plant.name} has nothing planted for {names}", expected=", ".join(variant.plant.sets)
            )
    for task in (*tasks, *also):
        if not any(variant.asked([task]) for variant in variants):
            models = ", ".join(variant.plant.name for variant in variants)
            raise HonesError(f"nothing is planted for {task.name} in {models}", expected="tasks of these models")


def check_variant(plant: Plant, vlm: VLM, tasks: Sequence[Task]) -> None:
    """Raises HonesError where a task has nothing planted, or the model lacks a planted neuron or head."""
    for task in tasks:
        if not plant.sets.get(task.name):
            raise HonesError(f"{plant.name} has nothing planted for {task.name}", expected=", ".join(plant.sets))
    for sites in (*plant.sets.values(), plant.general, *plant.decoys.values()):
        for site in sites:
            vlm.anatomy.check_neuron(*site)


def digest_of_plant(plant: Plant) -> str:
    """16 hexadecimal digits that identify what is planted where."""
    sets = [{name: sorted(sites) for name, sites in sorted(part.items())} for part in (plant.sets, plant.decoys)]
    copies = [sorted(plant.copies.items())] if plant.copies else []  # trained plants' digests stay what they were
    return sha256(repr([*sets, sorted(plant.general), *copies]).encode()).hexdigest()[:16]


def pictures(folder: Path, split: str, count: int, seed: int) -> Items:
    """Built-in pictures of a split of its own, drawn from a seed; written whole or not at all."""
    return _written(folder / f"{split}-{count}-seed-{seed}", write_shapes, f"planted-{split}", count, seed)


def words(folder: Path, split: str, count: int, seed: int) -> Items:
    """As `pictures`, of items of text alone."""
    return _written(folder / f"words-{split}-{count}-seed-{seed}", write_words, f"planted-{split}", count, seed)


def _written(place: Path, write: Callable[..., object], split: str, count: int, seed: int) -> Items:
    if not place.exists():
        part = place.with_name(f".{place.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        write(part, {split: count}, seed)
        part.replace(place)
    return load_items(place / f"{split}.json")
