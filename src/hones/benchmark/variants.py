"""The models of a benchmark: planted ones, whose task neurons are known, with fresh pictures to find them on."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from hones.data.items import Items, load_items
from hones.data.shapes.files import write_shapes
from hones.errors import HonesError
from hones.models.loading import load_vlm
from hones.models.planted import CONSTRUCTED, PLANTS, Plant, load_plant
from hones.models.vlm import VLM
from hones.tasks.base import Task

REPORT, SELECT = "report", "select"


@dataclass(frozen=True)
class Variant:
    """What was planted, and how the model is loaded."""

    plant: Plant
    load: Callable[[], VLM]


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
    place = folder / f"{split}-{count}-seed-{seed}"
    if not place.exists():
        part = folder / f".{place.name}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        write_shapes(part, {f"planted-{split}": count}, seed)
        part.replace(place)
    return load_items(place / f"planted-{split}.json")
