"""In which numbers a model computes, and where."""

from collections.abc import Mapping
from typing import Any

import torch

from hones.errors import HonesError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNITS = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")
"""Of CPUs that multiply bfloat16 in hardware, as torch names them."""


def device_named(name: str) -> str:
    """A torch device; auto: the GPU if there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def dtype_named(name: str, device: str) -> str:
    """Which of DTYPES a name means on a kind of device.

    Args:
        name: one of them; auto: float32 on a CPU, which is exact, bfloat16 on a GPU; fast: bfloat16 wherever the device
            has units for it, float32 elsewhere. `hones flips` counts what the rounding changes.

    Raises:
        HonesError: no such name, or a torch that cannot say what its CPU has.
    """
    if name == "auto":
        return "bfloat16" if device.startswith("cuda") else "float32"
    if name == "fast":
        return "bfloat16" if has_bfloat16_units(device) else "float32"
    if name not in DTYPES:
        raise HonesError(f"unknown dtype {name!r}", expected=f"auto, fast or one of {', '.join(DTYPES)}")
    return name


def has_bfloat16_units(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware; elsewhere it is slower than float32.

    Raises:
        HonesError: torch cannot say what the CPU has.
    """
    if device.startswith("cuda"):  # one that is not here is one to plan for
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    known: Mapping[str, Any] | None = getattr(torch.cpu, "get_capabilities", dict)() or None
    if known is None:
        raise HonesError(
            f"--dtype fast: torch {torch.__version__} cannot say what this CPU has",
            expected="a newer torch",
            do="name the dtype: bfloat16 or float32",
        )
    return any(known.get(unit, False) for unit in UNITS)
