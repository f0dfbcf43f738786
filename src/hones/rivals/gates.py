"""Gradients with respect to gates on all neurons, in shards of prompts that workers may take, on disk after each.

With a gate g[l,i] on z[l,i] at every position (1 open, 0 closed), a `Gated` is a number V(g) that is a sum over
prompts, and its gradient dV/dg [L, I]. `GateGradients` sums those of one or several of them, round after round, each
round at gates of its own. Shards are whole pieces (prompts that run together), at most 32 a round and job, and are
added in their order in float64, so the sums are the same bytes on any number of workers and after a kill.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hones.models.interventions import scaling
from hones.models.vlm import VLM, frozen
from hones.models.writing import importance_shape
from hones.progress import progress_bar
from hones.rivals.base import Context, Importance
from hones.rivals.reading import ROWS_WITH_GRADIENT
from hones.sweep.resume import refuse_other_batches
from hones.sweep.shards import Advance, ShardedWork, in_order
from hones.tasks.base import Task

MOST_SHARDS = 32
"""A round and job: a 7B model's sum over four tasks and six rounds is 68 MB, written after each."""


WHOLE_PIECES = "pieces"
"""How shards are cut, in the plan of a running sum."""


class Gated(ABC):
    """V(g), a sum over `count` prompts, `rows` of them at once."""

    count: int
    rows: int

    def value(self, gates: Importance) -> float:
        """V with z[l,i] times its gate."""
        with torch.no_grad():
            return sum(float(v) for v in self.parts(torch.from_numpy(gates), range(self.count)))

    def gradient(
        self, gates: Importance, prompts: range | None = None, advance: Advance = lambda prompts: None
    ) -> Importance:
        """dV / dg, summed over batches in float64. The model must be frozen.

        Args:
            prompts: of these alone.
            advance: hears of prompts.
        """
        total = np.zeros(gates.shape)
        leaf = torch.from_numpy(gates).requires_grad_()
        prompts = range(self.count) if prompts is None else prompts
        with torch.enable_grad():
            for batch, value in zip(self.passes(prompts), self.parts(leaf, prompts), strict=True):
                total += torch.autograd.grad(value, leaf)[0].double().numpy()
                advance(len(batch))
        return total

    def batches(self, prompts: range) -> list[range]:
        """The prompts, `rows` at once."""
        return [prompts[start : start + self.rows] for start in range(0, len(prompts), self.rows)]

    def passes(self, prompts: range) -> list[range]:
        """The prompts that run at once: each batch."""
        return self.batches(prompts)

    @property
    def pieces(self) -> list[range]:
        """The prompts, those together that no shard parts."""
        return [range(n, n + 1) for n in range(self.count)]

    def hasten(self, rounds: int, most: int | None) -> bool:
        """Compute the same with less work from now on; whether there is a way: most have none. The model is frozen.

        Args:
            rounds: how often gradients will be asked for.
            most: bytes that may be kept, where not all that are free may be.
        """
        return False

    @abstractmethod
    def about(self, prompts: range) -> str:
        """What some of the prompts are about, in a few words."""

    @abstractmethod
    def parts(self, gates: Float[Tensor, "layers neurons"], prompts: range) -> Iterator[Float[Tensor, ""]]:
        """What every one of the `passes` over these prompts adds to V."""


@contextmanager
def gates_on(vlm: VLM, gates: Float[Tensor, "layers neurons"]) -> Iterator[None]:
    """z[l,i] times its gate in this context, at every position; gradients flow to the gates."""
    every = torch.arange(gates.shape[1])
    layers = range(len(gates))
    with scaling(vlm.anatomy, dict.fromkeys(layers, every), {n: gates[n] - 1 for n in layers}):
        yield


class Job(Protocol):
    """What a `Gated` is made from on every worker: portable, without a model."""

    @property
    def tasks(self) -> Sequence[Task]:
        """Whose classes travel with it."""
        ...

    def __call__(self, vlm: VLM, rows: int) -> Gated:
        """On a replica of the model, or on the outline of one: its count is asked for there."""
        ...


@dataclass(frozen=True)
class GateShard:
    """Prompts of a job, what they are about, and the gates [L, I] that they are asked at."""

    job: int
    prompts: range
    about: str
    gates: Importance | None = None


