"""Comparison methods: every rival of HONES as one file behind one interface (hones methods, hones compare).

`hones.rivals.known` says what each is; its class, and torch with it, is imported when it is asked for.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from hones.errors import HonesError
from hones.rivals.known import KNOWN

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


def check_methods(names: str) -> list[str]:
    """The names of a comma-separated list, in the order of METHODS; `all`: every one but the oracle.

    Raises:
        HonesError: no such method, or one named twice.
    """
    wanted = [name for name in KNOWN if name != "oracle"] if names == "all" else names.split(",")
    chosen = {check_method(name) for name in wanted}
    if len(chosen) < len(wanted):
        raise HonesError(f"--methods {names}", expected="each method once")
    return [name for name in KNOWN if name in chosen]


def make_method(name: str) -> "Method":
    """The method of that name.

    Raises:
        HonesError: no such method.
    """
    return METHODS[check_method(name)]


def make_methods(names: str) -> list["Method"]:
    """The methods of a comma-separated list, as `check_methods` has them."""
    return [METHODS[name] for name in check_methods(names)]
