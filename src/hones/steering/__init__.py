"""Step 4 of the paper: learn sparse neuron scalings, backbone frozen."""

from hones.steering.evaluate import SteeringResult, evaluate_scales
from hones.steering.train import SteeringSettings, learn_scales

__all__ = ["SteeringResult", "SteeringSettings", "evaluate_scales", "learn_scales"]
