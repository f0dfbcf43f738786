"""What a worker is asked for and how it loads its replica, by the GPUs that it has; no cluster is started."""

import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from hones.errors import HonesError
from hones.models.spec import ModelSpec
from hones.sweep.ray import QUIET, open_pool
from hones.sweep.ray.worker import for_workers

os.environ.update(QUIET)


class Asked(Exception):
    pass


def test_workers_of_two_gpus_are_asked_for_and_spread_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from hones.sweep.ray import pool

    options, specs, loaded = list[dict[str, Any]](), list[ModelSpec](), list[dict[str, Any]]()

    def actor(spec: ModelSpec, *_: Any) -> Any:
        specs.append(spec)
        return SimpleNamespace(load=SimpleNamespace(remote=lambda: None))

    def asked(**more: Any) -> Any:
        options.append(more)
        return lambda kind: SimpleNamespace(remote=actor)

    def first_loaded(_: Any) -> Any:
        raise Asked

    connection = SimpleNamespace(check=lambda workers, gpus: None, close=lambda: None)
    monkeypatch.setattr(pool, "Connection", lambda address, workers: connection)
    monkeypatch.setattr(pool.ray, "remote", asked)
    monkeypatch.setattr(pool.ray, "kill", lambda actor: None)
    monkeypatch.setattr(pool.Pool, "_first_loaded", first_loaded)
    with pytest.raises(Asked):
        open_pool(ModelSpec("some/model", dtype="bfloat16"), "auto", workers=3, gpus_per_worker=2.0)
    assert [o["num_gpus"] for o in options] == [2.0]
    assert specs == [ModelSpec("some/model", dtype="bfloat16", device="auto", device_map="auto")] * 3
    monkeypatch.setattr("hones.models.loading.load_vlm", lambda name, **more: loaded.append(more))
    specs[0].load()
    assert (loaded[0]["device"], loaded[0]["device_map"], loaded[0]["dtype"]) == ("auto", "auto", "bfloat16")


@pytest.mark.parametrize(
    ("gpus", "given", "device", "device_map"),
    [
        (0.0, {}, "cpu", None),
        (0.5, {}, "auto", None),
        (1.0, {}, "auto", None),
        (2.0, {}, "auto", "auto"),
        (2.0, {"device_map": {"model": 1}}, "auto", {"model": 1}),
        (0.0, {"device_map": "auto"}, "auto", "auto"),
    ],
)
def test_a_model_is_spread_over_several_gpus_only(
    gpus: float, given: dict[str, Any], device: str, device_map: Any
) -> None:
    found = for_workers(ModelSpec("some/model", **given), gpus)
    assert (found.device, found.device_map) == (device, device_map)


def test_a_single_gpu_cannot_be_named() -> None:
    with pytest.raises(HonesError, match=r"^device cuda:1 on Ray workers; expected cpu, cuda or auto"):
        for_workers(ModelSpec("some/model", device="cuda:1"), 1.0)


def test_a_dead_address_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not asked, which would try for minutes."""
    from hones.sweep.ray import connection

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
        monkeypatch.setattr(connection.ray, "init", lambda **_: pytest.fail("Ray was asked"))
        with pytest.raises(HonesError, match=f"cannot connect to a Ray cluster at {address} .*refused"):
            connection.Connection(address, 1)
