"""The colours of every picture: Okabe and Ito's, told apart by colour-blind people.

WARM is for what falls when something is taken away, and for HONES; COOL for what rises, and for the others.
"""

import numpy as np
from jaxtyping import Float, UInt8

INK, MUTED, LINE = "#1b1d21", "#626973", "#d8dbe0"
WARM, COOL = "#d55e00", "#0072b2"
CATEGORIES = ("#0173b3", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c5109", "#7d7d7e", "#35978f")

# Linear light to the three kinds of cones, and their cube roots to lightness and two hues: OKLab (Ottosson 2020)
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def shade(share: float) -> str:
    """White at 0, WARM at 1, COOL at -1, as rgb(...)."""
    strength = min(1.0, abs(share))
    full = _channels(WARM if share >= 0 else COOL)
    return f"rgb({','.join(str(round(255 + strength * (channel - 255))) for channel in full)})"


def perceived(shares: Float[np.ndarray, "*places"]) -> UInt8[np.ndarray, "*places 3"]:
    """The colours from COOL at -1 over white at 0 to WARM at 1: equal steps of a share look equally far apart.

    They lie on straight lines of OKLab, in which distances are those that people see.
    """
    ends = np.array([_channels(COOL), (255, 255, 255), _channels(WARM)]) / 255
    cool, white, warm = _to_lab(np.where(ends <= 0.04045, ends / 12.92, ((ends + 0.055) / 1.055) ** 2.4))
    strength = np.clip(np.abs(shares), 0, 1)[..., None]
    lab = white + strength * (np.where(shares[..., None] >= 0, warm, cool) - white)
    light = np.clip((lab @ np.linalg.inv(_LAB).T) ** 3 @ np.linalg.inv(_CONES).T, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)


def _to_lab(light: Float[np.ndarray, "*colours 3"]) -> Float[np.ndarray, "*colours 3"]:
    return np.cbrt(light @ _CONES.T) @ _LAB.T


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
