"""How many heads and neurons are selected, by which reading of the positive part, what others become, and the seed."""

from typing import Literal, get_args

from hones.errors import HonesError

DEFAULT_RATIO = 0.01
AUTO = "auto"
"""In place of a ratio: the smallest budget that costs half of the baseline (`hones.method.smallest`)."""
BUDGETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Of curves: from a handful of neurons to a tenth of them."""
DEFAULT_SEED = 3407
PositivePart = Literal["mean", "item"]
Rest = Literal["zero", "mean"]
"""What neurons outside a kept set become (`hones.method.keeping`)."""


def check_ratio(ratio: float) -> None:
    """Raises HonesError for a ratio outside (0, 1]."""
    if not 0 < ratio <= 1:
        raise HonesError(str(ratio), argument="ratio", expected="a share of all neurons above 0 and at most 1")


def check_rest(name: str) -> Rest:
    """What neurons outside a kept set become, by name.

    Raises:
        HonesError: no such name.
    """
    for known in get_args(Rest):
        if name == known:
            return known
    raise HonesError(name, argument="rest", expected="zero or mean")


def ratio_of_text(text: str) -> float | None:
    """The ratio that an option says; None for auto.

    Raises:
        HonesError: it is neither.
    """
    if text == AUTO:
        return None
    try:
        ratio = float(text)
    except ValueError:
        raise HonesError(f"--ratio {text}", expected=f"a share of all neurons such as 0.01, or {AUTO}") from None
    check_ratio(ratio)
    return ratio


def check_top_k(top_k: int | None, heads: int) -> None:
    """Raises HonesError for a K that is not 1 to the number of heads; None: the default, which always is."""
    if top_k is not None and not 1 <= top_k <= heads:
        raise HonesError(str(top_k), argument="top_k", expected=f"1 to {heads}, the number of heads")


def neuron_budget(total: int, ratio: float) -> int:
    """How many of `total` neurons a ratio is: rounded (1 % of LLaVA-1.5-7B's 352,256 is 3,523), at least 1.

    Raises:
        HonesError: ratio outside (0, 1].
    """
    check_ratio(ratio)
    return max(1, round(ratio * total))
