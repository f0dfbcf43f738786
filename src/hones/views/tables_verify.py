"""The claims of `hones verify` in the terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hones.sweep.verify import Verification


def verification_table(found: Verification) -> Table:
    """One line per claim; 80 columns wide."""
    title = f"{found.model}: {found.family}, {found.dtype}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim")
    for heading in ("measured", "allowed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("ok", no_wrap=True)
    for claim in found.claims:
        allowed = "above 0" if claim.allowed is None else f"{claim.allowed:.1e}" if claim.allowed else "0"
        table.add_row(claim.name, f"{claim.deviation:.1e}", allowed, "yes" if claim.ok else "NO")
    table.caption = f"sweeps: {found.engine} ({found.savings})"
    return table
