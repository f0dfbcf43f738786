"""The census: every type of model that transformers lists for pictures and text, and the common causal ones.

Each is built small by rule (tests/census_models.py), loaded as a user's model is and measured by `hones verify`. What
it says is one row of docs/families.md, which `python tools/families.py` writes.
"""

import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from census_files import CannotBeBuilt, is_of_pil  # noqa: E402  # pyright: ignore[reportMissingImports]
from census_models import build_text, load  # noqa: E402  # pyright: ignore[reportMissingImports]
from census_settings import REMARKS, SETTINGS, Settings  # noqa: E402  # pyright: ignore[reportMissingImports]
from census_text import TEXT_TYPES  # noqa: E402  # pyright: ignore[reportMissingImports]

from hones import HonesError, Verification, load_vlm, verify  # noqa: E402
from hones.models.vlm import VLM  # noqa: E402

PAGE = ROOT / "docs" / "families.md"
WITH_TORCHVISION = ROOT / "docs" / "families-torchvision.md"
WRITE_IN = "an FFN adds what its neurons write"
HEADS = "the heads' slices through o_proj sum to its output"
ENGINES = {"replay": "by replay", "forward": "by forward passes", "naive": "by the definition alone"}
ORDER = (*(f"verified {how}" for how in ENGINES.values()), "heads and masking only", "refused", "cannot be built here")
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
WITHOUT_ATTENTION = ("linear_attention", "conv", "mamba", "moe", "mlp", "recurrent", "hybrid", "hybrid_sliding")
BY_HAND = {
    "LLaVA-1.5": "llava",
    "LLaVA-NeXT": "llava_next",
    "LLaVA-OneVision": "llava_onevision",
    "Mistral 3": "mistral3",
    "Qwen2-VL": "qwen2_vl",
    "Qwen2.5-VL": "qwen2_5_vl",
    "Qwen3-VL": "qwen3_vl",
    "GLM-4V": "glm4v",
    "InternVL": "internvl",
    "Idefics3": "idefics3",
    "SmolVLM": "smolvlm",
    "Janus": "janus",
    "Aya Vision": "aya_vision",
    "Gemma 3": "gemma3",
    "PaliGemma": "paligemma",
    "Mllama": "mllama",
    "Qwen3-VL-MoE": "qwen3_vl_moe",
    "GLM-4V-MoE": "glm4v_moe",
    "Molmo 2": "molmo2",
    "Llama 4": "llama4",
}
"""The families of the first table that are types of the list; `Pixtral in LLaVA` is llava too, Phi-4 is not of it."""


@dataclass(frozen=True)
class Row:
    """What was found of one type: an outcome of ORDER, and why or what is worth knowing, in one line."""

    model_type: str
    outcome: str
    remark: str = ""

    def __str__(self) -> str:
        return f"| `{self.model_type}` | {self.outcome} | {self.remark} |"


def vision_types() -> list[str]:
    """Those of the list that no family of the first table is."""
    return [name for name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES if name not in BY_HAND.values()]


def types_apart() -> list[str]:
    """Those whose image processor or vision tower needs torchvision or timm, so that a row may differ with these."""

    def needs_more(name: str) -> bool:
        own = SETTINGS.get(name, Settings())
        alone = own.stand_in is None and is_of_pil(name, own.image_processor_class)
        return bool(own.needs) or not alone

    return [name for name in vision_types() if needs_more(name) and not SETTINGS.get(name, Settings()).impossible]


def read(page: Path) -> dict[str, tuple[str, str]]:
    """What a page says of each type: the outcome, and why; of families of the first table by their types."""
    found = {}
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").replace("\\|", "\0").split(" |")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = (cells[1], cells[2] if len(cells) > 2 else "")
        elif cells[0] in BY_HAND and cells[1].startswith("`"):
            found[BY_HAND[cells[0]]] = (f"{cells[2]} {ENGINES[cells[3]]}", cells[4] if len(cells) > 4 else "")
    return found


def verified(outcomes: Iterable[str]) -> int:
    """How many of these are verified, one way or another."""
    return sum(outcome.startswith("verified") for outcome in outcomes)


def of_picture(model_type: str, folder: Path) -> Row:
    """The row of one vision-language type."""
    return _measured(model_type, folder, partial(load, model_type, folder))


def of_text(model_type: str, folder: Path) -> Row:
    """The row of one causal type."""
    return _measured(model_type, folder, lambda: load_vlm(str(build_text(model_type, folder))))


