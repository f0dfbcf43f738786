"""With workers, the trainings of all tasks of a run are shards of one work; the run leaves the bytes of one process."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml
from helpers import content
from test_stops import ASKED

from hones.data.items import Items
from hones.errors import TaskStops
from hones.method.steering.settings import SteeringSettings
from hones.method.steering.train import learn_scales
from hones.method.steering.trainings import Trained, TrainingJob, TrainingWork, learn
from hones.models.vlm import VLM
from hones.runs.config import read_config
from hones.runs.pipeline import run_config
from hones.runs.stops import Stopped
from hones.sweep.shards import ThisProcess
from hones.tasks import make_task

POPE = Path(__file__).parents[1] / "docs/examples/pope.yaml"
EVIDENCE = {"epochs": 1, "methods": ["no-kl"], "also": []}


class Killed(BaseException):
    pass


class Pool(ThisProcess):
    """A pool as the pipeline opens one: its shards end in another order. trained: the trainings of each work."""

    side_by_side = True

    def __init__(self, vlm: VLM, last: int | None = None) -> None:
        self.vlm, self.last, self.trained = vlm, last, list[list[tuple[str, int]]]()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def begin(self, vlm: VLM, work: Any) -> Any:
        one = work.begin(vlm)
        if isinstance(work, TrainingWork):
            self.trained.append([])

        def compute(shards: Any, bar: Any) -> Iterator[tuple[int, Any]]:
            for number in reversed(range(len(shards))):
                if isinstance(work, TrainingWork):
                    if self.last is not None and len(self.trained[-1]) == self.last:
                        raise Killed
                    job = work.jobs[shards[number]]
                    self.trained[-1].append((job.task.name, job.settings.seed))
                yield number, one(shards[number], bar.update)

        return compute


@pytest.fixture
def config(model_folders: dict[str, Path], shapes: dict[str, Path], tmp_path: Path) -> Path:
    """Retrieval and pope go to their end, `asked` between them stops at neurons."""
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(ASKED))
    more = {"top_k": 12, "ratio": 0.1, "draws": 1, "max_new_tokens": 2, "candidates": 3, "batch_size": 2}
    content = {
        "model": str(model_folders["llava"]),
        "out": "run",
        "data": {name: str(file) for name, file in shapes.items()},
        "limit": {"dev": 2, "test": 2},
        "tasks": ["retrieval", "asked.yaml", str(POPE)],
        **more,
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def run(
    config: Path, steering: dict[str, Any], out: str, pool: Pool | None = None, *, fresh: bool = False
) -> tuple[list[str], dict[str, bytes]]:
    """What is heard of tasks, and what is left."""
    settings = {**yaml.safe_load(config.read_text()), "out": out, "steering": steering}
    if pool is not None:
        settings["ray"] = {"address": "local", "workers": 2}
    file = config.with_name(f"{out}.yaml")
    file.write_text(yaml.safe_dump(settings))
    heard: list[str] = []

    def stopped(why: Stopped) -> None:
        heard.append(f"{why.task} stops at {why.stage}")

    run_config(read_config(file), fresh=fresh, on_outcome=lambda _, o: heard.append(o.task), on_stopped=stopped)
    return heard, content(config.with_name(out))


@pytest.mark.parametrize(
    "steering",
    [pytest.param({"epochs": 1}, id="hones"), pytest.param(EVIDENCE, id="evidence", marks=pytest.mark.slow)],
)
def test_trainings_of_all_tasks_run_side_by_side(
    vlms: dict[str, VLM], config: Path, steering: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after one of them, the next run learns the others."""
    heard, alone = run(config, steering, "alone")
    assert heard == ["retrieval", "asked stops at neurons", "pope"]
    seeds = (3407, 3407) if steering is EVIDENCE else (3407,)
    expected = [(task, seed) for task in ("pope", "retrieval") for seed in seeds]
    killed, pool = Pool(vlms["llava"], last=1), Pool(vlms["llava"])
    opened = iter([killed, pool])
    monkeypatch.setattr("hones.runs.pipeline.open_pool", lambda *_, **__: next(opened))
    with pytest.raises(Killed):
        run(config, steering, "run", killed)
    stages = json.loads((config.parent / "run/run.json").read_text())["stages"]
    assert killed.trained == [expected[:1]] and "pope/mask" in stages and "pope/steer" not in stages
    found = run(config, steering, "run", pool)
    assert found == (["asked stops at neurons", "retrieval", "pope"], alone)
    assert pool.trained == [expected[1:] if steering is EVIDENCE else expected], "one work; HONES's alone: a checkpoint"


def test_a_training_that_stops_its_task_does_not_hold_up_others(vlms: dict[str, VLM], discovery: Items) -> None:
    learned: list[Trained] = []
    settings = SteeringSettings(epochs=1, learning_rate=0.02)
    jobs = []
    for name, neurons in (("retrieval", [(0, 1), (2, 3)]), ("caption", [])):
        task = make_task(name, candidates=3)
        examples = task.examples(discovery)[0][:2]
        jobs.append(TrainingJob(task, examples, neurons, settings, take=learned.append))
    pool = Pool(vlms["llava"])
    learn(pool.vlm, jobs, pool)
    first, other = jobs
    assert pool.trained == [[("caption", 3407), ("retrieval", 3407)]]
    assert [x.scales for x in learned] == [
        learn_scales(pool.vlm, first.task, first.examples, [(0, 1), (2, 3)], settings)
    ]
    first.check()
    with pytest.raises(TaskStops, match="0 neurons and 2 dev items to steer"):
        other.check()
