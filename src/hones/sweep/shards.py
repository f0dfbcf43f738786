"""The seam between a stage and where it is computed: work that is cut into shards, here or by many workers.

A stage cuts its work into shards by rules that do not know of workers, hands them out, and takes the results in any
order: it places them by number, or adds them in the order of the shards. Results are therefore the same numbers in one
process and on any number of workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

from tqdm import tqdm

from hones.models.vlm import VLM
from hones.sweep.memory import MemoryPlan, make_plan
from hones.tasks.base import Example, Task

Shard = TypeVar("Shard")
Result = TypeVar("Result")
Advance = Callable[[float], object]
Compute = Callable[[Sequence[Any], tqdm], Iterator[tuple[int, Any]]]


class ShardedWork(ABC, Generic[Shard, Result]):
    """What is done with every shard. It is pickled once for each worker, so it holds no model."""

    @property
    @abstractmethod
    def tasks(self) -> Sequence[Task]:
        """Whose classes travel with it, where they come from a user's file."""

    @abstractmethod
    def begin(self, vlm: VLM) -> Callable[[Shard, Advance], Result]:
        """Get ready on one replica of the model: called once a worker, the function returned once a shard."""

    @abstractmethod
    def name(self, shard: Shard) -> str:
        """What a shard is of, for the line that says that it failed."""


class Workers(ABC):
    """Who computes shards. side_by_side: several at once, so it pays to hand out those of several tasks together."""

    side_by_side: ClassVar[bool] = True

    @abstractmethod
    def plan(self, vlm: VLM, positions_per_picture: int, batch_size: int | None, most: int | None = None) -> MemoryPlan:
        """How much runs at once on each of them (`hones.sweep.memory`); most: bytes that they may take."""

    @abstractmethod
    def begin(self, vlm: VLM, work: ShardedWork[Any, Any]) -> Compute:
        """A function of shards and a progress bar that yields (number of the shard, its result) as they come."""

    def record(self) -> dict[str, Any]:
        """What run.json keeps of them."""
        return {}


class ThisProcess(Workers):
    """The model that the stage was given, one shard after the other."""

    side_by_side: ClassVar[bool] = False

    def plan(self, vlm: VLM, positions_per_picture: int, batch_size: int | None, most: int | None = None) -> MemoryPlan:
        """By the memory that is free now."""
        return make_plan(vlm, positions_per_picture, batch_size, most=most)

    def begin(self, vlm: VLM, work: ShardedWork[Any, Any]) -> Compute:
        """The work is begun with the first shard."""
        begun: list[Callable[[Any, Advance], Any]] = []

        def compute(shards: Sequence[Any], bar: tqdm) -> Iterator[tuple[int, Any]]:
            for number, shard in enumerate(shards):
                if not begun:
                    begun.append(work.begin(vlm))
                yield number, begun[0](shard, bar.update)

        return compute


def in_order(results: Iterator[tuple[int, Result]]) -> Iterator[Result]:
    """Results in the order of their shards; those that come early wait."""
    waiting: dict[int, Result] = {}
    following = 0
    for number, result in results:
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def portable(examples: Sequence[Example]) -> list[Example]:
    """The examples with absolute paths of their pictures: a worker may have another working directory."""
    return [e if e.image is None else replace(e, image=e.image.absolute()) for e in examples]


def named(examples: Sequence[Example]) -> str:
    """What some examples are about, pictures or texts, the first few by name."""
    pictures = [str(about) for about in dict.fromkeys(example.about for example in examples)]
    return ", ".join(pictures[:4]) + (f" and {len(pictures) - 4} more" if len(pictures) > 4 else "")
