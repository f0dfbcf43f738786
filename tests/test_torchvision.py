"""Where torchvision is installed: families that need it with their own image processors, the others as without it.

`make test-versions` has an environment with it; elsewhere these are skipped.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from by_hand_models import BY_HAND, load_family
from family_models import FAMILIES

from hones import attach, attribute_neurons, load_vlm, localize_heads, make_task, verify
from hones.data.items import Items
from hones.data.shapes.scene import draw, make_scene
from hones.method.found import HeadScore
from hones.models.vlm import VLM
from hones.stats import Interval
from hones.sweep.run import SweepSettings

pytest.importorskip("torchvision", reason="needs torchvision: make test-versions has an environment with it")

PREPARED_BY_PIL = ("LLaVA-1.5", "Qwen2.5-VL", "Qwen3-VL", "Pixtral in LLaVA", "Mistral 3")
OWN = {
    "Molmo 2": "Molmo2ImageProcessor",
    "Phi-4 multimodal": "Phi4MultimodalImageProcessor",
    "Llama 4": "Llama4ImageProcessor",
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VLM]:
    """Families by name, each built and loaded once."""
    folder, known = tmp_path_factory.mktemp("torchvision"), {}

    def load(family: str) -> VLM:
        if family not in known:
            known[family] = load_family(family, folder / family.replace(" ", "-"))
        return known[family]

    return load


def test_every_stand_in_has_its_own_here() -> None:
    assert {*OWN} == {*BY_HAND}


@pytest.mark.parametrize("family", OWN)
def test_a_family_is_verified_with_its_own_image_processor(family: str, loaded: Callable[[str], VLM]) -> None:
    vlm = loaded(family)
    pictures: Any = vlm.processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    assert (type(pictures).__name__, vlm.image_backend) == (OWN[family], "torchvision")
    assert verify(vlm).failed == []


@pytest.mark.filterwarnings("ignore:.* cannot be served by replay")
@pytest.mark.parametrize("family", OWN)
def test_a_sweep_gives_what_the_definition_does(family: str, loaded: Callable[[str], VLM], discovery: Items) -> None:
    vlm, task = loaded(family), make_task("vqa")
    examples = task.examples(discovery)[0][:2]
    fast, slow = (localize_heads(vlm, task, examples, sweep=SweepSettings(engine)) for engine in ("replay", "naive"))
    assert fast == slow and len(fast.heads) == 12
    heads = [HeadScore(0, 1, Interval(1.0, 1.0, 1.0), 0.0, 0.0), HeadScore(1, 2, Interval(0.5, 0.5, 0.5), 0.0, 0.0)]
    found, expected = (
        attribute_neurons(vlm, task, examples, heads, sweep=SweepSettings(engine)) for engine in ("replay", "naive")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (expected > 0).any()


def test_who_prepares_pictures_is_said_where_it_is_not_pil(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hones"):
        load_family("Llama 4", tmp_path / "llama4")
        load_family("LLaVA-1.5", tmp_path / "llava")
    said = [record.getMessage() for record in caplog.records if "torchvision" in record.getMessage()]
    expected = "pictures are prepared by torchvision (Llama4ImageProcessor), which resizes otherwise than PIL"
    assert said == [f"{tmp_path / 'llama4'}: {expected}"]


@pytest.mark.parametrize("family", PREPARED_BY_PIL)
def test_a_family_that_pil_can_serve_is_as_without_torchvision(family: str, tmp_path: Path) -> None:
    """Transformers' own choice, which is torchvision's here, attached: verified too, with nearly the same inputs."""
    folder = FAMILIES[family](tmp_path / "model")
    vlm = load_vlm(str(folder))
    processor: Any = vlm.processor
    assert vlm.image_backend == "pil" and type(processor.image_processor).__name__.endswith("Pil")
    picture = draw(make_scene("test/0"))
    of_pil = vlm.encode([picture], ["What?"]).inputs
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(folder)
    other = attach(family, vlm.model, processor)
    assert other.image_backend == "torchvision" and not type(processor.image_processor).__name__.endswith("Pil")
    assert verify(other).failed == []
    of_torchvision = other.encode([picture], ["What?"]).inputs
    assert of_pil.keys() == of_torchvision.keys() and of_pil["input_ids"].equal(of_torchvision["input_ids"])
    apart = (of_pil["pixel_values"] - of_torchvision["pixel_values"]).abs()
    assert apart.mean() < 0.01 * of_pil["pixel_values"].std()
    assert not torch.equal(of_pil["pixel_values"], of_torchvision["pixel_values"]), "two ways to resize"
