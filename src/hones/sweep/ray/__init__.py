"""Shards of a stage on the workers of a Ray cluster: local, SLURM or Kubernetes. `ray` is an optional extra.

worker.py    how a worker loads its replica, and what it says of it
replica.py   what runs in a worker
outline.py   the model that the driver has, without weights
pool.py      the driver: hands out shards, replaces workers, gives up with a name
"""

import math
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hones.errors import HonesError

if TYPE_CHECKING:
    from hones.models.spec import ModelSpec
    from hones.sweep.ray.pool import Pool

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Read by Ray when it is imported: no usage statistics, and no notices of dying workers on standard output."""


def check_request(address: str | None, workers: int | None, gpus_per_worker: float | None) -> None:
    """Raises HonesError for --workers and --gpus-per-worker that make no sense, or where Ray is not installed."""
    if address is None and (workers is not None or gpus_per_worker is not None):
        raise HonesError("--workers or --gpus-per-worker without --ray", expected="--ray local or --ray HOST:PORT")
    if workers is not None and workers < 1:
        raise HonesError(f"{workers}", argument="workers", expected="at least 1")
    gpus = gpus_per_worker or 0
    if not (math.isfinite(gpus) and gpus >= 0 and (gpus <= 1 or gpus == int(gpus))):
        raise HonesError(f"{gpus:g}", argument="gpus_per_worker", expected="0, a part of one, or a whole number")
    if address is not None and find_spec("ray") is None:
        raise HonesError("--ray needs the package ray", do="pip install 'hones[ray]'")


def open_pool(
    spec: "ModelSpec", address: str, workers: int | None = None, gpus_per_worker: float | None = None
) -> "Pool":
    """A `hones.sweep.ray.pool.Pool` of workers, by default one; close it, or use it as a context manager.

    Raises:
        HonesError: as `check_request` and `Pool`.
    """
    check_request(address, workers, gpus_per_worker)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from hones.sweep.ray.pool import Pool

    return Pool(spec, address, workers or 1, gpus_per_worker)
