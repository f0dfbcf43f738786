"""Step 4 of the paper: learn sparse neuron scalings, backbone frozen."""

from hones.steering.evaluate import SteeringResult, evaluate_scales
from hones.steering.settings import EarlyStopping, EpochLosses, Scales, SteeringSettings
from hones.steering.train import learn_scales

__all__ = [
    "EarlyStopping",
    "EpochLosses",
    "Scales",
    "SteeringResult",
    "SteeringSettings",
    "evaluate_scales",
    "learn_scales",
]
