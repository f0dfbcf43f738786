"""A training that is killed goes on where it was, and ends with the same bytes; checkpoints of others are refused."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from hones import HonesError, RunFolder, SteeringSettings, Study, learn_scales, load_items, load_vlm, make_task
from hones.data.items import Items
from hones.method.found import RankedNeuron
from hones.method.steering import train
from hones.method.steering.settings import EarlyStopping
from hones.models.vlm import VLM
from hones.runs.artifacts import write_result, write_scales
from hones.sweep.run import SweepSettings
from hones.tasks.base import Example

NEURONS = [(0, 1), (1, 2), (2, 0), (2, 19)]
SETTINGS = SteeringSettings(
    learning_rate=0.02, epochs=3, batch_size=2, early_stopping=EarlyStopping(share=0.2, patience=9)
)
KILLED = """
import os, signal, sys
import torch
sys.path.insert(0, {tests!r})
torch.set_num_threads({threads})
from test_checkpoint import learn
from hones.method.steering import checkpoint, train
checkpoint.SECONDS_BETWEEN = 0.0
step = train._step
def killed(what, objective, plan, state, settings):
    if state.step == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(what, objective, plan, state, settings)
train._step = killed
learn({model!r}, {data!r}, {file!r})
"""


def learn(model: str, data: str, checkpoint: str) -> Any:
    """A training of a few steps, as a process of its own would run it."""
    return learn_scales(
        load_vlm(model), *task_and_examples(load_items(Path(data))), NEURONS, SETTINGS, checkpoint=Path(checkpoint)
    )


def task_and_examples(items: Items) -> tuple[Any, list[Example]]:
    task = make_task("caption")
    return task, task.examples(items)[0]


def written(scales: Any, file: Path) -> bytes:
    write_scales(file, scales)
    return file.read_bytes()


def test_a_killed_training_ends_with_the_same_bytes(model_folders, shapes: dict[str, Path], tmp_path: Path) -> None:
    """kill -9 in the second epoch of another process; then all that is left, here."""
    model, data, file = str(model_folders["llava"]), str(shapes["discovery"]), tmp_path / "training.safetensors"
    program = KILLED.format(
        tests=str(Path(__file__).parent), threads=torch.get_num_threads(), at=4, model=model, data=data, file=str(file)
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(load_file(file)["losses"]) == 4
    (tmp_path / ".training.safetensors.1.part").write_bytes(b"cut off while writing")
    resumed = learn(model, data, str(file))
    whole = learn(model, data, str(tmp_path / "other.safetensors"))
    assert written(resumed, tmp_path / "a.json") == written(whole, tmp_path / "b.json")
    assert resumed == whole and len(whole.losses) == 3 and any(whole.values.values())
    assert not [*tmp_path.glob(".*.part")]


class Abort(BaseException):
    pass


def test_a_training_aborted_at_any_step_goes_on(
    vlms: dict[str, VLM], discovery: Items, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Aborted before some steps in turn, each time by a new call that goes on from the file; once without a write."""
    vlm, (task, examples) = vlms["qwen"], task_and_examples(discovery)
    settings = SETTINGS.model_copy(update={"epochs": 2})
    whole, file = learn_scales(vlm, task, examples, NEURONS, settings), tmp_path / "training.safetensors"
    step, run = train._step, []

    def aborted(what: str, objective: Any, plan: Any, state: Any, settings: Any) -> list[float]:
        if len(run) in stops:
            stops.remove(len(run))
            raise Abort
        run.append(state.step)
        return step(what, objective, plan, state, settings)

    monkeypatch.setattr(train, "_step", aborted)
    monkeypatch.setattr("hones.method.steering.checkpoint.SECONDS_BETWEEN", 0.0)
    stops = [0, 3, 4]
    for _ in range(len(stops)):
        with pytest.raises(Abort):
            learn_scales(vlm, task, examples, NEURONS, settings, checkpoint=file)
    resumed = learn_scales(vlm, task, examples, NEURONS, settings, checkpoint=file)
    assert resumed == whole and run == [*range(6)], "every step once"
    assert learn_scales(vlm, task, examples, NEURONS, settings, checkpoint=file) == whole and len(run) == 6
    file.unlink()
    run.clear()
    monkeypatch.setattr("hones.method.steering.checkpoint.SECONDS_BETWEEN", 1e9)
    stops = [5]
    with pytest.raises(Abort):
        learn_scales(vlm, task, examples, NEURONS, settings, checkpoint=file)
    assert learn_scales(vlm, task, examples, NEURONS, settings, checkpoint=file) == whole
    assert run == [0, 1, 2, 3, 4, 3, 4, 5], "the second epoch again"


@pytest.fixture
def finished(vlms: dict[str, VLM], discovery: Items, tmp_path: Path) -> Path:
    file = tmp_path / "training.safetensors"
    task, examples = task_and_examples(discovery)
    learn_scales(vlms["llava"], task, examples[:2], NEURONS, SteeringSettings(epochs=1), checkpoint=file)
    return file