@dataclass(frozen=True)
class GateWork(ShardedWork[GateShard, Importance]):
    """A shard's result is its prompts' share of dV/dg.

    exact: by the definition, whole passes. rounds, most: as `Gated.hasten` has them.
    """

    jobs: Sequence[Job]
    rows: int
    rounds: int = 1
    most: int | None = None
    exact: bool = False

    @property
    def tasks(self) -> list[Task]:
        return [task for job in self.jobs for task in job.tasks]

    def begin(self, vlm: VLM) -> Callable[[GateShard, Advance], Importance]:
        """The gradients leave a model that learns as it was."""
        made: dict[int, Gated] = {}

        def compute(shard: GateShard, advance: Advance) -> Importance:
            assert shard.gates is not None
            with frozen(vlm.model):
                if shard.job not in made:
                    made[shard.job] = self.jobs[shard.job](vlm, self.rows)
                    if not self.exact:
                        made[shard.job].hasten(self.rounds, self.most)
                return made[shard.job].gradient(shard.gates, shard.prompts, advance)

        return compute

    def name(self, shard: GateShard) -> str:
        return shard.about


class GateGradients:
    """dV/dg of several jobs, round after round, each at gates of its own.

    Args:
        rounds: at most so many; with `context.sweep.running_sum` they are on disk, shard by shard. The engine naive
            takes whole passes.

    Raises:
        HonesError: what a job raises, or a running sum of other batches.
    """

    def __init__(self, context: Context, jobs: Sequence[Job], rounds: int) -> None:
        settings = context.sweep
        rows = settings.batch_size or ROWS_WITH_GRADIENT
        shape = (rounds, len(jobs), *importance_shape(context.vlm))
        self.running = settings.running_sum(shape, {"rows": rows, "cut": WHOLE_PIECES})
        if self.running.path is not None:
            refuse_other_batches(self.running.path, "ranking", self.running.plan["rows"], settings.batch_size)
        exact = settings.engine == "naive"
        work = GateWork(jobs, self.running.plan["rows"], rounds, settings.most_bytes, exact)
        # a driver's outline of the model is enough to count prompts
        asked = [job(context.vlm, work.rows) for job in jobs]
        cut = shards_of if self.running.plan.get("cut") == WHOLE_PIECES else _cut_anywhere
        self.shards = [GateShard(n, part, gated.about(part)) for n, gated in enumerate(asked) for part in cut(gated)]
        self.round = 0
        total = rounds * sum(gated.count for gated in asked)
        self.bar = progress_bar(f"{context.task.name}: gradients", total, " prompts")
        self.compute = settings.workers.begin(context.vlm, work)

    def at(self, gates: Importance) -> Float[np.ndarray, "jobs layers neurons"]:
        """Those of the next round, float64. What is on disk of it was computed at the same gates: it depends on what
        the rounds before have summed, and nothing else.
        """
        done = min(len(self.shards), max(0, self.running.done - self.round * len(self.shards)))
        self.bar.update(sum(len(shard.prompts) for shard in self.shards[:done]))
        missing = [replace(shard, gates=gates) for shard in self.shards[done:]]
        if missing:
            for shard, part in zip(missing, in_order(self.compute(missing, self.bar)), strict=True):
                self.running.add(part, (self.round, shard.job))
        self.round += 1
        if self.round == len(self.running.total):
            self.bar.close()
        return self.running.total[self.round - 1]


def shards_of(gated: Gated) -> list[range]:
    """Its prompts in at most MOST_SHARDS ranges of whole pieces."""
    shards: list[range] = []
    for piece in gated.pieces:
        if shards and len(shards[-1]) < _size(gated):
            shards[-1] = range(shards[-1].start, piece.stop)
        else:
            shards.append(piece)
    return shards


def _cut_anywhere(gated: Gated) -> list[range]:
    """As sums on disk were cut before there were pieces."""
    size = _size(gated)
    return [range(start, min(start + size, gated.count)) for start in range(0, gated.count, size)]


def _size(gated: Gated) -> int:
    """Prompts of a shard: whole batches."""
    return gated.rows * -(-gated.count // (gated.rows * MOST_SHARDS))
