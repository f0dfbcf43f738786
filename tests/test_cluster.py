"""Ray workers: the same bytes as one process with any number of them, whatever dies, and one line for every mistake.

One cluster of two simulated nodes, with a pool of two workers on them, serves the whole file.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import content
from test_cli import call
from tqdm import tqdm

from hones import load_items, load_vlm, make_task
from hones.errors import BadItem, HonesError
from hones.method.steering.settings import SteeringSettings
from hones.models.spec import ModelSpec
from hones.rivals import make_methods
from hones.runs.comparing import ComparisonRequest, compare
from hones.runs.evidence import EvidenceRequest
from hones.runs.record import RunFolder
from hones.runs.steering import steer
from hones.runs.study import Study
from hones.runs.ways import make_steerings
from hones.sweep.journal import Journal
from hones.sweep.ray import QUIET, open_pool
from hones.sweep.run import SweepSettings
from hones.sweep.shards import ShardedWork

os.environ.update(QUIET)
pytestmark = [
    # Ray's own: files of its logs and pipes of its processes, which it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed file <_io:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SMALL = 80 * 2**20


def started_cluster(tries: int = 3) -> Any:
    """Two simulated nodes. Ray gives a node 30 s to start, too few on a busy machine, and raises an `Exception`."""
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 3, "num_gpus": 0, "object_store_memory": SMALL}
    cluster = Cluster()
    try:
        cluster.add_node(**node, include_dashboard=False)
        cluster.add_node(**node)
    except Exception as error:
        cluster.shutdown()
        if tries == 1 or "timed out during startup" not in str(error):
            raise
        return started_cluster(tries - 1)
    return cluster


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import ray

    cluster = started_cluster()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield str(cluster.address)
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def pool(address: str, model_folders: dict[str, Path]) -> Iterator[Any]:
    with open_pool(ModelSpec(str(model_folders["qwen"])), address, workers=2, gpus_per_worker=0.0) as opened:
        yield opened


def study_in(out: Path, vlm: Any, **settings: Any) -> Study:
    return Study(vlm, RunFolder(out), SweepSettings(batch_size=1, max_new_tokens=4, **settings))


def run_stages(study: Study, shapes: dict[str, Path]) -> dict[str, bytes]:
    """Every stage that has workers; the bytes of what it leaves, without times, who did it and what ended first."""
    tasks = [make_task(name, candidates=4) for name in ("retrieval", "vqa")]
    retrieval, _ = tasks
    splits = {name: load_items(file) for name, file in shapes.items()}
    study.heads(tasks, splits["discovery"])
    folder = study.run.path / "retrieval"
    study.neurons(retrieval, splits["discovery"], folder / "heads.json", 0.1)
    study.mask(retrieval, splits["test"], folder / "neurons.json", 2)
    return content(study.run.path)


@pytest.fixture(scope="module")
def alone(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("alone")
    return run_stages(study_in(out, load_vlm(str(model_folders["qwen"]))), shapes)


def check_stages_on(pool: Any, shapes: dict[str, Path], alone: dict[str, bytes], out: Path, workers: int) -> None:
    study = study_in(out, pool.vlm, workers=pool)
    found = run_stages(study, shapes)
    assert found.keys() == alone.keys() and "retrieval/neuron_importance.npy" in found
    assert [name for name in found if found[name] != alone[name]] == []
    record = study.run.record.stages["retrieval/heads"].more
    assert record["workers"]["count"] == workers and len(record["workers"]["nodes"]) in (1, 2)


def test_two_workers_leave_the_bytes_of_one_process(
    pool: Any, shapes: dict[str, Path], alone: dict[str, bytes], tmp_path: Path
) -> None:
    check_stages_on(pool, shapes, alone, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_leaves_the_bytes_of_one_process(
    workers: int,
    address: str,
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    alone: dict[str, bytes],
    tmp_path: Path,
) -> None:
    spec = ModelSpec(str(model_folders["qwen"]))
    with open_pool(spec, address, workers=workers, gpus_per_worker=0.0) as pool:
        check_stages_on(pool, shapes, alone, tmp_path, workers)


def test_comparison_and_trainings_run_on_workers_with_the_same_bytes(
    pool: Any, model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path
) -> None:
    def run(study: Study) -> dict[str, bytes]:
        task = make_task("retrieval", candidates=4)
        splits = {name: load_items(file) for name, file in shapes.items()}
        study.heads([task], splits["discovery"])
        folder = study.run.path / "retrieval"
        study.neurons(task, splits["discovery"], folder / "heads.json", 0.1)
        methods = make_methods("dvp,atp,random,rounds")
        request = ComparisonRequest(methods, budgets=())
        compare(study, task, splits["discovery"], splits["test"], folder / "heads.json", request)
        request = EvidenceRequest(make_steerings("hones,no-kl,grid-search"), (1, 2))
        settings = SteeringSettings(epochs=1, learning_rate=0.02)
        steer(study, task, splits["dev"], splits["test"], folder / "neurons.json", settings, request)
        return content(study.run.path)

    alone = run(study_in(tmp_path / "alone", load_vlm(str(model_folders["qwen"]))))
    found = run(study_in(tmp_path / "away", pool.vlm, workers=pool))
    assert found.keys() == alone.keys() and "retrieval/steering/no-kl/seed-2/scales.json" in found
    assert [name for name in found if found[name] != alone[name]] == []


@dataclass(frozen=True)
class Strange(ShardedWork[str, Any]):
    """A shard is what the worker does."""

    folder: Path

    @property
    def tasks(self) -> list[Any]:
        return []

    def begin(self, vlm: Any) -> Any:
        def compute(shard: str, _: Any) -> Any:
            what, _, number = shard.partition(" ")
            with (self.folder / f"{number}.runs").open("a") as file:
                file.write(f"{os.getpid()}\n")
            runs = (self.folder / f"{number}.runs").read_text().count("\n")
            if what == "die" or (what == "die-once" and runs == 1):
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "raise":
                raise ValueError("a bad number")
            if what == "picture":
                raise BadItem("no picture /elsewhere/7.png")
            if what == "mistake":
                raise HonesError("a mistake of the user", do="mend it")
            time.sleep(0.02)
            return f"result {number}"

        return compute

    def name(self, shard: str) -> str:
        return f"pictures of {shard}"


def compute(pool: Any, folder: Path, shards: list[str], found: dict[int, str] | None = None) -> dict[int, str]:
    """The results; those that came before an error are in `found`."""
    found = {} if found is None else found
    with tqdm(disable=True) as bar:
        for number, result in pool.begin(pool.vlm, Strange(folder))(shards, bar):
            found[number] = result
    return found


def by_value() -> Any:
    from ray import cloudpickle

    return cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_what_the_user_can_mend_comes_as_its_line(pool: Any, tmp_path: Path) -> None:
    by_value()
    with pytest.raises(HonesError, match=r"^a mistake of the user; mend it$"):
        compute(pool, tmp_path, ["mistake 0"])
    with pytest.raises(HonesError, match=r"^the worker on \S+/\w{8}: no picture /elsewhere/7.png; .* every node$"):
        compute(pool, tmp_path, ["picture 0"])


def test_a_model_in_memory_cannot_travel(pool: Any, model_folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(HonesError, match="save it to a folder"):
        pool.begin(load_vlm(str(model_folders["qwen"])), Strange(tmp_path))


DRIVER = """
import sys
from hones.cli import main
from hones.sweep.journal import Journal
append = Journal.append
def slowly(self, group, statistics):
    append(self, group, statistics)
    print("group", group, flush=True)
    if sum(1 for _ in self.path.open()) == 4:
        sys.stdin.readline()
