"""Running many interventions over the same items: two engines, one interface."""

from hones.sweep.racing import Race, RaceRules
from hones.sweep.run import ENGINES, MAX_NEW_TOKENS, EngineName, SweepSettings, sweep, sweep_tasks

__all__ = ["ENGINES", "MAX_NEW_TOKENS", "EngineName", "Race", "RaceRules", "SweepSettings", "sweep", "sweep_tasks"]