def _measured(model_type: str, folder: Path, made: Callable[[], VLM]) -> Row:
    def line(error: Exception | str) -> str:
        text = " ".join(str(error).split()).replace(str(folder), model_type)
        return text.replace("|", "\\|").replace("<", "\\<")

    remark = REMARKS.get(model_type, "")
    try:
        found = verify(made())
        if [claim.name for claim in found.failed] == [WRITE_IN]:
            (failed,) = found.failed
            return Row(model_type, "heads and masking only", "; ".join(filter(None, (line(failed.note), remark))))
        found.check()
    except CannotBeBuilt as error:
        return Row(model_type, "cannot be built here", line(error))
    except HonesError as error:
        kind = _kind(model_type) if "none of" in str(error) else ""
        return Row(model_type, "refused", "; ".join(filter(None, (kind, line(error), remark))))
    sound = "it takes sound too" if hasattr(AutoConfig.for_model(model_type), "audio_config") else ""
    worth_knowing = "; ".join(filter(None, (_heads(found), remark, sound)))
    return Row(model_type, f"verified {ENGINES[found.engine]}", worth_knowing)


def _heads(found: Verification) -> str:
    """Which layers have no heads, or other numbers of them."""
    return next((claim.note for claim in found.claims if claim.name == HEADS), "")


def _kind(model_type: str) -> str:
    """What is known of a family whose layers are of another form."""
    config = AutoConfig.for_model(model_type).get_text_config()
    kinds = []
    if any(getattr(config, name, None) for name in EXPERTS):
        kinds.append("mixture of experts")
    if {*(getattr(config, "layer_types", None) or ())} & {*WITHOUT_ATTENTION}:
        kinds.append("layers without attention")
    return " and ".join(kinds)


def measured(
    types: Iterable[str], of_type: Callable[[str, Path], Row], say: Callable[[str], object] = lambda line: None
) -> list[Row]:
    """The rows of types, by outcome."""
    rows = []
    for model_type in types:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(of_type(model_type, Path(folder) / "model"))
        say(f"{time.perf_counter() - started:6.1f} s  {rows[-1]}")
    return sorted(rows, key=lambda row: (ORDER.index(row.outcome), row.model_type))


def counted(outcomes: Sequence[str]) -> str:
    """How many there are of each outcome, in words."""
    counts = Counter(outcomes)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ORDER if counts[outcome])


HEADER = """
## Every type for pictures and text

{verified} of the {total} types of transformers' own list (`MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES`) are verified,
the {by_hand} of them above and those of this table: {counts}.
With torchvision and timm installed {beside} are: [those whose row differs](families-torchvision.md).

The models of this table are built by rule: the family's own configuration class with every width, depth and count made
small (heads of width 8, three layers), random weights, its own processor around a tiny tokenizer with the marks that
it asks for, no network. So a row says that the family's code is served; what your checkpoint's numbers are,
`hones verify --model M` says. A family that also takes sound or videos is asked about a picture alone: its prompts
have no other input, and the parts that read those are not run.

| type | outcome | why, or worth knowing |
|---|---|---|
"""

TEXT_HEADER = """
## Further text-only types

Built by the same rule: {counts}.

| type | outcome | why, or worth knowing |
|---|---|---|
"""


def picture_part(first: Sequence[str], say: Callable[[str], object] = print) -> str:
    """The census of types for pictures and text.

    Args:
        first: the outcomes of the families of the first table that are of the list.
    """
    rows = measured(vision_types(), of_picture, say)
    outcomes = [*first, *(row.outcome for row in rows)]
    by_type = dict(zip((*BY_HAND.values(), *(row.model_type for row in rows)), outcomes, strict=True))
    by_type |= {name: outcome for name, (outcome, _) in read(WITH_TORCHVISION).items()}
    head = HEADER.format(
        verified=verified(outcomes),
        beside=verified(by_type.values()),
        total=len(outcomes),
        by_hand=len(first),
        counts=counted(outcomes),
    )
    return head + "\n".join(map(str, rows)) + "\n"


def text_part(say: Callable[[str], object] = print) -> str:
    """The census of causal types."""
    rows = measured(TEXT_TYPES, of_text, say)
    return TEXT_HEADER.format(counts=counted([row.outcome for row in rows])) + "\n".join(map(str, rows)) + "\n"
