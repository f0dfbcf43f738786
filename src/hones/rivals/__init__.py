"""Comparison methods: every rival of HONES as one file behind one interface (hones methods, hones compare).

`hones.rivals.known` says what each is; its class, and torch with it, is imported when it is asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from hones.errors import HonesError
from hones.rivals.auto import AUTO
from hones.rivals.known import BY_NAME_ALONE, KNOWN

if TYPE_CHECKING:
    from hones.rivals.base import Method


@cache
def _method(name: str) -> "Method":
    module, kind = KNOWN[name].place.split(".")
    return getattr(import_module(f"{__name__}.{module}"), kind)()


class _Methods(Mapping[str, "Method"]):
    """Each method by its name, in the order of `KNOWN`."""

    def __getitem__(self, name: str) -> "Method":
        return _method(name)

    def __iter__(self) -> Iterator[str]:
        return iter(KNOWN)

    def __len__(self) -> int:
        return len(KNOWN)

    def __contains__(self, name: object) -> bool:
        return name in KNOWN


METHODS: Mapping[str, "Method"] = _Methods()


def check_method(name: str) -> str:
    """The name.

    Raises:
        HonesError: no such method.
    """
    if name not in KNOWN:
        raise HonesError(f"no method {name!r}", expected=f"one of {', '.join(KNOWN)}")
    return name


def check_method_or_auto(name: str) -> str:
    """The name, or auto, which chooses one by what is at hand (`hones.rivals.auto`).

    Raises:
        HonesError: neither.
    """
    if name != AUTO and name not in KNOWN:
        raise HonesError(f"no method {name!r}", expected=f"{AUTO} or one of {', '.join(KNOWN)}")
    return name


def check_methods(names: str) -> list[str]:
    """The names of a comma-separated list, in the order of METHODS; `all`: every one but `BY_NAME_ALONE`.

    Raises:
        HonesError: no such method, or one named twice.
    """
    wanted = [name for name in KNOWN if name not in BY_NAME_ALONE] if names == "all" else names.split(",")
    chosen = {check_method(name) for name in wanted}
    if len(chosen) < len(wanted):
        raise HonesError(f"--methods {names}", expected="each method once")
    return [name for name in KNOWN if name in chosen]


def check_schedule(names: Sequence[str], rounds: int | None, width: int | None) -> None:
    """Raises HonesError where rounds or a width are asked for, and none of the methods closes in rounds."""
    asked = " ".join(f"--{option} {n}" for option, n in (("rounds", rounds), ("width", width)) if n is not None)
    if asked and not any(name != AUTO and KNOWN[name].in_rounds for name in names):
        able = " or ".join(name for name, known in KNOWN.items() if known.in_rounds)
        raise HonesError(f"{asked} with the method {', '.join(names)}", expected=f"the method {able}")


def scheduled(methods: Sequence["Method"], rounds: int | None, width: int | None) -> list["Method"]:
    """The methods, those that close in rounds with so many of them, so wide; None: as they do by default."""
    asked = {name: n for name, n in (("rounds", rounds), ("width", width)) if n is not None}
    return [method.with_schedule(**asked) if asked else method for method in methods]


def make_method(name: str) -> "Method":
    """The method of that name.

    Raises:
        HonesError: no such method.
    """
    return METHODS[check_method(name)]


def make_methods(names: str) -> list["Method"]:
    """The methods of a comma-separated list, as `check_methods` has them."""
    return [METHODS[name] for name in check_methods(names)]
