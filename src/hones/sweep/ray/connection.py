"""To a Ray cluster: one of this process's own on this machine, a running one, or the one it is connected to already.

Ray stays quiet: no dashboard, nothing of the workers on the terminal (and see `hones.sweep.ray.open_pool`).
"""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import cloudpickle

from hones.errors import HonesError
from hones.log import LOG
from hones.sweep.shards import ShardedWork

SECONDS = 10


def _answers(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself would try for minutes, without a word of ours."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS).close()


class Connection:
    """A connection to the cluster at an address.

    Raises:
        HonesError: there is none.
    """

    def __init__(self, address: str, workers: int) -> None:
        self.address = address
        self.own = not ray.is_initialized()
        if address.startswith("ray://"):
            raise HonesError(
                f"--ray {address}",
                expected="HOST:PORT of the head node, from a node of the cluster (or --ray auto there)",
            )
        if not self.own:
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            quiet |= {"include_dashboard": False, "num_cpus": max(workers, os.cpu_count() or 1)}
        try:
            _answers(address)
            ray.init(address=address, **quiet)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise HonesError(
                f"cannot connect to a Ray cluster at {address} ({str(error).splitlines()[0]})",
                expected="local, auto, or HOST:PORT of a running head node",
            ) from error
        except Exception as error:  # Ray raises it bare
            if "timed out during startup" not in str(error):
                raise
            raise HonesError(
                "Ray did not start here in its 30 s", do="try again when the machine is less busy, or leave --ray out"
            ) from error

    def gpus_per_worker(self) -> float:
        """One for each worker where a node has one, else none."""
        return 1.0 if self._most("GPU") >= 1 else 0.0

    def check(self, workers: int, gpus: float) -> None:
        """Raises HonesError where this machine cannot have such workers; a cluster may still grow, which is logged."""
        total = ray.cluster_resources()
        if self.address == "local" and gpus * workers > total.get("GPU", 0):
            raise HonesError(
                f"{workers} workers with {gpus:g} GPUs each, and {total.get('GPU', 0):g} GPUs here",
                do="use fewer --workers or another --gpus-per-worker",
            )
        if gpus > self._most("GPU") or workers > total.get("CPU", 0) or gpus * workers > total.get("GPU", 0):
            LOG.warning("%d workers with %g GPUs do not fit yet: %s", workers, gpus, total)

    def _most(self, resource: str) -> float:
        """Of one node."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        return float(max((node["Resources"].get(resource, 0) for node in nodes), default=0))

    def close(self) -> None:
        """Leave it; a cluster of this process's own ends."""
        if self.own and ray.is_initialized():
            ray.shutdown()


@contextmanager
def by_value(work: ShardedWork[Any, Any]) -> Iterator[None]:
    """Classes of tasks that come from a file travel with the work: workers cannot import them."""
    modules = {sys.modules[type(task).__module__] for task in work.tasks}
    travelling = [m for m in modules if m.__name__.startswith("hones_user_")]
    for module in travelling:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in travelling:
            cloudpickle.unregister_pickle_by_value(module)
