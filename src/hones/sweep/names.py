"""The engines by name and the longest answer; here, because a misspelt name need not wait for torch."""

from typing import Literal

from hones.errors import HonesError

EngineName = Literal["replay", "naive"]
ENGINES: tuple[EngineName, ...] = ("replay", "naive")
MAX_NEW_TOKENS = 24


def check_engine(name: str) -> EngineName:
    """The name.

    Raises:
        HonesError: no such engine.
    """
    for engine in ENGINES:
        if engine == name:
            return engine
    raise HonesError(f"no engine {name!r}", expected=" or ".join(ENGINES))
