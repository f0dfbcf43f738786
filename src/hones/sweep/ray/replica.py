"""What runs in a worker: one replica of the model, and shard after shard of the work at hand.

What the user can mend (a HonesError) comes back as its line and not as an exception, so that they see no traceback of
Ray. Everything else is raised: the driver gives the shard to a fresh worker.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import torch

from hones.errors import BadItem, HonesError, HonesWarning, TaskStops
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.sweep.ray.worker import Facts, facts_of, this_node
from hones.sweep.shards import Advance, ShardedWork


@dataclass(frozen=True)
class ReportedError:
    """A HonesError's line. stops_task: it concerns the task at hand alone."""

    line: str
    stops_task: bool = False

    def error(self) -> HonesError:
        """The same error for the driver to raise."""
        return (TaskStops if self.stops_task else HonesError)(self.line)


@dataclass(frozen=True)
class ShardResult:
    """A shard's result, and the warnings of ours that came with it."""

    result: Any
    warnings: tuple[str, ...] = ()


class Replica:
    """A worker. threads: of a replica on a CPU, those of the driver: rounding depends on their number."""

    def __init__(self, spec: ModelSpec, name: str, threads: int) -> None:
        self.spec = spec
        self.name = name
        self.threads = threads
        self.vlm: VLM | None = None
        self.at_hand: tuple[int, Callable[[Any, Advance], Any]] | None = None

    def load(self) -> Facts | ReportedError:
        """Load the model."""
        if self.spec.device == "cpu":
            torch.set_num_threads(self.threads)
        try:
            self.vlm = vlm = self.spec.load()
        except HonesError as error:
            return ReportedError(f"the worker on {self._node()}: {error}")
        vlm.name = self.name
        return facts_of(vlm, ray.get_runtime_context().get_node_id())

    def do(
        self, key: int, stored: list["ray.ObjectRef[ShardedWork[Any, Any]]"], shard: Any
    ) -> ShardResult | ReportedError:
        """One shard of the work `key`, which is fetched and begun when its first shard comes."""
        assert self.vlm is not None
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                if self.at_hand is None or self.at_hand[0] != key:
                    self.at_hand = None
                    work: ShardedWork[Any, Any] = ray.get(stored[0])
                    self.at_hand = key, work.begin(self.vlm)
                result = self.at_hand[1](shard, lambda amount: None)
            except HonesError as error:
                return ReportedError(str(error), isinstance(error, TaskStops))
            except BadItem as error:
                return ReportedError(
                    f"the worker on {self._node()}: {error}; pictures must be at the same path on every node"
                )
        return ShardResult(result, tuple(str(w.message) for w in heard if issubclass(w.category, HonesWarning)))

    def _node(self) -> str:
        return this_node(ray.get_runtime_context().get_node_id())
