"""Writes docs/families.md: what `hones verify` says of every family, on small random models in their own format.

python tools/families.py                      # writes docs/families.md
python tools/families.py --only gemma4 mpt    # prints the rows of these types of the census

Where torchvision and timm are installed it writes docs/families-torchvision.md: the rows that differ with these.
The first table and the one of text-only families are of models built by hand, the census of models built by rule.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import transformers
from transformers.utils import is_torchvision_available

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import census  # noqa: E402
from by_hand_models import BY_HAND, BY_HAND_REMARKS, load_family  # noqa: E402  # pyright: ignore[reportMissingImports]
from family_models import FAMILIES, REMARKS  # noqa: E402  # pyright: ignore[reportMissingImports]
from text_models import TEXT_FAMILIES, TEXT_REMARKS  # noqa: E402  # pyright: ignore[reportMissingImports]

from hones import HonesError, Verification, load_vlm, verify  # noqa: E402
from hones.models.vlm import VLM  # noqa: E402

TABLE_HEAD = """
| family | tiny model | heads, neurons, masking, steering | sweeps | worth knowing |
|---|---|---|---|---|
"""
HEADER = f"""# Families

What `hones verify` says of each family of transformers {transformers.__version__}: on a small random model in the
family's own files (config, safetensors, tokenizer, image processor), float32, on a CPU. `hones verify --model M` says
it of your checkpoint. Written by `python tools/families.py`.

A family is *verified* where every claim holds: hooks that change nothing change no bit; the heads' slices through
o_proj sum to its output; z through down_proj is the FFN's output, and what the FFN adds to the residual is what its
neurons write; a batch gives what each row alone does; generation is greedy over teacher-forced passes; every edit
changes the logits; the sweep's engine gives what the edited model does. Sweeps by *replay* use all savings, those by
*forward* run whole passes of the decoder; the numbers are the same.
"""


TEXT_HEADER = """
## Text-only models

Causal language models with a tokenizer and, if they have one, a chat template. They take tasks that show no picture
(`picture: none`, [tasks.md](tasks.md)); a task that shows one is refused. A vision-language model takes such tasks too.

What is called o_proj and down_proj here may have another name (out_proj, c_proj, dense; c_proj, fc2, dense_4h_to_h) and
keep its weights transposed (Conv1D): a layer's attention and its FFN each have one output projection, found by the name
of either (`hones.models.finding`). z is what enters the FFN's: act(gate) * up with a gate, act(fc1) without one. The
projection's bias is no neuron's: contributions sum to what the FFN adds less it. Families whose layers are of another
form are refused in one line.

