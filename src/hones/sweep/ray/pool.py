"""The driver: hands shards out, takes results in any order, replaces workers that die, and gives up with a name.

1. Every worker is a Ray actor that loads its replica; the first that has sets what all must be (`Facts`).
2. Each gets two shards at a time, the next one waiting at the worker: fast workers come back sooner and take more.
3. A worker that dies, or raises, is replaced. The shard it was at goes to the end of the line; what it had waiting goes
   first. A shard that fails three times stops the run, after the others are done; its name is in the error.
4. What the user can mend, such as a picture that a node does not see, stops the run at once, with its line.

Workers keep nothing. The journal is the driver's: killed, it goes on with any number of workers.
"""

import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from tqdm import tqdm

from hones.errors import HonesError, HonesWarning
from hones.log import LOG
from hones.models.spec import ModelSpec
from hones.models.vlm import VLM
from hones.sweep.memory import MemoryPlan, make_plan
from hones.sweep.ray.connection import Connection, by_value
from hones.sweep.ray.outline import outline
from hones.sweep.ray.replica import Replica, ReportedError, ShardResult
from hones.sweep.ray.worker import Facts, for_workers
from hones.sweep.shards import Compute, ShardedWork, Workers

AT_A_WORKER = 2
MOST_FAILURES = 3
PATIENCE = 600.0
"""Seconds without any worker after which the run stops."""


@dataclass
class WorkerHandle:
    """A worker of the pool, or the one that took its place. busy: numbers of shards by call, the first at work."""

    actor: Any
    loading: Any
    facts: Facts | None = None
    busy: dict[Any, int] = field(default_factory=dict)


