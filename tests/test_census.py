"""The census of families (docs/families.md): each rule that serves new ones by an example, the whole page on demand."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import is_torchvision_available

from hones.models.head import spread

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
census: Any = __import__("census")

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
pytestmark = pytest.mark.skipif(
    f"transformers {transformers.__version__}:" not in PAGE.read_text() or is_torchvision_available(),
    reason="the page says what this version does not: it was written with another transformers, without torchvision",
)
SAMPLE = {
    "blip-2": "a decoder within what get_decoder gives, pictures put in front of the text",
    "cosmos3_edge": "types of tokens that the processor gives only where it is asked for them",
    "gemma4": "heads of other widths in some layers, a branch behind the FFN",
    "glm5_next": "several residuals side by side",
    "got_ocr2": "pictures that are no lists of lists",
    "hyperclovax_vision_v2": "a norm after down_proj of another name",
    "instructblip": "a picture part that reads the question, and not its answer",
    "hunyuan_vl": "pictures that are numbered through the batch",
    "kosmos-2": "a processor that writes a picture's tokens itself and names none",
    "lfm3_vl": "short convolutions between layers of attention, a norm after w2",
    "minicpmv4_6": "a processor that reads settings of its video part",
    "mistral_large4": "a mixture behind an attention with an indexer, whose cache is another",
    "pp_chart2table": "a picture's token that the configuration alone names, and a template that writes all of them",
    "qwen2_5_omni_thinker": "positions that the model makes itself though no types of tokens say where pictures are",
    "qwen3_5": "delta layers with other heads than attention has",
    "qwen3_omni_moe_thinker": "positions kept as floating-point numbers",
    "qwen4_exp": "a residual wider than what its FFN writes",
    "t5gemma2": "an encoder and a decoder",
    "udop": "an encoder and a decoder",
}
TEXT_SAMPLE = {
    "gemma4_text": "a number that a layer multiplies by, kept as a tensor",
    "gptj": "a down_proj called fc_out",
    "gpt_neo": "an attention within an attention",
    "mpt": "layers called blocks, an FFN that adds the residual itself",
}


def outcomes() -> dict[str, tuple[str, str]]:
    """What the page says of each type: the outcome, and why."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): (row[1], row[2] if len(row) > 2 else "") for row in rows}


@pytest.mark.parametrize("model_type", SAMPLE)
def test_the_page_says_what_a_run_finds(model_type: str, tmp_path: Path) -> None:
    (row,) = census.measured([model_type], census.of_picture)
    assert outcomes()[model_type][0] == row.outcome, "run tools/families.py again"


@pytest.mark.parametrize("model_type", TEXT_SAMPLE)
def test_the_page_says_what_a_run_finds_of_text_only_types(model_type: str, tmp_path: Path) -> None:
    (row,) = census.measured([model_type], census.of_text)
    assert outcomes()[model_type][0] == row.outcome, "run tools/families.py again"


def test_every_type_of_transformers_has_one_row() -> None:
    """In the first table by its family's name, or in the census by its own."""
    page = outcomes()
    assert {*census.vision_types(), *census.TEXT_TYPES} == {*page}
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(page), "a type has two rows"
    for outcome, why in page.values():
        assert outcome in census.ORDER
        assert why or outcome.startswith("verified"), "what is not verified says why"


def test_the_count_is_that_of_the_rows() -> None:
    page = outcomes()
    verified = sum(page[name][0].startswith("verified") for name in census.vision_types()) + len(census.BY_HAND)
    assert f"\n{verified} of the {len(census.vision_types()) + len(census.BY_HAND)} types" in PAGE.read_text()


def test_the_spread_of_logits_leaves_out_what_is_never_said() -> None:
    """With them it would be infinite, and every distance in it nothing."""
    logits = torch.tensor([1.0, 2.0, 3.0, torch.finfo(torch.float32).min])
    assert spread(logits) == logits[:3].std()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as the tool is run: a family's own processor may warn
def test_the_whole_page_is_what_a_run_writes(tmp_path: Path) -> None:
    """Some minutes: every family that is built by hand, and every type of the census."""
    families: Any = __import__("families")
    assert families.table(tmp_path) == PAGE.read_text(), "run tools/families.py again"
