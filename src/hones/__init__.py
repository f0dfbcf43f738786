"""Which attention heads and which FFN neurons of a vision-language model do a task: found, proven and steered.

load_vlm, attach, load_items, make_task                    a model, annotated pictures, one of four tasks
verify                                                     every claim that an edit relies on, measured on a model
localize_heads, attribute_neurons, select_neurons          steps 1 and 2: find
evaluate_masking                                           step 3: prove
METHODS, compare_methods                                   other rankings of neurons, masked on the same items
learn_scales, evaluate_scales                              step 4: steer
scales_for, export_scales, push_export, ask                read scales, share them, ask with them
read_run, RunStudy, explain                                what the found sets share and do; why one answer
replace_heads, mask_neurons, scale_neurons                 the edits, context managers on any transformers model
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from hones.models.verify import Verification, verify
    from hones.models.vlm import VLM
    from hones.neurons import RankedNeuron, attribute_neurons, select_neurons
    from hones.pipeline import RunConfig, read_config, run_config
    from hones.sharing import Asked, Exported, ask, export_scales, push_export
    from hones.sharing.origin import scales_for
    from hones.steering import SteeringResult, SteeringSettings, evaluate_scales, learn_scales
    from hones.steering.results import Evidence
    from hones.store import RunFolder
    from hones.study import Study
    from hones.tasks import Example, Task, make_task

__version__ = version("hones")

__all__ = [
    "METHODS",
    "VLM",
    "Analysis",
    "Asked",
    "BadItem",
    "Comparison",
    "Context",
    "Evidence",
    "Example",
    "Explanation",
    "Exported",
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
    "Verification",
    "ask",
    "attach",
    "attribute_neurons",
    "compare_methods",
    "evaluate_masking",
    "evaluate_scales",
    "explain",
    "export_scales",
    "layer_matched_random",
    "learn_scales",
    "load_items",
    "load_vlm",
    "localize_heads",
    "make_task",
    "mask_neurons",
    "push_export",
    "read_config",
    "read_run",
    "replace_heads",
    "run_config",
    "scale_neurons",
    "scales_for",
    "select_neurons",
    "verify",
    "write_shapes",
]

# Names are imported when they are first used, so that `hones --help` need not wait for torch.
_MODULES = {
    "hones.analysis.explain": ("explain",),
    "hones.analysis.results": (
        "Analysis",
        "Explanation",
    ),
    "hones.analysis.source": ("read_run",),
    "hones.analysis.stage": ("RunStudy",),
    "hones.comparators": (
        "METHODS",
        "Context",
        "Method",
    ),
    "hones.comparators.compare": (
        "Ranking",
        "compare_methods",
    ),
    "hones.comparators.results": ("Comparison",),
    "hones.data.items": (
        "Items",
        "load_items",
    ),
    "hones.data.shapes": ("write_shapes",),
    "hones.errors": (
        "BadItem",
        "HonesError",
    ),
    "hones.heads": (
        "HeadResult",
        "HeadScore",
        "localize_heads",
    ),
    "hones.interventions": (
        "mask_neurons",
        "replace_heads",
        "scale_neurons",
    ),
    "hones.masking": (
        "MaskingResult",
        "evaluate_masking",
        "layer_matched_random",
    ),
    "hones.models.loading": (
        "attach",
        "load_vlm",
    ),
    "hones.models.verify": (
        "Verification",
        "verify",
    ),
    "hones.models.vlm": ("VLM",),
    "hones.neurons": (
        "RankedNeuron",
        "attribute_neurons",
        "select_neurons",
    ),
    "hones.pipeline": (
        "RunConfig",
        "read_config",
        "run_config",
    ),
    "hones.sharing": (
        "Asked",
        "Exported",
        "ask",
        "export_scales",
        "push_export",
    ),
    "hones.sharing.origin": ("scales_for",),
    "hones.steering": (
        "SteeringResult",
        "SteeringSettings",
        "evaluate_scales",
        "learn_scales",
    ),
    "hones.steering.results": ("Evidence",),
    "hones.store": ("RunFolder",),
    "hones.study": ("Study",),
    "hones.tasks": (
        "Example",
        "Task",
        "make_task",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hones' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
