"""The census of families: each rule that serves new ones by an example, the whole page on demand.

What a run finds is compared with docs/families.md, and where torchvision and timm are installed with what
docs/families-torchvision.md says in its place.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.utils import is_torchvision_available

from hones.models.head import spread

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
census: Any = __import__("census")

PAGE = census.PAGE
BESIDE = census.WITH_TORCHVISION
pytestmark = [
    pytest.mark.skipif(
        f"transformers {transformers.__version__}:" not in PAGE.read_text(),
        reason="the page was written with another transformers, of which it says what this one does not",
    ),
    pytest.mark.skipif(
        is_torchvision_available() and not (find_spec("timm") and find_spec("scipy")),
        reason="the pages say what there is with torchvision, timm and scipy, or with none of them",
    ),
]
needs_torchvision = pytest.mark.skipif(not is_torchvision_available(), reason="needs torchvision")
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
APART = {
    "cohere2_vision": "an image processor for torchvision alone",
    "fast_vlm": "a vision tower of timm",
    "inkling2": "an FFN whose sum goes through more before it is in the residual",
    "kimi_k25": "a mixture of experts behind latent attention",
    "muse_spark": "a norm behind every expert",
    "unlimited_ocr": "two vision towers, one behind the other",
}
"""What a row of docs/families-torchvision.md is an example of."""
TEXT_SAMPLE = {
    "gemma4_text": "a number that a layer multiplies by, kept as a tensor",
    "gptj": "a down_proj called fc_out",
    "gpt_neo": "an attention within an attention",
    "mpt": "layers called blocks, an FFN that adds the residual itself",
}


def outcomes() -> dict[str, tuple[str, str]]:
    """What the pages say of each type in this environment: the outcome, and why."""
    return census.read(PAGE) | (census.read(BESIDE) if is_torchvision_available() else {})


@pytest.mark.parametrize("model_type", SAMPLE)
def test_the_page_says_what_a_run_finds(model_type: str) -> None:
    (row,) = census.measured([model_type], census.of_picture)
    assert outcomes()[model_type][0] == row.outcome, "run tools/families.py again"


@needs_torchvision
@pytest.mark.parametrize("model_type", APART)
def test_the_page_with_torchvision_says_what_a_run_finds(model_type: str) -> None:
    (row,) = census.measured([model_type], census.of_picture)
    assert census.read(BESIDE)[model_type] == (row.outcome, row.remark), "run tools/families.py again"


@pytest.mark.parametrize("model_type", TEXT_SAMPLE)
def test_the_page_says_what_a_run_finds_of_text_only_types(model_type: str) -> None:
    (row,) = census.measured([model_type], census.of_text)
    assert outcomes()[model_type][0] == row.outcome, "run tools/families.py again"


def test_every_type_of_transformers_has_one_row() -> None:
    """In the first table by its family's name, or in the census by its own."""
    page = census.read(PAGE)
    assert {*census.vision_types(), *census.TEXT_TYPES, *census.BY_HAND.values()} == {*page}
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(page) - len(census.BY_HAND), "a type has two rows"
    for outcome, why in page.values():
        assert outcome in census.ORDER
        assert why or outcome.startswith("verified"), "what is not verified says why"


def test_a_row_of_the_page_with_torchvision_differs_from_the_others() -> None:
    page, beside = census.read(PAGE), census.read(BESIDE)
    own = {*census.types_apart(), "molmo2", "llama4"}
    assert {*beside} <= own and all(page[name] != beside[name] for name in beside)
    missing = ("needs torchvision", "needs the package timm")
    still = [name for name, (_, why) in (page | beside).items() if why.endswith(missing)]
    assert not still, "neither is missing where both are installed"


def test_the_counts_are_those_of_the_rows() -> None:
    types = [*census.vision_types(), *census.BY_HAND.values()]
    page, both = census.read(PAGE), census.read(PAGE) | census.read(BESIDE)
    plain, beside = (census.verified(said[name][0] for name in types) for said in (page, both))
    assert f"\n{plain} of the {len(types)} types" in PAGE.read_text()
    assert f"With torchvision and timm installed {beside} are" in PAGE.read_text()
    assert f"{beside} of the {len(types)} types for pictures and text are verified here, {plain} without" in (
        BESIDE.read_text()
    )


def test_the_spread_of_logits_leaves_out_what_is_never_said() -> None:
    """With them it would be infinite, and every distance in it nothing."""
    logits = torch.tensor([1.0, 2.0, 3.0, torch.finfo(torch.float32).min])
    assert spread(logits) == logits[:3].std()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as the tool is run: a family's own processor may warn
def test_the_whole_page_is_what_a_run_writes(tmp_path: Path) -> None:
    """Some minutes: every family that is built by hand, and every type of the census."""
    families: Any = __import__("families")
    write, page = (families.beside, BESIDE) if is_torchvision_available() else (families.table, PAGE)
    assert write(tmp_path) == page.read_text(), "run tools/families.py again"


@needs_torchvision
@pytest.mark.slow
def test_every_other_row_is_as_without_torchvision() -> None:
    names = [name for name in census.vision_types() if name not in census.types_apart()]
    rows = {row.model_type: row.outcome for row in census.measured(names, census.of_picture)}
    assert rows == {name: outcome for name, (outcome, _) in census.read(PAGE).items() if name in names}
