"""smol-llava, a built-in model with a real language model: `make real` gets it and runs these."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hones import load_items, load_vlm, make_task, write_shapes
from hones.models.interventions import BASELINE
from hones.models.merged import merged_models
from hones.models.merged.get import WEIGHTS
from hones.models.merged.weights import digest_of
from hones.models.place import merged_place
from hones.models.vlm import VLM
from hones.stats import UNEDITED
from hones.sweep.measure import measure

pytestmark = pytest.mark.real
NAME = "smol-llava"
SEED = 77  # pictures that neither training nor the figures of the manifest use


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load_vlm(NAME)


def test_its_language_model_is_the_real_one(vlm: VLM) -> None:
    assert (len(vlm.anatomy.layers), vlm.anatomy.heads, vlm.anatomy.neurons) == (30, 9, 1536)
    answer = vlm.processor.tokenizer("Paris")["input_ids"]  # pyright: ignore[reportAttributeAccessIssue]
    assert len(answer) == 1, "a vocabulary of words"


def test_what_is_kept_is_what_was_measured() -> None:
    model = merged_models()[NAME]
    weights = load_file(merged_place(model) / WEIGHTS)
    assert digest_of(weights, torch.float16) == model.manifest["difference"]["merged"]


@pytest.mark.parametrize("name", ["vqa", "caption", "ocr"])
def test_it_sees_what_it_is_asked_about(name: str, vlm: VLM, tmp_path: Path) -> None:
    """The score without the picture's help is far below."""
    test = write_shapes(tmp_path / "shapes", {"test": 16}, seed=SEED)["test"]
    task = make_task(name)
    examples, _ = task.examples(load_items(test))
    blank = tmp_path / "blank.png"
    Image.new("RGB", (96, 96), (235, 235, 235)).save(blank)
    blind = [replace(example, image=blank) for example in examples]
    (seen,) = measure(vlm, [(task, examples)], {UNEDITED: BASELINE}, seed=0)
    (unseen,) = measure(vlm, [(task, blind)], {UNEDITED: BASELINE}, seed=0)
    assert seen.value(UNEDITED) > unseen.value(UNEDITED) + 0.2
    assert seen.value(UNEDITED) > task.guess(examples) + 0.1
