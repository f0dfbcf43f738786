"""Which attention heads and which FFN neurons of a vision-language model do a task: found, proven and steered.

load_vlm, load_items, make_task                            a model, annotated pictures, one of four tasks
localize_heads, attribute_neurons, select_neurons          steps 1 and 2: find
evaluate_masking                                           step 3: prove
METHODS, compare_methods                                   other rankings of neurons, masked on the same items
learn_scales, evaluate_scales                              step 4: steer
read_run, RunStudy, explain                                what the found sets share and do; why one answer
replace_heads, mask_neurons, scale_neurons                 the edits, context managers on any transformers model
"""

from importlib.metadata import version

from hones.analysis.explain import explain
from hones.analysis.results import Analysis, Explanation
from hones.analysis.source import read_run
from hones.analysis.stage import RunStudy
from hones.comparators import METHODS, Context, Method
from hones.comparators.compare import Ranking, compare_methods
from hones.comparators.results import Comparison
from hones.data.items import Items, load_items
from hones.data.shapes import write_shapes
from hones.errors import BadItem, HonesError
from hones.heads import HeadResult, HeadScore, localize_heads
from hones.interventions import mask_neurons, replace_heads, scale_neurons
from hones.masking import MaskingResult, evaluate_masking, layer_matched_random
from hones.models.loading import attach, load_vlm
from hones.models.vlm import VLM
from hones.neurons import RankedNeuron, attribute_neurons, select_neurons
from hones.pipeline import RunConfig, read_config, run_config
from hones.steering import SteeringResult, SteeringSettings, evaluate_scales, learn_scales
from hones.store import RunFolder
from hones.study import Study
from hones.tasks import Example, Task, make_task

__version__ = version("hones")

__all__ = [
    "METHODS",
    "VLM",
    "Analysis",
    "BadItem",
    "Comparison",
    "Context",
    "Example",
    "Explanation",
    "HeadResult",
    "HeadScore",
    "HonesError",
    "Items",
    "MaskingResult",
    "Method",
    "RankedNeuron",
    "Ranking",
    "RunConfig",
    "RunFolder",
    "RunStudy",
    "SteeringResult",
    "SteeringSettings",
    "Study",
    "Task",
    "attach",
    "attribute_neurons",
    "compare_methods",
    "evaluate_masking",
    "evaluate_scales",
    "explain",
    "layer_matched_random",
    "learn_scales",
    "load_items",
    "load_vlm",
    "localize_heads",
    "make_task",
    "mask_neurons",
    "read_config",
    "read_run",
    "replace_heads",
    "run_config",
    "scale_neurons",
    "select_neurons",
    "write_shapes",
]
