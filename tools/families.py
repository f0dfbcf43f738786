"""Writes docs/families.md: what `hones verify` says of every family, on small random models in their own format.

python tools/families.py            # writes docs/families.md
"""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import transformers

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from family_models import FAMILIES, NOT_SERVED, REMARKS  # noqa: E402  # pyright: ignore[reportMissingImports]

from hones import HonesError, Verification, load_vlm, verify  # noqa: E402

TABLE = ROOT / "docs" / "families.md"
HEADER = f"""# Families

What `hones verify` says of each family of transformers {transformers.__version__}: on a small random model in the
family's own files (config, safetensors, tokenizer, image processor), float32, on a CPU. `hones verify --model M` says
it of your checkpoint. Written by `python tools/families.py`.

A family is *verified* where every claim holds: hooks that change nothing change no bit; the heads' slices through
o_proj sum to its output; z through down_proj is the FFN's output, and what the FFN adds to the residual is what its
neurons write; a batch gives what each row alone does; generation is greedy over teacher-forced passes; every edit
changes the logits; the sweep's engine gives what the edited model does. Sweeps by *replay* use all savings, those by
*forward* run whole passes of the decoder; the numbers are the same.

| family | tiny model | heads, neurons, masking, steering | sweeps | worth knowing |
|---|---|---|---|---|
"""


def rows(families: Iterable[str], folder: Path) -> list[str]:
    """One row of the table for each family."""
    found = []
    for family in families:
        status, engine = measure(family, folder)
        found.append(f"| {family} | `{FAMILIES[family].__name__}` | {status} | {engine} | {REMARKS.get(family, '')} |")
    return found


def measure(family: str, folder: Path) -> tuple[str, str]:
    """Whether all claims hold, or the first that does not; and the engine of the sweeps."""
    try:
        result: Verification = verify(load_vlm(str(FAMILIES[family](folder / family.replace(" ", "-")))))
        result.check()
    except HonesError as error:
        return f"refused: {error}", "-"
    return "verified", result.engine


def table(folder: Path) -> str:
    """The whole page."""
    others = [f"| {family} | | not served | - | {reason} |" for family, reason in NOT_SERVED.items()]
    return HEADER + "\n".join([*rows(FAMILIES, folder), *others]) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        TABLE.write_text(table(Path(temporary)), encoding="utf-8")
    print(f"written: {TABLE}")
