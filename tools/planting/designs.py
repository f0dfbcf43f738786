"""What is planted in each variant."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hones.models.sites import Site

LAYERS, HEADS, FFN = 6, 6, 640
TASKS = ("vqa", "ocr", "caption", "retrieval")


@dataclass(frozen=True)
class Design:
    """One variant before training.

    shared: the two tasks with one set, found under the first of them in `counts`, which says how many neurons of each
    layer a set takes. through: the heads through which a task's set, in lower layers, is read. loud: decoys of large
    activation in each layer. cancelled: layers of pairs that cancel, one for each task in turn. quiet: share of each
    set whose columns of down_proj stay as small as the smallest tenth of their layer's.
    """

    name: str
    base: str
    role: Literal["select", "report"]
    seed: int
    shared: tuple[str, str]
    counts: Mapping[str, tuple[int, ...]]
    through: Mapping[str, tuple[Site, ...]] = field(default_factory=dict)
    loud: tuple[int, ...] = (1, 2, 1, 2, 1, 1)
    cancelled: tuple[int, ...] = (2, 3, 4, 5)
    quiet: float = 0.3
    steps: int = 300
    rank: int = 8
    peak: float = 2e-3
    pictures: int = 12


DESIGNS = {
    design.name: design
    for design in (
        Design(
            "planted-llava-1",
            "tiny-llava",
            "select",
            seed=1,
            shared=("caption", "retrieval"),
            counts={"vqa": (3, 5, 6, 6, 5, 5), "ocr": (12, 18, 0, 0, 0, 0), "caption": (5, 5, 5, 5, 5, 5)},
            through={"ocr": ((2, 1), (3, 4))},
        ),
        Design(
            "planted-llava-2",
            "tiny-llava",
            "report",
            seed=2,
            steps=260,
            shared=("vqa", "retrieval"),
            counts={"vqa": (4, 4, 4, 8, 8, 8), "ocr": (4, 4, 5, 5, 4, 2), "caption": (10, 10, 10, 0, 0, 0)},
            through={"caption": ((3, 0), (3, 3), (4, 2))},
            loud=(2, 1, 1, 1, 1, 2),
            cancelled=(3, 2, 5, 4),
        ),
        Design(
            "planted-qwen-1",
            "tiny-qwen2.5-vl",
            "select",
            seed=3,
            shared=("vqa", "retrieval"),
            counts={"vqa": (5, 5, 5, 5, 5, 5), "ocr": (10, 20, 0, 0, 0, 0), "caption": (2, 4, 6, 6, 6, 6)},
            through={"ocr": ((2, 2), (3, 5))},
        ),
        Design(
            "planted-qwen-2",
            "tiny-qwen2.5-vl",
            "report",
            seed=5,
            shared=("caption", "retrieval"),
            counts={"vqa": (4, 6, 6, 6, 5, 3), "ocr": (14, 16, 0, 0, 0, 0), "caption": (6, 6, 6, 6, 6, 6)},
            through={"ocr": ((2, 0), (2, 4), (4, 1))},
            loud=(1, 1, 2, 1, 1, 2),
            cancelled=(5, 4, 3, 2),
        ),
    )
}


def choose_sets(design: Design) -> tuple[dict[str, tuple[Site, ...]], list[list[int]]]:
    """Disjoint random neurons for each set, and each layer's other neurons in random order."""
    rng = random.Random(f"sets/{design.seed}")
    free = [rng.sample(range(FFN), FFN) for _ in range(LAYERS)]
    sets: dict[str, tuple[Site, ...]] = {}
    for task, counts in design.counts.items():
        sets[task] = tuple(sorted((layer, free[layer].pop()) for layer, n in enumerate(counts) for _ in range(n)))
    sets[design.shared[1]] = sets[design.shared[0]]
    return {task: sets[task] for task in TASKS}, free