class Pool(Workers):
    """Workers with a replica each, in a Ray cluster. A context manager: workers end with it.

    vlm: what stages are given in place of the model: the replicas' outline, without weights.

    Args:
        spec: how the workers load the model.
        address: "local" for workers on this machine, or HOST:PORT or "auto" of a running cluster that this machine is
            part of.
        gpus_per_worker: several: the model is spread over them; a part of one: workers share it.

    Raises:
        HonesError: no such cluster, or none whose workers could be what is asked; the model cannot be loaded there.
    """

    def __init__(self, spec: ModelSpec, address: str, workers: int = 1, gpus_per_worker: float | None = None) -> None:
        self.connection = Connection(address, workers)
        self.spec = spec
        self.lost = 0
        self.keys = count(1)
        self.handles: list[WorkerHandle] = []
        try:
            gpus = self.connection.gpus_per_worker() if gpus_per_worker is None else gpus_per_worker
            self.connection.check(workers, gpus)
            self.gpus = gpus
            self.loaded = for_workers(spec, gpus)
            options = {"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
            self.kind: Any = ray.remote(**options)(Replica)
            LOG.info("%d workers with %g GPUs each at %s", workers, gpus, address)
            self.handles = [self._start_worker() for _ in range(workers)]
            self.first = self._first_loaded()
            self.vlm: VLM = outline(self.loaded, spec.name, self.first)
            self.vlm.conventions.say(spec.name)  # what a worker says nobody reads
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and the cluster if it is this process's own."""
        for handle in self.handles:
            ray.kill(handle.actor)
        self.handles = []
        self.connection.close()

    def plan(self, vlm: VLM, positions_per_picture: int, batch_size: int | None, most: int | None = None) -> MemoryPlan:
        """By the least memory that a worker had free after loading; workers of one machine share its memory."""
        loaded = self.loaded_facts
        sharing = Counter(facts.node for facts in loaded) if self.first.device == "cpu" else Counter[str]()
        free = min(facts.free // max(1, sharing[facts.node]) for facts in loaded or [self.first])
        return make_plan(vlm, positions_per_picture, batch_size, free, most)

    def begin(self, vlm: VLM, work: ShardedWork[Any, Any]) -> Compute:
        """The work is stored once in the cluster; each worker fetches it with its first shard."""
        if vlm is not self.vlm:
            raise HonesError(
                f"{vlm.name} is not what these workers have loaded",
                expected="pool.vlm",
                do="a model in memory cannot travel: save it to a folder and give that",
            )
        key = next(self.keys)
        with by_value(work):
            stored = ray.put(work)

        def compute(shards: Sequence[Any], bar: tqdm) -> Iterator[tuple[int, Any]]:
            return _ShardQueue(self, key, stored, work, shards, bar).run()

        return compute

    def record(self) -> dict[str, Any]:
        """How many workers, where, on what, and how many were replaced."""
        cards = Counter(facts.card for facts in self.loaded_facts)
        nodes = Counter(facts.node for facts in self.loaded_facts)
        counts = {"count": len(self.handles), "gpus_per_worker": self.gpus, "replaced": self.lost}
        return {"workers": {**counts, "nodes": dict(nodes), "devices": dict(cards)}}

    @property
    def loaded_facts(self) -> list[Facts]:
        """Of the workers that have loaded their replica."""
        return [handle.facts for handle in self.handles if handle.facts is not None]

    def _start_worker(self) -> WorkerHandle:
        actor = self.kind.remote(self.loaded, self.spec.name, torch.get_num_threads())
        return WorkerHandle(actor, actor.load.remote())

    def _first_loaded(self) -> Facts:
        """Wait until one worker has its replica."""
        until = time.monotonic() + PATIENCE
        failures = 0
        while time.monotonic() < until:
            done, _ = ray.wait([handle.loading for handle in self.handles], num_returns=1, timeout=5)
            for handle in [s for s in self.handles if s.loading in done]:
                if self.take_loaded(handle, None):
                    assert handle.facts is not None
                    return handle.facts
                failures += 1
                if failures >= MOST_FAILURES:
                    raise self.unable(failures)
        raise HonesError(
            f"no worker of {len(self.handles)} has started in {PATIENCE:g} s", do="see `ray status` for what is free"
        )

    def take_loaded(self, handle: WorkerHandle, first: Facts | None) -> bool:
        """Take what a worker says after loading; False where it died, and another one now loads in its place.

        Raises:
            HonesError: it cannot load the model, or has another one than `first`.
        """
        try:
            answer: Facts | ReportedError = ray.get(handle.loading)
        except RayError as error:
            LOG.warning("a worker was lost while it loaded the model (%s)", _line(error))
            self.replace(handle)
            return False
        if isinstance(answer, ReportedError):
            raise answer.error()
        if first is not None:
            answer.check_same(first)
        handle.facts = answer
        LOG.info("worker %d on %s (%s) has loaded the model", answer.pid, answer.node, answer.card)
        return True

    def replace(self, handle: WorkerHandle) -> None:
        """Another worker in the place of one that is lost."""
        ray.kill(handle.actor)
        self.lost += 1
        fresh = self._start_worker()
        handle.actor = fresh.actor
        handle.loading = fresh.loading
        handle.facts = None
        handle.busy.clear()

    def unable(self, failures: int) -> HonesError:
        return HonesError(
            f"{failures} workers in a row were lost while they loaded {self.spec.name}",
            expected="a node with enough memory for the model",
            do="use more GPUs per worker or a smaller --dtype; RUN/hones.log has what Ray says",
        )


@dataclass
class _ShardQueue:
    """One list of shards on a pool's workers.

    stored: the work, in the cluster. given_up: the shards at which too many workers failed, and why.
    """

    pool: Pool
    key: int
    stored: Any
    work: ShardedWork[Any, Any]
    shards: Sequence[Any]
    bar: tqdm
    failures: Counter[int] = field(default_factory=Counter)
    given_up: dict[int, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    lost_loading: int = 0

    def __post_init__(self) -> None:
        self.queue = deque(range(len(self.shards)))
        for handle in self.pool.handles:
            handle.busy.clear()

    def run(self) -> Iterator[tuple[int, Any]]:
        """Results as they come."""
        alone_since = time.monotonic()
        while self.queue or any(handle.busy for handle in self.pool.handles):
            self._hand_out()
            calls = {handle.loading: handle for handle in self.pool.handles if handle.facts is None}
            calls |= {call: handle for handle in self.pool.handles for call in handle.busy}
            done, _ = ray.wait([*calls], num_returns=1, timeout=5)
            self.bar.set_postfix(workers=f"{len(self.pool.loaded_facts)}/{len(self.pool.handles)}", refresh=not done)
            for call in done:
                handle = calls[call]
                if call in handle.busy:
                    yield from self._finished(handle, call)
                elif call == handle.loading:
                    self.lost_loading = 0 if self.pool.take_loaded(handle, self.pool.first) else self.lost_loading + 1
                    if self.lost_loading >= MOST_FAILURES * len(self.pool.handles):
                        raise self.pool.unable(self.lost_loading)
            if self.pool.loaded_facts:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > PATIENCE:
                raise HonesError(
                    f"all workers are lost, and none came back in {PATIENCE:g} s",
                    do="run again when there are nodes: what was finished is kept",
                )
        if self.given_up:
            number, why = next(iter(self.given_up.items()))
            more = f" ({len(self.given_up) - 1} more like it)" if len(self.given_up) > 1 else ""
            raise HonesError(
                f"{MOST_FAILURES} workers failed at the same shard: {self.work.name(self.shards[number])}: {why}{more}",
                do="look at these items, then run again: all others are kept",
            )

    def _hand_out(self) -> None:
        """One shard to every worker that has loaded, then a second."""
        for depth in range(1, AT_A_WORKER + 1):
            for handle in self.pool.handles:
                if self.queue and handle.facts is not None and len(handle.busy) < depth:
                    number = self.queue.popleft()
                    call = handle.actor.do.remote(self.key, [self.stored], self.shards[number])
                    handle.busy[call] = number

    def _finished(self, handle: WorkerHandle, call: Any) -> Iterator[tuple[int, Any]]:
        number = handle.busy[call]
        try:
            answer: ShardResult | ReportedError = ray.get(call)
        except RayError as error:
            self._lost(handle, number, error)
            return
        del handle.busy[call]
        if isinstance(answer, ReportedError):
            raise answer.error()
        for line in answer.warnings:
            if line not in self.said:
                self.said.add(line)
                warnings.warn(line, HonesWarning, stacklevel=2)
        yield number, answer.result

    def _lost(self, handle: WorkerHandle, number: int, error: RayError) -> None:
        """The shard that a lost worker was at fails once; those that waited there are handed out again."""
        raised = isinstance(error, RayTaskError)
        at_work = number if raised else next(iter(handle.busy.values()))
        waiting = [n for n in handle.busy.values() if n != at_work]
        facts = handle.facts
        who = f"worker {facts.pid} on {facts.node}" if facts else "a worker"
        LOG.warning("%s is lost at %s (%s)", who, self.work.name(self.shards[at_work]), _line(error))
        LOG.info("what Ray says: %s", error)
        self.pool.replace(handle)
        self.queue.extendleft(reversed(waiting))  # one after the other to the left: the first of them is first again
        self.failures[at_work] += 1
        if self.failures[at_work] >= MOST_FAILURES:
            self.given_up[at_work] = _line(error)
        else:
            self.queue.append(at_work)


def _line(error: RayError) -> str:
    """What went wrong: of an exception in a worker its own last line, of a death that it died."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {' '.join(str(error.cause).split())[:300]}"
    return "its process or node ended; was it out of memory?"
