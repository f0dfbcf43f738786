"""Which attention heads and which FFN neurons of a vision-language model do a task: found, proven and steered.

load_vlm, attach, load_items, make_task                    a model, annotated pictures, one of four tasks
verify                                                     every claim that an edit relies on, measured on a model
localize_heads, attribute_neurons, select_neurons          steps 1 and 2: find
localize_heads_by_subsets, localize_heads_conditionally    step 1 where heads stand in for each other
evaluate_masking                                           step 3: prove
METHODS, compare_methods                                   other rankings of neurons, masked on the same items
learn_scales, evaluate_scales                              step 4: steer
scales_for, export_scales, push_export, ask                read scales, share them, ask with them
publish, read_published                                    what a run found as one small file
read_run, RunStudy, explain, picture_maps                  what the found sets share and do; why one answer, and where
replace_heads, mask_neurons, scale_neurons                 the edits, context managers on any transformers model
"""

from typing import Any

import lazy_loader

# Names are imported when they are first used, so that `hones --help` need not wait for torch.
_of_stub, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name; the version is looked up when it is asked for."""
    if name != "__version__":
        return _of_stub(name)
    from importlib.metadata import version

    return version("hones")
