"""The built-in models do the four tasks, need the picture for it, and their chosen neurons matter.

The full figures, on hundreds of unseen pictures, are in NAME.manifest.json beside each model; the slow proof measures
them again.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hones import load_items, load_vlm, make_task, write_shapes
from hones.data.items import Items
from hones.models.interventions import BASELINE
from hones.models.place import BUILT_IN_FOLDER, WITH_PICTURES
from hones.models.vlm import VLM
from hones.sweep.run import sweep
from hones.tasks import TASKS

MANIFESTS = {name: BUILT_IN_FOLDER / f"{name}.manifest.json" for name in WITH_PICTURES}


@pytest.fixture(scope="module", params=WITH_PICTURES)
def built_in(request: pytest.FixtureRequest) -> VLM:
    return load_vlm(request.param)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Items:
    return load_items(write_shapes(tmp_path_factory.mktemp("unseen"), {"test": 24}, seed=77)["test"])


@pytest.mark.parametrize("task_name", TASKS)
def test_competent_with_the_picture_and_lost_without(
    built_in: VLM, unseen: Items, task_name: str, tmp_path: Path
) -> None:
    task = make_task(task_name, candidates=10)
    examples, _ = task.examples(replace(unseen, items=unseen.items[:12]) if task_name == "retrieval" else unseen)
    Image.new("RGB", (96, 96), (235, 235, 235)).save(tmp_path / "blank.png")
    blind = [replace(e, image=tmp_path / "blank.png") for e in examples]
    scores = [float(task.score(sweep(built_in, task, part, [BASELINE])[0].sum(0))) for part in (examples, blind)]
    floor = {"vqa": 0.7, "ocr": 0.6, "caption": 0.4, "retrieval": 0.7}[task_name]
    assert scores[0] > floor, scores
    assert scores[1] < task.guess(examples) + 0.12, scores
    assert scores[1] < 0.5 * scores[0] + 0.1, scores


def test_the_weights_are_half_precision_and_small(built_in: VLM) -> None:
    weights = BUILT_IN_FOLDER / built_in.name / "model.safetensors"
    assert 5e6 < weights.stat().st_size < 10e6
    assert built_in.dtype == "float32"


@pytest.mark.parametrize("name", WITH_PICTURES)
@pytest.mark.parametrize("task", TASKS)
def test_the_manifest_shows_competence_with_room_for_steering(name: str, task: str) -> None:
    figures = json.loads(MANIFESTS[name].read_text())["figures"][task]
    low, high = (0.5, 1.0) if task == "caption" else (0.75, 0.97)
    assert low <= figures["score"]["value"] <= high
    assert figures["blank_picture"] < min(0.5 * figures["score"]["value"], figures["guess"] + 0.12)


@pytest.mark.parametrize("name", WITH_PICTURES)
def test_the_manifest_shows_that_neurons_matter(name: str) -> None:
    """Masking the top 3 % by HONES costs more than layer-matched random neurons in at least three tasks."""
    figures = json.loads(MANIFESTS[name].read_text())["figures"]
    matters = [task for task in TASKS if figures[task]["masking"]["advantage"]["low"] > 0]
    assert len(matters) >= 3, matters


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PICTURES)
def test_the_manifest_is_what_the_weights_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "tools"))
    from tiny.evaluate import evaluate

    manifest = json.loads(MANIFESTS[name].read_text())["figures"]
    sizes = {task: manifest[task]["items"] for task in TASKS}
    found = evaluate(name, items=sizes["vqa"], retrieval_items=sizes["retrieval"], ratio=0.03)
    for task in TASKS:
        assert found[task]["score"]["value"] == pytest.approx(manifest[task]["score"]["value"], abs=0.01)
        masked = (x[task]["masking"]["masked"]["value"] for x in (found, manifest))
        assert np.diff(list(masked)) == pytest.approx(0, abs=0.02)