Journal.append = slowly
main()
"""


def test_a_killed_driver_is_followed_by_another_number_of_workers(
    address: str,
    pool: Any,
    model_folders: dict[str, Path],
    shapes: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, options = str(model_folders["qwen"]), ("--task", "retrieval", "--candidates", "4", "--batch-size", "1")
    where = ("--model", model, "--data", str(shapes["discovery"]), *options, "--max-new-tokens", "4")
    assert call("heads", *where, "--out", tmp_path / "alone") == 0
    ray = ("--ray", address, "--workers", "1", "--gpus-per-worker", "0")
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, "heads", *where, "--out", str(tmp_path / "run"), *ray],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as driver:
        assert driver.stdout is not None
        journalled = [int(driver.stdout.readline().split()[1]) for _ in range(3)]
        driver.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run/retrieval/heads.json").exists()
    added: list[int] = []
    append = Journal.append
    monkeypatch.setattr(Journal, "append", lambda self, n, found: (added.append(n), append(self, n, found)))
    study = Study(pool.vlm, RunFolder(tmp_path / "run"), SweepSettings(workers=pool, max_new_tokens=4))
    study.heads([make_task("retrieval", candidates=4)], load_items(shapes["discovery"]))
    assert sorted([*journalled, *added]) == list(range(6)), "nothing journalled is computed again"
    assert content(tmp_path / "run") == content(tmp_path / "alone")


def test_mistakes_are_one_line(
    model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def said(*more: str) -> str:
        where = ("--model", model_folders["qwen"], "--data", shapes["discovery"], "--task", "vqa")
        assert call("heads", *where, "--out", tmp_path / "run", *more) == 2
        return " ".join(capsys.readouterr().err.split())

    assert "--workers 0; expected at least 1" in said("--ray", "local", "--workers", "0")
    assert "--gpus-per-worker 1.5; expected 0, a part of one, or a whole number" in said(
        "--ray", "local", "--gpus-per-worker", "1.5"
    )
    assert "without --ray" in said("--workers", "2")
    monkeypatch.setattr("hones.sweep.ray.find_spec", lambda name: None)
    assert "pip install 'hones[ray]'" in said("--ray", "local")


def test_workers_must_compute_the_same_numbers(pool: Any) -> None:
    other = replace(pool.first, dtype="bfloat16", node="elsewhere/1")
    with pytest.raises(HonesError, match=r"worker on elsewhere/1 has dtype bfloat16, the one on .* float32"):
        other.check_same(pool.first)


def test_a_model_that_workers_cannot_load_is_one_line(pool: Any, tmp_path: Path) -> None:
    """What a worker answers, said here: another process would take its time to import what it needs."""
    import ray

    from hones.sweep.ray.pool import WorkerHandle
    from hones.sweep.ray.replica import Replica

    answer = Replica(ModelSpec(str(tmp_path)), "mine", 1).load()
    with pytest.raises(HonesError, match=r"^the worker on \S+: .* has no config.json"):
        pool.take_loaded(WorkerHandle(None, ray.put(answer)), None)


# The following end workers. They come last: nothing waits for those that take their place.


def test_a_worker_that_is_killed_is_replaced_and_its_shard_redone(pool: Any, tmp_path: Path) -> None:
    from hones.sweep.ray.pool import AT_A_WORKER

    by_value()
    lost = pool.lost
    shards = [f"{'die-once' if n == 3 else 'do'} {n}" for n in range(16)]
    assert compute(pool, tmp_path, shards) == {n: f"result {n}" for n in range(16)}
    assert pool.lost == lost + 1
    runs = Counter({n: (tmp_path / f"{n}.runs").read_text().count("\n") for n in range(16)})
    again = runs - Counter(range(16))
    assert again[3] == 1, "the shard at which the worker died"
    assert again.total() <= AT_A_WORKER, "and at most what it had in hand: an answer may die with it on its way"


def test_a_shard_that_fails_again_and_again_is_named_after_all_others(
    pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice here: each failure costs the start of a worker. The second is at one that took another's place."""
    by_value()
    monkeypatch.setattr("hones.sweep.ray.pool.MOST_FAILURES", 2)
    found: dict[int, str] = {}
    with pytest.raises(HonesError, match=r"^2 workers failed at .*pictures of raise 2: ValueError: a bad number"):
        compute(pool, tmp_path, [f"{'raise' if n == 2 else 'do'} {n}" for n in range(8)], found)
    assert sorted(found) == [0, 1, 3, 4, 5, 6, 7]
    assert (tmp_path / "2.runs").read_text().count("\n") == 2
