"""Running many interventions over the same items: two engines, one interface."""

from hones.sweep.racing import Race
from hones.sweep.run import ENGINES, MAX_NEW_TOKENS, EngineName, SweepSettings, sweep, sweep_tasks

__all__ = ["ENGINES", "MAX_NEW_TOKENS", "EngineName", "Race", "SweepSettings", "sweep", "sweep_tasks"]
