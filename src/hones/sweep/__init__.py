"""Running many interventions over the same items."""

from hones.sweep.naive import Edit, sweep

__all__ = ["Edit", "sweep"]
