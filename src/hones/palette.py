"""The colours of every picture: Okabe and Ito's, told apart by colour-blind people.

WARM is for what falls when something is taken away, and for HONES; COOL for what rises, and for the others.
"""

INK, MUTED, LINE = "#1b1d21", "#626973", "#d8dbe0"
WARM, COOL = "#d55e00", "#0072b2"
CATEGORIES = ("#0173b3", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c5109", "#7d7d7e", "#35978f")


def shade(share: float) -> str:
    """White at 0, WARM at 1, COOL at -1, as rgb(...)."""
    strength = min(1.0, abs(share))
    full = bytes.fromhex((WARM if share >= 0 else COOL).removeprefix("#"))
    return f"rgb({','.join(str(round(255 + strength * (channel - 255))) for channel in full)})"
