"""Where a family's processor writes marks by itself: before a prompt, or between a prompt and its answer."""

import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from census_models import load
from packaging.version import Version

from hones import HonesError
from hones.data.shapes.scene import draw, make_scene
from hones.errors import BadItem
from hones.models.processors import name_picture_token
from hones.models.template import GIVEN, Template
from hones.models.vlm import VLM
from hones.tasks.base import BarePrompt

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
census: Any = __import__("census")

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"), reason="these processors write other marks before 5.23"
)
SEPARATOR = "<reserved08706>"
PICTURE = draw(make_scene("marks/0"))


@pytest.fixture(scope="module")
def chameleon(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load("chameleon", tmp_path_factory.mktemp("marks") / "chameleon")


@pytest.fixture(scope="module")
def kosmos(tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load("kosmos-2", tmp_path_factory.mktemp("marks") / "kosmos-2")


def test_chameleons_separator_stands_between_prompt_and_answer(chameleon: VLM) -> None:
    """Where its own processor puts it in a chat; not behind the answer too, where it would put a second one."""
    separator = chameleon.tokenizer.convert_tokens_to_ids(SEPARATOR)
    asked = chameleon.encode([PICTURE], ["What is it?"]).inputs["input_ids"][0].tolist()
    assert asked[-1] == separator and asked.count(separator) == 1
    own: Any = chameleon.processor
    text = chameleon.wrap("What is it?").removesuffix(SEPARATOR)
    assert own(images=[PICTURE], text=[text], return_tensors="pt")["input_ids"][0].tolist() == asked
    answered = chameleon.encode_with_answers([PICTURE], ["What is it?"], ["a cat"])
    ids = answered.inputs["input_ids"][0].tolist()
    gold = chameleon.gold_ids("What is it?", "a cat")
    assert ids == [*asked, *gold] and answered.answer is not None and int(answered.answer.sum()) == len(gold)


def test_a_template_that_writes_the_separator_gets_no_second_one(chameleon: VLM) -> None:
    for text in ("<image>{{ messages[0]['content'][-1]['text'] }}", "<image>{{ messages[0]['content'][-1]['text'] }}|"):
        template = Template(GIVEN, text.replace("|", SEPARATOR))
        assert template.wrap(chameleon.processor, "Hi", picture=True) == f"<image>Hi{SEPARATOR}"
    bare = chameleon.encode([None], [BarePrompt("The sky is")]).inputs["input_ids"][0].tolist()
    assert chameleon.tokenizer.convert_tokens_to_ids(SEPARATOR) not in bare


def test_kosmos_puts_the_picture_before_the_prompt(kosmos: VLM) -> None:
    """Its own mark for where a picture begins may be in no prompt of a user's."""
    assert kosmos.processor.picture_token == "<image>"  # pyright: ignore
    wrapped = kosmos.wrap("What is it?")
    assert "<image>" not in wrapped and wrapped == kosmos.wrap("What is it?", picture=False)
    shown = kosmos.encode([PICTURE], ["What is it?"]).inputs
    places = shown["image_embeds_position_mask"][0].bool()
    assert places.sum() == 4 and shown["input_ids"].shape[1] > 4
    with pytest.raises(BadItem, match=r"its text holds <image>, the picture's placeholder"):
        kosmos.wrap("What is <image>?")


def test_a_processor_that_names_no_mark_is_one_line(kosmos: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(kosmos.processor, "boi_token")
    with pytest.raises(HonesError, match="Kosmos2Processor names no token that stands for a picture"):
        name_picture_token("kosmos", kosmos.model.config, kosmos.processor)


def test_layers_that_would_be_missed_are_one_line() -> None:
    (row,) = census.measured(["idefics"], census.of_picture)
    line = "its decoder has further layers in gated_cross_attn_layers, whose heads and neurons would be missed"
    assert row.outcome == "refused" and line in row.remark