In a mixture of experts (Mixtral to Llama 4 below) a neuron is one of an expert, and the router's weight is part of its
z ([text.md](text.md#mixtures-of-experts)); the biases of experts (gpt-oss) are no neuron's. Refused in one line: an FFN
beside the mixture (GraniteMoeShared), quantised experts, several residuals side by side (Gemma 3n, hyper-connections).

Layers may mix positions otherwise than by attention ([text.md](text.md#layers-without-attention)): the tables say how
many heads which of the small model's layers have. Refused in one line: attention and another mixer in one layer, layers
that are a mixer or an FFN alone, states that padding changes.

| family | heads, neurons, masking, steering | sweeps | worth knowing |
|---|---|---|---|
"""
WRITE_IN = "an FFN adds what its neurons write"


def text_rows(folder: Path) -> list[str]:
    """One row of the second table for each text-only family."""
    found = []
    for family, build in TEXT_FAMILIES.items():
        status, engine = measured(partial(load_vlm, str(build(folder / f"text-{family.replace(' ', '-')}"))))
        found.append(f"| {family} | {status} | {engine} | {TEXT_REMARKS.get(family, '')} |")
    return found


def rows(families: Iterable[str], folder: Path) -> list[str]:
    """One row of the table for each family."""
    found = []
    for family in families:
        status, engine = measured(partial(load_family, family, folder / family.replace(" ", "-")))
        build, remark = (FAMILIES | BY_HAND)[family], (REMARKS | BY_HAND_REMARKS).get(family, "")
        found.append(f"| {family} | `{build.__name__}` | {status} | {engine} | {remark} |")
    return found


def measured(load: Callable[[], VLM]) -> tuple[str, str]:
    """Whether all claims hold, or the first that does not; and the engine of the sweeps."""
    try:
        result: Verification = verify(load())
        if [claim.name for claim in result.failed] == [WRITE_IN]:
            return "heads and masking only", result.engine
        result.check()
    except HonesError as error:
        return f"refused: {error}", "-"
    return "verified", result.engine


def table(folder: Path) -> str:
    """The whole page."""
    by_hand = rows([*FAMILIES, *BY_HAND], folder)
    of_list = [row for row in by_hand if row.split(" | ")[0].removeprefix("| ") in census.BY_HAND]
    outcomes = [f"{status} {census.ENGINES[engine]}" for status, engine in (row.split(" | ")[2:4] for row in of_list)]
    return (
        HEADER
        + TABLE_HEAD
        + "\n".join(by_hand)
        + "\n"
        + census.picture_part(outcomes)
        + TEXT_HEADER
        + "\n".join(text_rows(folder))
        + "\n"
        + census.text_part()
    )


BESIDE = """# Families with torchvision and timm

What `hones verify` says of the types whose image processor or vision tower needs torchvision, timm or scipy, where
these are installed: {versions}.
It is measured as in [families](families.md), which is written without them; every other row is as there, for pictures
are prepared by PIL wherever transformers has an image processor for it. Written by `python tools/families.py` in the
environment that `make .venv-torchvision/ready` makes.

{verified} of the {total} types for pictures and text are verified here, {plain} without these packages: of all,
{counts}.
"""
PACKAGES = ("transformers", "torch", "torchvision", "timm", "scipy")


def beside(folder: Path) -> str:
    """The whole page of what differs where torchvision and timm are installed.

    Raises:
        SystemExit: one of them is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        sys.exit(f"the page is written with {', '.join(PACKAGES)}: {', '.join(missing)} is missing")
    first = rows(BY_HAND, folder)
    found = census.measured(census.types_apart(), census.of_picture, print)
    of_list = [row for row in first if row.split(" | ")[0].removeprefix("| ") in census.BY_HAND]
    cells = [row.split(" | ") for row in of_list]
    here = {census.BY_HAND[c[0].removeprefix("| ")]: f"{c[2]} {census.ENGINES[c[3]]}" for c in cells}
    page = census.read(census.PAGE)
    found = [row for row in found if page[row.model_type] != (row.outcome, row.remark)]
    plain = {name: outcome for name, (outcome, _) in page.items() if name not in census.TEXT_TYPES}
    outcomes = plain | here | {row.model_type: row.outcome for row in found}
    head = BESIDE.format(
        versions=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        verified=census.verified(outcomes.values()),
        total=len(outcomes),
        plain=census.verified(plain.values()),
        counts=census.counted([*outcomes.values()]),
    )
    types = "\n| type | outcome | why, or worth knowing |\n|---|---|---|\n" + "\n".join(map(str, found)) + "\n"
    return head + TABLE_HEAD + "\n".join(first) + "\n" + types


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if sys.argv[1:2] == ["--only"]:
        pictures = [name for name in sys.argv[2:] if name not in census.TEXT_TYPES]
        texts = [name for name in sys.argv[2:] if name in census.TEXT_TYPES]
        census.measured(pictures, census.of_picture, print)
        census.measured(texts, census.of_text, print)
        sys.exit()
    write, page = (beside, census.WITH_TORCHVISION) if is_torchvision_available() else (table, census.PAGE)
    with tempfile.TemporaryDirectory() as temporary:
        page.write_text(write(Path(temporary)), encoding="utf-8")
    print(f"written: {page}")