def test_a_checkpoint_of_another_training_is_refused(
    vlms: dict[str, VLM], discovery: Items, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm, (task, examples), one = vlms["llava"], task_and_examples(discovery), SteeringSettings(epochs=1)
    stopping = SteeringSettings(epochs=1, early_stopping=EarlyStopping())
    boxed = [replace(examples[0], image=examples[4].image), examples[1]]
    others: list[tuple[str, tuple[Any, ...]]] = [
        (r"settings.beta = 0.05, now 0.1", (vlm, task, examples[:2], NEURONS, SteeringSettings(epochs=1, beta=0.1))),
        (r"settings.early_stopping", (vlm, task, examples[:2], NEURONS, stopping)),
        (r"neurons = ", (vlm, task, examples[:2], NEURONS[1:], one)),
        (r"pictures = ", (vlm, task, examples[:3], NEURONS, one)),
        (r"trained_on = ", (vlm, task, [*examples[:1], replace(examples[1], references=("A cat.",))], NEURONS, one)),
        (r"pictures = ", (vlm, task, boxed, NEURONS, one)),
        (r"model = ", (vlms["qwen"], task, examples[:2], NEURONS, one)),
        (r"task = 'caption', now 'vqa'", (vlm, make_task("vqa"), examples[:2], NEURONS, one)),
    ]
    before = finished.read_bytes()
    for message, arguments in others:
        with pytest.raises(HonesError, match=f"belongs to a training with .*{message}"):
            learn_scales(*arguments, checkpoint=finished)
    monkeypatch.setattr(VLM, "dtype", property(lambda _: "bfloat16"))
    with pytest.raises(HonesError, match="dtype = 'float32', now 'bfloat16'"):
        learn_scales(vlm, task, examples[:2], NEURONS, one, checkpoint=finished)
    assert finished.read_bytes() == before


def test_a_damaged_checkpoint_is_refused(vlms, discovery: Items, finished: Path) -> None:
    vlm, (task, examples) = vlms["llava"], task_and_examples(discovery)
    content = finished.read_bytes()
    tensors = load_file(finished)
    renamed = {name.replace("exp_avg.", "average."): x for name, x in tensors.items()}
    shorter = {name: x[:-1] if name == "scales.2" else x for name, x in tensors.items()}

    def damaged(other: dict[str, torch.Tensor]) -> bytes:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        save_file(other, finished, metadata)
        return finished.read_bytes()

    for bad in (b"", b"no tensors", content[:-1], content[: len(content) // 2], damaged(renamed), damaged(shorter)):
        finished.write_bytes(bad)
        with pytest.raises(HonesError, match=r"training\.safetensors is not a whole checkpoint .*--fresh"):
            learn_scales(vlm, task, examples[:2], NEURONS, SteeringSettings(epochs=1), checkpoint=finished)
    save_file(tensors, finished)
    with pytest.raises(HonesError, match=r"not a whole checkpoint .*no fingerprint"):
        learn_scales(vlm, task, examples[:2], NEURONS, SteeringSettings(epochs=1), checkpoint=finished)


def test_two_processes_do_not_write_one_checkpoint(vlms, discovery: Items, finished: Path) -> None:
    vlm, (task, examples) = vlms["llava"], task_and_examples(discovery)
    with FileLock(finished.with_suffix(".lock")), pytest.raises(HonesError, match="another process is writing"):
        learn_scales(vlm, task, examples[:2], NEURONS, SteeringSettings(epochs=1), checkpoint=finished)
    if os.geteuid() != 0:
        with pytest.raises(HonesError, match="cannot write"):
            learn_scales(vlm, task, examples[:2], NEURONS, checkpoint=Path("/proc/none/training.safetensors"))


def test_a_study_goes_on_and_leaves_no_checkpoint(
    vlms: dict[str, VLM], shapes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, neurons = RunFolder(tmp_path / "run"), tmp_path / "neurons.json"
    write_result(neurons, [RankedNeuron(rank, *site, 1.0) for rank, site in enumerate(NEURONS, 1)])
    dev, test = load_items(shapes["dev"], limit=4), load_items(shapes["test"], limit=2)
    settings = SteeringSettings(epochs=1, learning_rate=0.02, batch_size=2)
    step, sweep = train._step, SweepSettings(max_new_tokens=3)

    def aborted(what: str, objective: Any, plan: Any, state: Any, settings: Any) -> list[float]:
        if state.step == 1:
            raise Abort
        return step(what, objective, plan, state, settings)

    def steer(*, fresh: bool = False) -> None:
        Study(vlms["llava"], run, sweep, fresh=fresh).steer(make_task("vqa"), dev, test, neurons, settings)

    monkeypatch.setattr("hones.method.steering.checkpoint.SECONDS_BETWEEN", 0.0)
    with monkeypatch.context() as patched, pytest.raises(Abort):
        patched.setattr(train, "_step", aborted)
        steer()
    file = run.path / "journal" / "vqa.steer.safetensors"
    assert len(load_file(file)["losses"]) == 1
    ran: list[int] = []
    monkeypatch.setattr(train, "_step", lambda *a: ran.append(a[3].step) or step(*a))
    steer()
    assert ran == [1] and not [*file.parent.iterdir()]
    assert run.record.stages["vqa/steer"].more["epochs"][0].keys() == {
        "total",
        "cross_entropy",
        "divergence",
        "held_out",
    }
    file.write_bytes(b"left by another run")
    steer(fresh=True)
    assert ran == [1, 0, 1] and not [*file.parent.iterdir()]
